"""The checks behind `rayline env doctor`: what building and checking environments needs on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from deploy.doctor import Finding, Health
from rayline.errors import RaylineError
from runtime_env.build.conda_layer import find_conda
from runtime_env.build.interpreters import SUPPORTED, find_interpreters
from runtime_env.build.uv_tool import find_uv
from runtime_env.bundle import Host
from runtime_env.signing import SigningKey, Trust
from runtime_env.store import open_store

MIN_ROOM_BYTES: Final = 3 * 2**30


def examine_environments(*, store: str, key: Path | None, trust: Path | None, cache: Path) -> list[Finding]:
    """All findings, in the order in which a person would mend them."""
    return [
        _uv(),
        *_interpreters(),
        Finding("machine", Health.GOOD, f"bundles built here run on {Host.here()} and later C libraries"),
        _conda(),
        _key(key),
        _trust(trust),
        _store(store),
        _room(cache),
    ]


def _uv() -> Finding:
    try:
        told = subprocess.run([find_uv(), "--version"], capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (RaylineError, OSError, subprocess.SubprocessError) as error:
        return Finding("uv", Health.BAD, str(error), "install Rayline again")
    return Finding("uv", Health.GOOD, told)


def _interpreters() -> list[Finding]:
    found = find_interpreters()
    findings = []
    for minor in SUPPORTED:
        best = next((one for one in found if one.minor == minor), None)
        if best is None:
            remedy = f"where an app needs it: uv python install {minor}"
            findings.append(Finding(f"Python {minor}", Health.FAIR, "none that can be copied", remedy))
        else:
            findings.append(Finding(f"Python {minor}", Health.GOOD, f"{best.version} ({best.origin}) in {best.prefix}"))
    return findings


def _conda() -> Finding:
    try:
        conda, pack = find_conda()
    except RaylineError:
        return Finding("conda", Health.GOOD, "not here; only apps with `env.conda` need it")
    return Finding("conda", Health.GOOD, f"{conda}, {pack}")


def _key(path: Path | None) -> Finding:
    if path is None:
        return Finding("key", Health.FAIR, "none given: bundles can be built with --dev only", "rayline env keygen FILE")
    try:
        return Finding("key", Health.GOOD, f"{SigningKey.read(path).name} in {path}")
    except RaylineError as error:
        return Finding("key", Health.BAD, str(error), "see the line above")


def _trust(path: Path | None) -> Finding:
    if path is None:
        return Finding("trust", Health.FAIR, "no trust file: no signature can be checked here", "give one by RAYLINE_ENV_TRUST")
    try:
        return Finding("trust", Health.GOOD, f"{', '.join(Trust.read(path).names) or 'nobody'} by {path}")
    except RaylineError as error:
        return Finding("trust", Health.BAD, str(error), "see the line above")


def _store(url: str) -> Finding:
    try:
        place = open_store(url)
        entries = place.entries()
    except RaylineError as error:
        return Finding("store", Health.BAD, str(error), "correct --store or RAYLINE_ENV_STORE")
    return Finding(
        "store", Health.GOOD, f"{len(entries)} publications of {len({one.app for one in entries})} apps in {place.url}"
    )


def _room(cache: Path) -> Finding:
    folder = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    found = f"{free / 2**30:.1f} GiB free at {cache}"
    if not os.access(folder, os.W_OK):
        return Finding("cache", Health.BAD, f"{folder} cannot be written", "name another by --cache or RAYLINE_ENV_CACHE")
    if free < MIN_ROOM_BYTES:
        return Finding("cache", Health.FAIR, found, "a build with Ray takes about 2 GiB: make room")
    return Finding("cache", Health.GOOD, found)
