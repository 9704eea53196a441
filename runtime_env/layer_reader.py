"""The gate through which a layer comes in: a strict reader of tar in zstd.

Python's `tarfile` filters were bypassed again and again, so nothing here extracts with it. The gate reads a small part of the
format (plain files, folders, symbolic links, long names) and refuses the rest by name:

- a path is relative, has no `.`, `..` or empty part, and comes once; what it lies in is a folder, never a link;
- files are written first, links last, so that no byte ever goes through a link;
- where links lead is computed with all other links in force (a chain of harmless links can climb out);
- hard links, devices, pipes, setuid and setgid are refused; files come out as 0444 or 0555;
- bytes, members and the ratio of decompression are bounded while they stream, in little memory.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

import zstandard

from rayline.errors import (
    ArchiveBomb,
    ArchiveUnsafe,
    BlobCorrupt,
    BlobTruncated,
    HardLinkInside,
    LinkEscape,
    PathEscape,
    SpecialFile,
)

BLOCK: Final = 512
CHUNK: Final = 2**18
MAX_WINDOW_BYTES: Final = 2**27
MAX_PATH_BYTES: Final = 4096
MAX_LINK_HOPS: Final = 40
MAX_DEPTH: Final = 100
_RATIO_FROM_BYTES: Final = 2**26
_IGNORED_PAX: Final = frozenset({"mtime", "atime", "ctime", "uid", "gid", "uname", "gname", "comment"})


@dataclass(frozen=True, slots=True)
class Limits:
    """What one layer may hold: bytes and members when unpacked, and bytes out for each byte in (counted from 64 MiB on)."""

    max_bytes: int = 2**37
    max_files: int = 500_000
    max_ratio: int = 250


@dataclass(slots=True)
class Entries:
    """What lies in a tree: folders, files, and links with their targets; paths are relative, with `/`."""

    folders: set[str] = field(default_factory=set)
    files: set[str] = field(default_factory=set)
    links: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {"folders": sorted(self.folders), "files": sorted(self.files), "links": self.links}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Entries:
        return cls(set(data["folders"]), set(data["files"]), dict(data["links"]))

    def check(self) -> None:
        """Raise LinkEscape or PathEscape when anything lies in a link or a file, or a link leads out of the tree."""
        solid = self.files | self.links.keys()
        for path in [*self.folders, *self.files, *self.links]:
            parent = path.rpartition("/")[0]
            if parent and parent not in self.folders:
                kind = LinkEscape if parent in self.links else PathEscape
                raise kind(f"{path!r} lies in {parent!r}, which is no folder")
        if self.folders & solid or self.files & self.links.keys():
            raise PathEscape(f"{sorted((self.folders & solid) | (self.files & self.links.keys()))[0]!r} is two things at once")
        for path, target in self.links.items():
            self._follow(path, target)

    def _follow(self, path: str, target: str) -> None:
        if target.startswith("/") or not target or "\0" in target:
            raise LinkEscape(f"the link {path!r} leads to {target!r}, out of the folder")
        where = path.split("/")[:-1]
        pending = target.split("/")[::-1]
        hops = 0
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if not where:
                    raise LinkEscape(f"the link {path!r} leads to {target!r}, out of the folder")
                where.pop()
                continue
            where.append(part)
            below = self.links.get("/".join(where))
            if below is not None:
                hops += 1
                if hops > MAX_LINK_HOPS:
                    raise LinkEscape(f"the link {path!r} leads in a circle or through more than {MAX_LINK_HOPS} links")
                where.pop()
                pending += below.split("/")[::-1]


class _Bounded:
    """The decompressed stream: counts what comes out, and refuses more than was declared or is allowed.

    Everything passes through one buffer that stays in the processor's cache: contents go from it straight into files.
    """

    def __init__(self, blob: BinaryIO, declared_bytes: int, compressed_bytes: int, limits: Limits) -> None:
        self._reader = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).stream_reader(blob, closefd=False)
        self._buffer = memoryview(bytearray(CHUNK))
        self._start = self._end = 0
        self._most = min(declared_bytes, limits.max_bytes)
        self._ratio = max(_RATIO_FROM_BYTES, compressed_bytes * limits.max_ratio)
        self._count = 0

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes; raises ArchiveBomb, BlobTruncated or BlobCorrupt."""
        return b"".join(bytes(part) for part in self._parts(size))

    def write_to(self, handle: int, size: int) -> None:
        """Write exactly the next `size` bytes to an open file; raises as `read`."""
        for part in self._parts(size):
            left = part
            while left:
                left = left[os.write(handle, left) :]

    def _parts(self, size: int) -> Iterator[memoryview]:
        self._count += size
        if self._count > self._most:
            raise ArchiveBomb(f"the archive holds more than the {self._most} bytes that were declared or are allowed")
        if self._count > self._ratio:
            raise ArchiveBomb(f"the archive unpacks to more than {self._ratio} bytes, far more than its size accounts for")
        while size:
            if self._start == self._end:
                self._fill()
            stop = min(self._start + size, self._end)
            yield self._buffer[self._start : stop]
            size -= stop - self._start
            self._start = stop

    def _fill(self) -> None:
        try:
            self._start, self._end = 0, self._reader.readinto(self._buffer)
        except zstandard.ZstdError as error:
            raise BlobCorrupt(f"the archive cannot be decompressed: {error}") from error
        if not self._end:
            raise BlobTruncated("the archive ends in the middle of a member")


@dataclass(frozen=True, slots=True)
class _Member:
    path: str
    kind: bytes
    size: int
    mode: int
    link: str


