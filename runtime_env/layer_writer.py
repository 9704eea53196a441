"""A layer going out: a tar in zstd that depends on nothing but the tree: sorted, without times and owners."""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import zstandard

from rayline.errors import BlobTruncated, SpecialFile
from runtime_env.layer_reader import BLOCK, CHUNK, Entries
from runtime_env.transfer import OnBytes, unheard

COMPRESSION_LEVEL: Final = 3


@dataclass(frozen=True, slots=True)
class Packed:
    """A layer's blob as it was written: `digest` (`sha256:…`) and `size_bytes` of the blob, and what it unpacks to."""

    digest: str
    size_bytes: int
    content_bytes: int
    files: int


class _Tally:
    """A file that counts and hashes what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.count = 0

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        self.count += len(data)
        return self._file.write(data)


def pack(root: Path, blob: BinaryIO, *, level: int = COMPRESSION_LEVEL, on_bytes: OnBytes = unheard) -> Packed:
    """Write the tree below `root` as a layer: sorted, without times and owners, so that equal trees give equal bytes.

    Compressed by one thread: with several, zstd's output is another. `on_bytes` is told of the files' bytes, as they are packed.
    Raises ArchiveUnsafe for what the gate would refuse.
    """
    tally = _Tally(blob)
    entries, content = Entries(), 0
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=True)
    with compressor.stream_writer(tally, closefd=False) as out:  # type: ignore[arg-type,unused-ignore]
        for path, status in _walk(root, ""):
            info = tarfile.TarInfo(path)
            info.mode = 0o755 if status.st_mode & 0o111 else 0o644
            if stat.S_ISLNK(status.st_mode):
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, str((root / path).readlink()), 0o777
                entries.links[path] = info.linkname
            elif stat.S_ISDIR(status.st_mode):
                info.type = tarfile.DIRTYPE
                entries.folders.add(path)
            elif stat.S_ISREG(status.st_mode):
                info.size = status.st_size
                entries.files.add(path)
            else:
                raise SpecialFile(f"{root / path} is a device, pipe or socket: leave it out")
            content += out.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8"))
            if info.isreg():
                content += _copy(root / path, out, info.size, on_bytes)
        content += out.write(b"\0" * BLOCK)
    entries.check()
    members = len(entries.folders) + len(entries.files) + len(entries.links)
    return Packed(f"sha256:{tally.sha256.hexdigest()}", tally.count, content, members)


def _copy(path: Path, out: Any, size: int, on_bytes: OnBytes) -> int:
    left = size
    with path.open("rb") as file:
        while left:
            data = file.read(min(left, CHUNK))
            if not data:
                raise BlobTruncated(f"{path} became shorter while it was packed: do not change files during a build")
            out.write(data)
            left -= len(data)
            on_bytes(len(data))
    padding = -size % BLOCK
    if padding:
        out.write(b"\0" * padding)
    return size + padding


def _walk(root: Path, below: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(root / below if below else root) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        path = f"{below}/{entry.name}" if below else entry.name
        status = entry.stat(follow_symlinks=False)
        yield path, status
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(root, path)
