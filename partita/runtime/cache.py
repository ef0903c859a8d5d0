"""What compilers made, kept by content in the user's cache folder, so that nothing is compiled twice.

An entry is a file named by the digest of everything that went into it; it starts with the digest of what it holds, so
that a damaged one is told from a sound one and made again. Several processes share the folder: an entry appears whole,
by renaming, and may vanish at any time. The entries used longest ago go first.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_DIGEST_BYTES = 32
_DEFAULT_LIMIT = 1 << 30  # bytes
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def content_key(*parts: str | bytes) -> str:
    """The digest of some texts, each told from its neighbours."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.hexdigest()


def files_key(folders: Iterable[str]) -> str:
    """A digest that changes when a file below one of these folders does; their content is not read."""
    seen = []
    for folder in folders:
        for root, below, names in os.walk(folder):
            below.sort()
            for name in sorted(names):
                path = Path(root, name)
                status = path.stat() if path.exists() else None
                seen.append(f"{path} {status and (status.st_size, status.st_mtime_ns)}")
    return content_key(*seen)


@dataclass(frozen=True, slots=True)
class Cache:
    """A folder of entries. `limit`, in bytes, is kept to by `trim`. Failing costs time, never a result."""

    folder: Path
    limit: int = _DEFAULT_LIMIT

    def get(self, key: str) -> bytes | None:
        """What `put` stored, or None: never stored, dropped since, damaged, or another user's."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_uid != os.getuid():
                    return None
                stored = file.read()
            os.utime(path)  # used now: among the last to go
        except OSError:
            return None
        data = stored[_DIGEST_BYTES:]
        return data if hashlib.sha256(data).digest() == stored[:_DIGEST_BYTES] else None

    def put(self, key: str, data: bytes) -> None:
        """Stores an entry, unless the system refuses."""
        path = self._path(key)
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                temporary.write_bytes(hashlib.sha256(data).digest() + data)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError:
            return

    def trim(self) -> None:
        """Drops what was used longest ago, until the folder is well below its limit."""
        found = []
        for path in self.folder.glob("??/*"):
            try:
                status = path.stat()
            except OSError:
                continue  # another process was faster
            found.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in found)
        if total <= self.limit:
            return
        for _, size, path in sorted(found):
            if total <= self.limit * 3 // 4:  # not to be back here after the next entry
                return
            try:
                path.unlink()
                total -= size
            except OSError:
                continue

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key


def user_cache() -> Cache | None:
    """The user's cache: PARTITA_CACHE_DIR, else `partita` below XDG_CACHE_HOME or ~/.cache.

    Its limit is PARTITA_CACHE_SIZE, such as 500M, else 1G. None where PARTITA_NO_CACHE is set, the limit is 0 or there
    is no home.
    """
    if os.environ.get("PARTITA_NO_CACHE", "") not in ("", "0"):
        return None
    limit = _bytes(os.environ.get("PARTITA_CACHE_SIZE", ""))
    if limit == 0:
        return None
    named = os.environ.get("PARTITA_CACHE_DIR")
    if named:
        return Cache(Path(named).absolute(), limit)
    try:
        return Cache(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "partita", limit)
    except RuntimeError:  # no home folder
        return None


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+)\s*([KMG]?)(I?B)?", text.strip().upper())
    return int(found[1]) * _UNITS[found[2]] if found else _DEFAULT_LIMIT
