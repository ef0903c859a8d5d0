"""Regular expressions in RE2's syntax, as programs for a matcher that takes time linear in the text.

A program is a list of instructions (operation, first, second): what Thompson's construction makes. Left out, and
refused by name: scripts (`\\p{Greek}`), single bytes (`\\C`). Classes such as `\\w` are ASCII, as in RE2.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MATCH, CLASS, SPLIT, JUMP, ASSERT = range(5)
"""The text matches; a character of ranges [first, second), then on; both places; a place; a condition, then on."""

TEXT_BEGINS, TEXT_ENDS, LINE_BEGINS, LINE_ENDS, WORD_BORDER, NO_BORDER = range(6)

LARGEST = 0x10FFFF
LARGEST_REPEAT = 1000  # as in RE2
LARGEST_PROGRAM = 20_000  # instructions

Ranges = tuple[tuple[int, int], ...]
"""Characters, from and to, both included; sorted and apart."""


class PatternError(ValueError):
    """A pattern that RE2 has not, or that is not supported."""


@dataclass(frozen=True, slots=True)
class Characters:
    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Condition:
    kind: int


@dataclass(frozen=True, slots=True)
class Chain:
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    part: Part
    least: int
    most: int | None


Part = Characters | Condition | Chain | Choice | Repeat


# ---------------------------------------------------------------------- sets of characters


def united(ranges: Sequence[tuple[int, int]]) -> Ranges:
    result: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if result and first <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(last, result[-1][1]))
        else:
            result.append((first, last))
    return tuple(result)


def complement(ranges: Ranges) -> Ranges:
    result, start = [], 0
    for first, last in ranges:
        if first > start:
            result.append((start, first - 1))
        start = last + 1
    return tuple([*result, (start, LARGEST)] if start <= LARGEST else result)


def letters(*spans: str) -> Ranges:
    """Ranges from texts of one or two characters."""
    return united([(ord(span[0]), ord(span[-1])) for span in spans])


DIGITS, WORDS, SPACES = letters("09"), letters("09", "AZ", "_", "az"), letters("\t\n", "\f\r", " ")
PERL = {"d": DIGITS, "w": WORDS, "s": SPACES}
POSIX = {
    "alnum": letters("09", "AZ", "az"), "alpha": letters("AZ", "az"), "ascii": letters("\0\x7f"),
    "blank": letters("\t", " "), "cntrl": letters("\0\x1f", "\x7f"), "digit": DIGITS, "graph": letters("!~"),
    "lower": letters("az"),
    "print": letters(" ~"), "punct": letters("!/", ":@", "[`", "{~"), "space": letters("\t\r", " "),
    "upper": letters("AZ"), "word": WORDS, "xdigit": letters("09", "AF", "af"),
}  # fmt: skip
ESCAPES = {"a": 7, "f": 12, "t": 9, "n": 10, "r": 13, "v": 11}


@functools.cache
def category(name: str) -> Ranges:
    """The characters of a general category of Unicode's: "L", "Lu"."""
    if name == "Any":
        return ((0, LARGEST),)
    found = united([(c, c) for c in range(LARGEST + 1) if unicodedata.category(chr(c)).startswith(name)])
    if not found or len(name) > 2:
        raise PatternError(f"\\p{{{name}}} is no general category; scripts are not supported")
    return found


@functools.cache
def _cases() -> dict[int, tuple[int, ...]]:
    """The characters that are the same but for their case, of each that has such."""
    groups: dict[str, list[int]] = {}
    for c in range(0x1F000):
        folded = chr(c).casefold()
        if len(folded) == 1 and (folded != chr(c) or chr(c).upper() != chr(c)):
            groups.setdefault(folded, []).append(c)
    return {c: tuple({*group, ord(folded)}) for folded, group in groups.items() for c in {*group, ord(folded)}}


def without_case(ranges: Ranges) -> Ranges:
    inside = [c for c in _cases() if any(first <= c <= last for first, last in ranges)]
    return united([*ranges, *((other, other) for c in inside for other in _cases()[c])])


# ---------------------------------------------------------------------- parsing


