"""A state folder for one run of a demo or of chaos, beside a platform that may be up already."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from deploy.local.state import StateFolder
from deploy.local.teardown import clean_up

PARENT: Final = Path(".rayline")
_YOUNG_SECONDS: Final = 60.0


@contextmanager
def run_folder(kind: str) -> Iterator[Path]:
    """A new `.rayline/<kind>-…`; removed at the end, and kept for its logs where the block raised.

    What earlier runs of the kind left, because they were killed, is ended and removed first.
    """
    PARENT.mkdir(exist_ok=True)
    for old in PARENT.glob(f"{kind}-*"):
        _sweep(old)
    path = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=PARENT))
    (path / "logs").mkdir()
    yield path
    shutil.rmtree(path)


def _sweep(old: Path) -> None:
    folder = StateFolder(old)
    just_made = time.time() - old.stat().st_mtime < _YOUNG_SECONDS
    if just_made or folder.locked():
        return
    state = folder.read()
    if state is not None:
        clean_up(state)
    shutil.rmtree(old)
