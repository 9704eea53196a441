"""The broker's jars: copied from Maven Central to deploy/broker/jars, once. Run: python -m deploy.broker.jars."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from deploy.broker.java import JARS
from rayline.errors import LaunchError

POM: Final = Path(__file__).resolve().with_name("pom.xml")
_STAMP: Final = ".pom-sha256"
_APT: Final = ("apt-get", "install", "-y", "--no-install-recommends", "maven")
_APT_LINE: Final = f"apt-get update && {shlex.join(_APT)}"


def ensure_jars(target: Path = JARS) -> bool:
    """Copy the jars of the pom to `target` unless they are there; True when something was done.

    The folder appears as a whole or not at all.

    Raises:
        LaunchError: Maven is missing and may not be installed, or it failed.
    """
    stamp = hashlib.sha256(POM.read_bytes()).hexdigest()
    stamped = target / _STAMP
    if stamped.is_file() and stamped.read_text().strip() == stamp:
        return False
    maven = shutil.which("mvn") or _install_maven()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".jars-", dir=target.parent) as scratch:
        fresh = Path(scratch) / "new"
        command = [
            maven, "-q", "-B", "-f", str(POM), "dependency:copy-dependencies",
            f"-DoutputDirectory={fresh}", "-DincludeScope=runtime",
        ]  # fmt: skip
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not any(fresh.glob("kafka_*.jar")):
            tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
            raise LaunchError(f"Maven could not copy the broker's jars ({shlex.join(command)}):\n{tail}")
        (fresh / _STAMP).write_text(stamp + "\n")
        if target.exists():
            target.rename(Path(scratch) / "old")
        fresh.rename(target)
    return True


def _install_maven() -> str:
    if os.geteuid() != 0 or not Path("/etc/debian_version").exists() or shutil.which("apt-get") is None:
        raise LaunchError(f"Maven is needed once for the broker's jars and is not installed; run: sudo sh -c '{_APT_LINE}'")
    sys.stderr.write(f"Maven is missing; installing it: {_APT_LINE}\n")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (("apt-get", "update"), _APT):
        done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise LaunchError(f"`{shlex.join(command)}` failed: {done.stderr.strip()[-500:]}; run it by hand: {_APT_LINE}")
    maven = shutil.which("mvn")
    if maven is None:
        raise LaunchError(f"apt-get installed Maven, but `mvn` is not on PATH; add it, then run again: {_APT_LINE}")
    return maven


def main() -> int:
    """Entry point of `python -m deploy.broker.jars`."""
    try:
        changed = ensure_jars()
    except LaunchError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if changed:
        sys.stderr.write(f"the broker's jars are in {JARS}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