class Parser:
    def __init__(self, pattern: str) -> None:
        self.text = pattern
        self.at = 0
        self.flags: frozenset[str] = frozenset()

    def parse(self) -> Part:
        part = self._choice()
        if self.at < len(self.text):
            raise PatternError("there is a ) without a (")
        return part

    def _take(self, text: str) -> bool:
        found = self.text.startswith(text, self.at)
        self.at += len(text) if found else 0
        return found

    def _next(self) -> str:
        if self.at >= len(self.text):
            raise PatternError("it ends too early")
        self.at += 1
        return self.text[self.at - 1]

    def _until(self, end: str) -> str:
        place = self.text.find(end, self.at)
        if place < 0:
            raise PatternError(f"a {end} is missing")
        found, self.at = self.text[self.at : place], place + len(end)
        return found

    def _choice(self) -> Part:
        flags = self.flags
        parts = [self._chain()]
        while self._take("|"):
            parts.append(self._chain())
        self.flags = flags
        return parts[0] if len(parts) == 1 else Choice(tuple(parts))

    def _chain(self) -> Part:
        parts: list[Part] = []
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            if self._take("\\Q"):
                end = self.text.find("\\E", self.at)
                quoted = self.text[self.at :] if end < 0 else self._until("\\E")
                self.at = len(self.text) if end < 0 else self.at
                parts += [self._characters(letters(c)) for c in quoted]
                parts += [self._repeated(parts.pop())] if quoted else []
                continue
            atom = self._atom()
            if atom is not None:
                parts.append(self._repeated(atom))
        return Chain(tuple(parts))

    def _repeated(self, part: Part) -> Part:
        count = 0
        while (bounds := self._bounds()) is not None:
            self._take("?")  # lazy or not: the same texts match
            count += 1
            if count > 1:
                raise PatternError("a repetition is repeated; put it into (?:...)")
            part = Repeat(part, *bounds)
        return part

    def _bounds(self) -> tuple[int, int | None] | None:
        for sign, bounds in {"*": (0, None), "+": (1, None), "?": (0, 1)}.items():
            if self._take(sign):
                return bounds
        start = self.at
        if self._take("{") and "}" in self.text[self.at :]:
            least, comma, most = self._until("}").partition(",")
            if least.isdecimal() and (most.isdecimal() or not most):
                upper = int(least) if not comma else int(most) if most else None
                if max(int(least), upper or 0) > LARGEST_REPEAT or (upper is not None and upper < int(least)):
                    raise PatternError(f"the repetition {self.text[start : self.at]} is too large or none")
                return int(least), upper
        self.at = start  # a brace that stands for itself
        return None

    def _atom(self) -> Part | None:
        c = self._next()
        if c == "(":
            return self._group()
        if c == "[":
            return self._characters(self._set())
        if c == ".":
            return Characters(((0, LARGEST),) if "s" in self.flags else complement(letters("\n")))
        if c == "^":
            return Condition(LINE_BEGINS if "m" in self.flags else TEXT_BEGINS)
        if c == "$":
            return Condition(LINE_ENDS if "m" in self.flags else TEXT_ENDS)
        if c in "*+?":
            raise PatternError(f"there is nothing that {c} repeats")
        if c != "\\":
            return self._characters(letters(c))
        conditions = {"A": TEXT_BEGINS, "z": TEXT_ENDS, "b": WORD_BORDER, "B": NO_BORDER}
        if self.text[self.at : self.at + 1] in (*conditions,):
            return Condition(conditions[self._next()])
        return self._characters(self._escape())

    def _characters(self, ranges: Ranges) -> Characters:
        return Characters(without_case(ranges) if "i" in self.flags else ranges)

    def _group(self) -> Part | None:
        if self._take("?P<") or (not self.text.startswith(("?<=", "?<!"), self.at) and self._take("?<")):
            self._until(">")
        elif self._take("?"):
            added, _, removed = "", "", ""
            while (c := self._next()) not in ":)":
                if c not in "imsU-":
                    raise PatternError(f"(?{c} is nothing that RE2 has")
                added += c
            added, _, removed = added.partition("-")
            before, self.flags = self.flags, (self.flags | set(added)) - set(removed)
            if c == ")":  # for the rest of the group around
                return None
            part = self._choice()
            self.flags = before
            return self._closed(part)
        return self._closed(self._choice())

    def _closed(self, part: Part) -> Part:
        if not self._take(")"):
            raise PatternError("a ) is missing")
        return part

    def _set(self) -> Ranges:
        is_negated = self._take("^")
        found: list[tuple[int, int]] = []
        is_first = True
        while is_first or not self._take("]"):
            is_first = False
            first = self._member()
            is_range = self.text[self.at : self.at + 1] == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", "")
            if is_range and len(first) == 1 and first[0][0] == first[0][1]:
                self.at += 1
                last = self._member()
                if len(last) != 1 or last[0][0] != last[0][1] or last[0][0] < first[0][0]:
                    raise PatternError("a range in [...] ends before it begins")
                first = ((first[0][0], last[0][0]),)
            found += first
        ranges = united(found)
        return complement(without_case(ranges) if "i" in self.flags else ranges) if is_negated else ranges

    def _member(self) -> Ranges:
        if self._take("[:"):
            name = self._until(":]")
            if name.removeprefix("^") not in POSIX:
                raise PatternError(f"[:{name}:] is no class of characters")
            ranges = POSIX[name.removeprefix("^")]
            return complement(ranges) if name.startswith("^") else ranges
        c = self._next()
        return letters(c) if c != "\\" else self._escape()

    def _escape(self) -> Ranges:
        """What stands behind a backslash, as characters."""
        c = self._next()
        if c.lower() in PERL:
            return PERL[c] if c.islower() else complement(PERL[c.lower()])
        if c in "pP":
            name = self._until("}") if self._take("{") else self._next()
            is_negated = (c == "P") != name.startswith("^")
            ranges = category(name.removeprefix("^"))
            return complement(ranges) if is_negated else ranges
        if c == "x":
            digits = self._until("}") if self._take("{") else self._next() + self._next()
            return self._number(digits, 16)
        if c in "01234567" and (c == "0" or self.text[self.at : self.at + 1] in [*"01234567"]):
            digits = c
            while len(digits) < 3 and self.text[self.at : self.at + 1] in [*"01234567"]:
                digits += self._next()
            return self._number(digits, 8)
        if c in ESCAPES:
            return ((ESCAPES[c], ESCAPES[c]),)
        if c.isalnum() and c.isascii():
            raise PatternError(f"\\{c} is nothing that RE2 has, or is not supported")
        return letters(c)

    def _number(self, digits: str, base: int) -> Ranges:
        try:
            number = int(digits, base)
        except ValueError:
            number = -1
        if not 0 <= number <= LARGEST:
            raise PatternError(f"{digits} is no character's number")
        return ((number, number),)