def extract(
    blob: BinaryIO, root: Path, *, size_bytes: int, content_bytes: int, files: int, limits: Limits | None = None
) -> Entries:
    """Unpack one layer into the new, empty, private folder `root`, which exists; returns what lies there.

    `size_bytes` (compressed), `content_bytes` and `files` are what the manifest declares.

    Raises:
        ArchiveUnsafe: a subclass for each way in which an archive can be wrong; BlobCorrupt, BlobTruncated.
        OSError: the disk.
    """
    limits = limits or Limits()
    stream = _Bounded(blob, content_bytes, size_bytes, limits)
    entries = Entries()
    base = f"{root}/"
    most = min(files, limits.max_files)
    for count, member in enumerate(_members(stream), start=1):
        if count > most:
            raise ArchiveBomb(f"the archive holds more than the {most} members that were declared or are allowed")
        path = member.path
        if path in entries.files or path in entries.links or (path in entries.folders and member.kind != tarfile.DIRTYPE):
            raise PathEscape(f"{path!r} comes twice")
        _make_folders(base, path.rpartition("/")[0], entries)
        if member.kind == tarfile.DIRTYPE:
            _make_folders(base, path, entries)
        elif member.kind == tarfile.SYMTYPE:
            entries.links[path] = member.link
        else:
            _write_file(stream, base + path, member)
            entries.files.add(path)
    entries.check()
    for path, target in entries.links.items():
        os.symlink(target, base + path)  # noqa: PTH211 (strings: this runs for each of 20,000 files)
    return entries


def _make_folders(base: str, path: str, entries: Entries) -> None:
    if not path or path in entries.folders:
        return
    if path in entries.links:
        raise LinkEscape(f"something lies in {path!r}, which is a link")
    if path in entries.files:
        raise PathEscape(f"something lies in {path!r}, which is a file")
    _make_folders(base, path.rpartition("/")[0], entries)
    os.mkdir(base + path, 0o755)  # noqa: PTH102
    entries.folders.add(path)


def _write_file(stream: _Bounded, path: str, member: _Member) -> None:
    mode = 0o555 if member.mode & 0o111 else 0o444
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, mode)
    try:
        stream.write_to(handle, member.size)
    finally:
        os.close(handle)
    stream.read(-member.size % BLOCK)


def _members(stream: _Bounded) -> Iterator[_Member]:
    """The members of a tar; file contents are left in the stream for the caller, who must read them with their padding."""
    longer: dict[str, str] = {}
    while True:
        header = stream.read(BLOCK)
        if not any(header):
            return
        kind, size = header[156:157], _number(header[124:136])
        checksum = _number(header[148:156])
        if checksum != sum(header) - sum(header[148:156]) + 8 * 32:
            raise BlobCorrupt("a member's header has a wrong checksum: this is no archive of ours")
        if kind == tarfile.XHDTYPE:
            longer = _pax(stream, size)
            continue
        name, prefix = _text(header[:100]), _text(header[345:500])
        path = longer.get("path") or (f"{prefix}/{name}" if prefix else name)
        if kind == tarfile.LNKTYPE:
            raise HardLinkInside(f"{path!r} is a hard link")
        if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE):
            raise SpecialFile(f"{path!r} is a device or pipe")
        if kind not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE):
            raise ArchiveUnsafe(f"{path!r} is of kind {kind!r}, which layers do not have")
        mode = _number(header[100:108])
        if mode & (stat.S_ISUID | stat.S_ISGID):
            raise SpecialFile(f"{path!r} is setuid or setgid")
        if "size" in longer:
            size = _decimal(longer["size"])
        if kind not in (tarfile.REGTYPE, tarfile.AREGTYPE) and size:
            raise ArchiveUnsafe(f"{path!r} is no file, but has {size} bytes")
        link = longer.get("linkpath") or _text(header[157:257])
        longer = {}
        yield _Member(_checked_path(path), kind, size, mode, link)


def _checked_path(path: str) -> str:
    path = path.removesuffix("/")
    parts = path.split("/")
    if not path or path.startswith("/") or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise PathEscape(f"{path[:200]!r} is no path below the folder")
    if len(parts) > MAX_DEPTH or len(path.encode()) > MAX_PATH_BYTES or any(len(part.encode()) > 255 for part in parts):
        raise PathEscape(f"{path[:100]!r}… is longer or deeper than a path may be")
    return path


def _pax(stream: _Bounded, size: int) -> dict[str, str]:
    if size > 4 * MAX_PATH_BYTES:
        raise ArchiveUnsafe(f"an extended header of {size} bytes")
    data = stream.read(size + -size % BLOCK)[:size]
    found: dict[str, str] = {}
    while data:
        digits, space, _ = data.partition(b" ")
        length = _decimal(digits.decode("ascii", "replace"))
        record, data = data[len(digits) + 1 : length], data[length:]
        key, equals, value = record.partition(b"=")
        if not space or not equals or not value.endswith(b"\n"):
            raise BlobCorrupt("an extended header that cannot be read")
        name = _text(key)
        if name in ("path", "linkpath", "size"):
            found[name] = _text(value[:-1])
        elif name not in _IGNORED_PAX:
            raise ArchiveUnsafe(f"an extended header {name[:40]!r}, which layers do not have")
    return found


def _number(data: bytes) -> int:
    text = data.rstrip(b"\0 ").strip()
    try:
        return int(text, 8) if text else 0
    except ValueError as error:
        raise BlobCorrupt(f"{data!r} stands where a number should") from error


def _decimal(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise BlobCorrupt(f"{text[:40]!r} stands where a number should")
    return int(text)


def _text(data: bytes) -> str:
    try:
        return data.split(b"\0", 1)[0].decode()
    except UnicodeDecodeError as error:
        raise PathEscape(f"a name that is no UTF-8: {data[:80]!r}") from error
