"""Wheels made anew of what is installed beside the tests: what actors need, for an index that needs no network."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterable
from email import message_from_string
from importlib.metadata import Distribution, distribution
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Beside the code of a package: its tests and headers are a third of pyarrow's bytes.
_LEFT_OUT = ("__pycache__", "tests", "include", "..")


def write_installed_wheels(folder: Path, names: Iterable[str]) -> None:
    """A wheel of each of these installed distributions, and of all that they require, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in _with_requirements(names):
        _write(folder, one)


def _with_requirements(names: Iterable[str]) -> list[Distribution]:
    found: dict[str, Distribution] = {}
    left = list(names)
    while left:
        name = canonicalize_name(left.pop())
        if name not in found:
            found[name] = distribution(name)
            asked = [Requirement(text) for text in found[name].requires or ()]
            left += [one.name for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})]
    return list(found.values())


def _write(folder: Path, installed: Distribution) -> None:
    (about,) = {path.parts[0] for path in installed.files or () if path.parts[0].endswith(".dist-info")}
    tag = message_from_string(installed.read_text("WHEEL") or "")["Tag"]
    record = f"{about}/RECORD"
    lines = []
    with zipfile.ZipFile(folder / f"{about.removesuffix('.dist-info')}-{tag}.whl", "w") as archive:
        for path in sorted(installed.files or (), key=str):
            if str(path) == record or set(PurePosixPath(path).parts) & {*_LEFT_OUT}:
                continue
            data = Path(str(path.locate())).read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            lines.append(f"{path},sha256={digest},{len(data)}\n")
            archive.writestr(zipfile.ZipInfo(str(path)), data)
        archive.writestr(zipfile.ZipInfo(record), f"{''.join(lines)}{record},,\n")
