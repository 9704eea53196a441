"""Compiled bytecode that depends on nothing but the source: by the bundle's own interpreter, in order, in one process."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from rayline.errors import BuildError, DiskFull
from runtime_env.durable import says_disk_full

# Unchecked hash-based .pyc files hold no times, and are not compared with their source when they are loaded. The file name inside
# is relative to the environment; the import system puts the real one in its place.
_PROGRAM: Final = """
import importlib._bootstrap_external as e, importlib.util as u, os, sys
root = sys.argv[1]
for folder, folders, names in os.walk(root):
    folders.sort()
    for name in sorted(names):
        path = os.path.join(folder, name)
        if not name.endswith(".py") or os.path.islink(path):
            continue
        with open(path, "rb") as file:
            source = file.read()
        try:
            code = compile(source, os.path.relpath(path, root), "exec", dont_inherit=True, optimize=0)
        except (SyntaxError, ValueError):
            continue  # a template, or Python 2: nothing imports it
        target = u.cache_from_source(path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as file:
            file.write(e._code_to_hash_pyc(code, u.source_hash(source), False))
"""


def compile_tree(python: Path, tree: Path) -> None:
    """Write a `.pyc` beside each `.py` below `tree`; raises BuildError where the interpreter fails, DiskFull."""
    done = subprocess.run(
        [python, "-I", "-S", "-B", "-W", "ignore", "-X", "utf8", "-c", _PROGRAM, tree],
        env={"PYTHONHASHSEED": "0", "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0 and says_disk_full(done.stderr):
        raise DiskFull(f"no room left for the bytecode of {tree}; make room or use another disk, then try again")
    if done.returncode != 0:
        raise BuildError(f"{python} could not compile {tree}: {done.stderr.strip()[-2000:]}")
