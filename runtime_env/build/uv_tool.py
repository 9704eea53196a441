"""The one place that calls uv; what it says when it fails becomes one of our errors, with the lines of the user's files."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from rayline.app_spec import Requirement
from rayline.errors import BuildError, DiskFull, IndexUnreachable, PackageMissing, PinsConflict
from runtime_env.build.index_settings import without_passwords
from runtime_env.durable import says_disk_full

TIMEOUT_SECONDS: Final = 1800.0
_MAX_LINES: Final = 14
_NETWORK: Final = re.compile(
    r"error sending request|client error \(Connect\)|Connection refused|dns error|timed out|Could not connect|"
    r"HTTP status server error|status code 5\d\d|Failed to fetch|error decoding response body|connection closed",
    re.IGNORECASE,
)
_MISSING: Final = re.compile(
    r"was not found in the (package registry|provided package locations)|there (is|are) no versions? of|"
    r"no wheels? (with|are usable|are available)|has no (usable |compatible )?wheels|no matching distribution|has no wheels with|"
    r"no usable wheels|building from source is disabled|Unable to locate|no available release|were found in the cache",
    re.IGNORECASE,
)
_NAME: Final = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*")


def find_uv() -> Path:
    """The uv that was installed with Rayline; raises BuildError where it is missing."""
    try:
        from uv import find_uv_bin

        return Path(find_uv_bin())
    except (ImportError, FileNotFoundError) as error:
        raise BuildError("uv is not installed; it comes with Rayline: install Rayline again") from error


class Uv:
    """Runs uv with the settings of this machine; needs no network where the settings name none."""

    def __init__(self, *, environment: Mapping[str, str], cache_folder: Path | None = None) -> None:
        self._environment = {
            **{name: value for name, value in environment.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH", "CONDA_PREFIX")},
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_NO_PROGRESS": "1",
            "NO_COLOR": "1",
            **({"UV_CACHE_DIR": str(cache_folder)} if cache_folder is not None else {}),
        }

    def run(self, *arguments: str, folder: Path, requirements: Sequence[Requirement] = ()) -> str:
        """Standard output of `uv ARGUMENTS`; `requirements` are what the message of a failure is traced back to.

        Raises:
            PinsConflict, PackageMissing, IndexUnreachable, DiskFull: by what uv says; BuildError for anything else.
        """
        try:
            done = subprocess.run(
                [find_uv(), *arguments],
                cwd=folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise IndexUnreachable(
                f"uv did not end within {TIMEOUT_SECONDS:.0f} s: see whether the package index answers, and build again"
            ) from error
        if done.returncode != 0:
            raise explain(done.stderr, requirements)
        return done.stdout


def explain(text: str, requirements: Sequence[Requirement]) -> BuildError | DiskFull:
    """uv's standard error as one of ours: the cause in uv's words, shortened, then who asked for it, then the remedy."""
    lines = [line.rstrip() for line in without_passwords(text).splitlines() if line.strip() and not line.startswith("warning:")]
    told = "\n".join(lines[:_MAX_LINES])
    asked = [f"  {one.where}: {one.text}" for one in requirements if _mentions(told, one.text)]
    where = "\n".join(["asked for here:", *asked]) if asked else ""

    def message(cause: str, remedy: str) -> str:
        return "\n".join(part for part in (cause, told, where, f"→ {remedy}") if part)

    if says_disk_full(told):
        return DiskFull(message("no room left on this machine:", "make room, or give uv's cache another disk by UV_CACHE_DIR"))
    if _NETWORK.search(told) and "No solution found" not in told:
        remedy = "check PIP_INDEX_URL/UV_INDEX and the network, and build again; what is locked and was built here needs no index"
        return IndexUnreachable(message("the package index does not answer:", remedy))
    if _MISSING.search(told):
        remedy = "correct the name or version, name its index in `env.indexes`, or put a wheel into a folder of `env.wheels`"
        return PackageMissing(message("a package, or a wheel of it for this Python and platform, is missing:", remedy))
    if "No solution found" in told:
        return PinsConflict(message("the requirements contradict each other:", "loosen one of them"))
    return BuildError(message("uv failed:", "see its words above"))


def _mentions(told: str, requirement: str) -> bool:
    name = _NAME.match(requirement)
    if name is None:
        return False
    pattern = re.sub(r"[-_.]+", "[-_.]+", name[0])
    return re.search(rf"(?<![\w.-]){pattern}(?![\w-])", told, re.IGNORECASE) is not None