# ---------------------------------------------------------------------- programs


class Assembler:
    """Collects instructions and the ranges that they name."""

    def __init__(self) -> None:
        self.program: list[tuple[int, int, int]] = []
        self.ranges: list[tuple[int, int]] = []
        self.known: dict[Ranges, int] = {}

    def add(self, operation: int, first: int = 0, second: int = 0) -> int:
        if len(self.program) >= LARGEST_PROGRAM:
            raise PatternError("its repetitions make it too large")
        self.program.append((operation, first, second))
        return len(self.program) - 1

    def write(self, part: Part) -> None:
        match part:
            case Characters(ranges):
                if ranges not in self.known:
                    self.known[ranges] = len(self.ranges)
                    self.ranges += ranges
                self.add(CLASS, self.known[ranges], self.known[ranges] + len(ranges))
            case Condition(kind):
                self.add(ASSERT, kind)
            case Chain(parts):
                for inner in parts:
                    self.write(inner)
            case Choice(parts):
                self._one_of(parts)
            case Repeat(inner, least, most):
                for _ in range(least):
                    self.write(inner)
                if most is None:
                    start = self.add(SPLIT)
                    self.write(inner)
                    self.add(JUMP, start)
                    self.program[start] = (SPLIT, start + 1, len(self.program))
                else:
                    self._up_to(most - least, lambda: self.write(inner))

    def _one_of(self, parts: Sequence[Part]) -> None:
        ends = []
        for inner in parts[:-1]:
            split = self.add(SPLIT)
            self.write(inner)
            ends.append(self.add(JUMP))
            self.program[split] = (SPLIT, split + 1, len(self.program))
        self.write(parts[-1])
        for end in ends:
            self.program[end] = (JUMP, len(self.program), 0)

    def _up_to(self, count: int, write: Callable[[], None]) -> None:
        splits = []
        for _ in range(count):
            splits.append(self.add(SPLIT))
            write()
        for split in splits:
            self.program[split] = (SPLIT, split + 1, len(self.program))


def compiled(pattern: str) -> tuple[list[tuple[int, int, int]], list[tuple[int, int]]]:
    """The program of a pattern, and the ranges of characters that it names; `PatternError` where there is none."""
    assembler = Assembler()
    try:
        assembler.write(Parser(pattern).parse())
    except RecursionError as error:
        raise PatternError("its groups are nested too deeply") from error
    assembler.add(MATCH)
    return assembler.program, assembler.ranges
