"""All tests: `python -m tests.run`, two runs side by side, and two more after them. What mostly waits (for sessions, time limits,
a broker's answers) runs beside what computes; then platforms under accidents run beside platforms under commands, for both are
judged by the clock and leave most of the machine alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

_TESTS: Final = Path(__file__).parent
_INTEGRATION: Final = _TESTS / "integration"
WAITING: Final = tuple(_INTEGRATION / name for name in ("bus", "config", "ingest", "keeper", "telemetry"))
COMPUTING: Final = (_TESTS / "unit", *(_INTEGRATION / name for name in ("bench", "broker", "runtime_env")))
COMMANDED: Final = tuple(_INTEGRATION / name for name in ("cli", "console", "deploy"))
INTERRUPTED_EXIT_CODE: Final = 130


def main() -> int:
    """Run them; 0 when every one of the runs passed."""
    runs: list[subprocess.Popen[bytes]] = []
    rest = [f"--ignore={path}" for path in _paths((*WAITING, *COMPUTING, *COMMANDED))]
    try:
        _side_by_side(runs, _paths(COMPUTING), _paths(WAITING))
        _side_by_side(runs, rest, _paths(COMMANDED))
    except KeyboardInterrupt:
        # Control-C reaches every process of the terminal: each run stops what it started.
        for run in runs:
            run.wait()
        return INTERRUPTED_EXIT_CODE
    return max(run.returncode for run in runs)


def _side_by_side(runs: list[subprocess.Popen[bytes]], seen: Sequence[str], beside: Sequence[str]) -> None:
    """Two runs, from the start to the end of both; what the one `beside` says is printed after the other."""
    with tempfile.TemporaryFile("w+") as said:
        runs.append(_start(*beside, output=said))
        runs.append(_start(*seen))
        for run in reversed(runs[-2:]):
            run.wait()
        said.seek(0)
        shutil.copyfileobj(said, sys.stdout)
        sys.stdout.flush()


def _paths(folders: Sequence[Path]) -> list[str]:
    return [str(folder.relative_to(_TESTS.parent)) for folder in folders]


def _start(*arguments: str, output: IO[str] | None = None) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).with_name("pytest")), "-m", "not docker", *arguments]
    return subprocess.Popen(command, cwd=_TESTS.parent, stdout=output, stderr=None if output is None else subprocess.STDOUT)


if __name__ == "__main__":
    raise SystemExit(main())
