"""One package as a layer: its wheel as it is installed, without a trace of where and when."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rayline.app_spec import Requirement
from runtime_env.build.bytecode import compile_tree
from runtime_env.build.interpreters import Interpreter
from runtime_env.build.lock import Pin
from runtime_env.build.relocation import relocate_scripts, replace_file, require_relocatable
from runtime_env.build.uv_tool import Uv

# What installers write about the machine and the moment.
_TRACES: Final = frozenset({"direct_url.json", "uv_cache.json", "uv_build.json", "REQUESTED"})


def install_wheel(
    uv: Uv, interpreter: Interpreter, pin: Pin, tree: Path, *, options: Sequence[str], asked: Sequence[Requirement]
) -> None:
    """Fill `tree` with `bin`, `lib/pythonX.Y/site-packages` and what else the wheel brings; hashes are checked by uv.

    Raises PackageMissing, IndexUnreachable, NotRelocatable.
    """
    scratch = tree.parent
    wanted = scratch / "wanted.txt"
    wanted.write_text(pin.text() + "\n", encoding="utf-8")
    uv.run(
        *("pip", "install", "--prefix", str(tree), "--python", str(interpreter.executable), "--no-deps", "--require-hashes"),
        *("--only-binary", ":all:", "--quiet", "--link-mode", "hardlink", "-r", str(wanted), *options),
        folder=scratch,
        requirements=asked,
    )
    relocate_scripts(tree / "bin")
    compile_tree(interpreter.executable, tree)
    for information in sorted(tree.glob("lib/python*/site-packages/*.dist-info")):
        _rewrite_record(information)
    for left in (tree / ".lock", tree / "CACHEDIR.TAG", tree / ".gitignore"):
        left.unlink(missing_ok=True)
    require_relocatable(tree, [scratch, interpreter.prefix], f"{pin.name} {pin.version}")


def _rewrite_record(information: Path) -> None:
    """RECORD as it is now: without traces of the installation, with what we changed."""
    for name in _TRACES:
        (information / name).unlink(missing_ok=True)
    site = information.parent
    record = information / "RECORD"
    rows = []
    for row in csv.reader(io.StringIO(record.read_text(encoding="utf-8"))):
        path = site / row[0] if row else site
        if not row or not path.is_file() or path == record:
            continue
        data = path.read_bytes()
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append([row[0], f"sha256={digest}", str(len(data))])
    rows += [[f"{information.name}/RECORD", "", ""]]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(sorted(rows))
    replace_file(record, out.getvalue().encode())
