"""Making files independent of where they were made: first lines of scripts, run paths, and a search for what is left."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from rayline.errors import NotRelocatable

# What pip and uv write for relocatable scripts: sh runs the Python beside the script, Python sees two strings.
_LAUNCHER: Final = '#!/bin/sh\n\'\'\'exec\' "$(dirname -- "$(realpath -- "$0")")/python3" "$0" "$@"\n\' \'\'\'\n'
_ELF: Final = b"\x7fELF"
_PLACEHOLDER: Final = b"/nonexistent"


def files_below(tree: Path) -> Iterator[Path]:
    """Every plain file, sorted; links are not followed."""
    for folder, folders, names in os.walk(tree):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if not path.is_symlink():
                yield path


def replace_file(path: Path, data: bytes) -> None:
    """New contents under the same name and mode, never through the old file: it may be a hard link into uv's cache."""
    mode = path.stat().st_mode
    path.unlink()
    path.write_bytes(data)
    path.chmod(mode & 0o777)


def relocate_scripts(folder: Path) -> None:
    """Have every Python script in `folder` (a `bin`) start with the interpreter beside it."""
    for path in files_below(folder) if folder.is_dir() else ():
        with path.open("rb") as file:
            start = file.read(2048)
        if start.startswith(b"#!/bin/sh\n'''exec'"):
            head = 3
        elif start.startswith(b"#!") and b"python" in start.split(b"\n", 1)[0]:
            head = 1
        else:
            continue
        body = path.read_bytes().split(b"\n", head)[head]
        replace_file(path, _LAUNCHER.encode() + body)


def relocate_binaries(tree: Path, prefix: Path) -> None:
    """Take the folder that an interpreter was built for out of its programs and libraries.

    A run path of `<prefix>/lib` becomes `$ORIGIN/../lib`; other mentions (fallbacks that a copied interpreter never uses) become
    a folder that does not exist. Lengths stay, so that nothing in the file moves.
    """
    wanted = str(prefix).encode()
    for path in files_below(tree):
        with path.open("rb") as file:
            if file.read(4) != _ELF:
                continue
            file.seek(0)
            data = file.read()
        if wanted not in data:
            continue
        library = wanted + b"/lib\0"
        origin = b"$ORIGIN/../lib"
        if len(origin) < len(library):
            data = data.replace(library, origin.ljust(len(library), b"\0"))
        # The last parts stay: linkers let "3.11.7" be the end of "/…/versions/3.11.7".
        length = min(len(_PLACEHOLDER), len(str(prefix.parent)))
        data = data.replace(wanted, _PLACEHOLDER[:length] + wanted[length:])
        replace_file(path, data)


def require_relocatable(tree: Path, forbidden: Iterable[Path], what: str) -> None:
    """Raise NotRelocatable when any file or link below `tree` names one of the folders `forbidden`."""
    words = [str(path).encode() for path in forbidden]
    for folder, _, names in os.walk(tree):
        for name in names:
            path = Path(folder, name)
            if path.is_symlink():
                data: bytes | mmap.mmap = os.fsencode(path.readlink())
                word = next((word for word in words if word in data), None)
            elif path.stat().st_size:
                with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                    word = next((word for word in words if mapped.find(word) >= 0), None)
            else:
                word = None
            if word is not None:
                raise NotRelocatable(
                    f"{what}: {path.relative_to(tree)} names {word.decode()}, the folder it was built in: it would not work "
                    "elsewhere; this package cannot be bundled as it is"
                )
