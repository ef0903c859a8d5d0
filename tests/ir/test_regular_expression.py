"""Programs of regular expressions, acted out one way at a time: what Python's `re` says of the same patterns."""

from __future__ import annotations

import re

import pytest

from partita.ir.regular_expression import ASSERT, CLASS, JUMP, MATCH, SPLIT, PatternError, compiled

PATTERNS = [
    "", "a", "abc", "a|b", "a|", "(a|b)*c", "a*", "a+", "a?b", "a{3}", "a{2,}", "a{1,3}b", "(ab){2,3}", "[abc]+",
    "[^abc]+",
    "[a-c-]+", "[]a]+", "[^]a]+", r"\d+", r"\D+", r"\w+@\w+", r"\s*a\s*", r"[\d\s]+", r"[^\w]+", r"\bab\b.*", r"a\Bb.*",
    r"(\W|^)[\w.\-]{0,2}@(yahoo|gmail)\.com(\W|$)", "^a$", r"(?i)aB[c-d]", "(?:a|b)c", "(?P<name>a)b", "a.c", "(?s)a.c",
    "(?m)a$\nb", r"\x61\x62", r"\.\*\[", "ä|ö", "[à-ü]+", ".", "..", "(a*)*", "(a|b|)+", "(a+|b)*c?", "a*?b", "a{,2}",
]  # fmt: skip
TEXTS = [
    "", "a", "b", "c", "ab", "abc", "aabb", "aaa", "aaaa", "aab", "ababab", "abab", "-", "]", "^", "a]", "0", "12 3",
    "x@y",
    
    " a ", "ab cd", "ab", "x@gmail.com", ".x.@yahoo.com!", "abx@gmail.com", "ABc", "aBD", "a\nc", "a\nb", ".*[", "ä",
    "öä",
    "é",
    "a{,2}", "bc", "ac", "aacc", "\n", "日本", "a.c",
]  # fmt: skip


def matches(pattern: str, text: str) -> bool:
    """Follows a program depth first, with a memory of what was tried."""
    program, ranges = compiled(pattern)
    tried: set[tuple[int, int]] = set()
    pending = [(0, 0)]
    while pending:
        place, at = pending.pop()
        if (place, at) in tried:
            continue
        tried.add((place, at))
        operation, first, second = program[place]
        if operation == MATCH and at == len(text):
            return True
        if operation == CLASS and at < len(text) and any(a <= ord(text[at]) <= b for a, b in ranges[first:second]):
            pending.append((place + 1, at + 1))
        if operation in (SPLIT, JUMP):
            pending += [(target, at) for target in ((first, second) if operation == SPLIT else (first,))]
        if operation == ASSERT and holds(first, text, at):
            pending.append((place + 1, at))
    return False


def holds(kind: int, text: str, at: int) -> bool:
    words = [bool(re.fullmatch(r"\w", c, re.ASCII)) for c in (text[at - 1 : at] if at else "", text[at : at + 1])]
    conditions = [at == 0, at == len(text), at == 0 or text[at - 1] == "\n", text[at : at + 1] in ("", "\n"),
                  words[0] != words[1], words[0] == words[1]]  # fmt: skip
    return conditions[kind]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_programs_match_what_patterns_match(pattern):
    judge = re.compile(pattern.replace("{,2}", r"\{,2\}"), re.ASCII)
    wrong = [text for text in TEXTS if matches(pattern, text) != bool(judge.fullmatch(text))]
    assert wrong == []


@pytest.mark.parametrize(
    ("pattern", "text", "wanted"),
    [
        (r"\Qa.b\E+", "a.bb", True), (r"\pL+", "äzé", True), (r"\p{Lu}\P{Lu}", "Äb", True),
        (r"[[:alpha:]]+", "abZ", True),
        (r"[[:^digit:]x]+", "abx", True), (r"a\z", "a", True), (r"\x{1F600}", "😀", True), (r"\0101", "A", False),
        (r"\101", "A", True), ("(?i)k", "\u212a", True), ("(?i)[^k]", "\u212a", False), (r"(?U)a+", "aaa", True),
        ("(a(?i)b)c", "aBc", True), ("(a(?i)b)c", "aBC", False), ("(?i:a)b", "Ab", True), (r"[\pN-]+", "1-²", True),
    ],
)  # fmt: skip
def test_what_re2_has_and_python_has_not(pattern, text, wanted):
    assert matches(pattern, text) is wanted


@pytest.mark.parametrize(
    "pattern",
    ["(", ")", "a)", "(a", "[a", "*", "a**", "a{2}{3}", "a{1001}", "a{3,2}", "(?=a)", "(?<!a)", r"\1", r"\C", "[b-a]",
     "\\", "(" * 5000,
     r"\p{Greek}", r"\p{", r"\x{110000}", r"\xg0", "[[:no:]]", "((a{100}){100}){100}", "(?P<n>a", "(?z)a"],
)  # fmt: skip
def test_what_is_no_pattern_is_refused(pattern):
    with pytest.raises(PatternError):
        compiled(pattern)
