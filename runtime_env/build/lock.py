"""`env.lock`: every package with version and hashes, beside app.yaml; the same lock gives the same bundle on another machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rayline.app_spec import Environment, Requirement
from rayline.errors import BuildError
from runtime_env.build.interpreters import Interpreter
from runtime_env.build.uv_tool import Uv
from runtime_env.bundle import canonical, sha256
from runtime_env.durable import write_durably

LOCK_FILE: Final = "env.lock"
_HEADER: Final = "# Made by `rayline env build`; keep it in version control. `--upgrade` resolves anew."
_PYTHON: Final = re.compile(r"^# python (\S+)$", re.MULTILINE)
_INPUTS: Final = re.compile(r"^# inputs (\S+)$", re.MULTILINE)
_PIN: Final = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s;\\]+)")
_HASH: Final = re.compile(r"--hash=(sha256:[0-9a-f]{64})")
# From 26 on pyarrow cannot be imported beside numpy 1, and its metadata says nothing of it: a resolver does not know.
_BESIDE_NUMPY_1: Final = Requirement("pyarrow<26", "numpy 1 needs an older pyarrow")


@dataclass(frozen=True, slots=True)
class Pin:
    """One package: its version, and the hashes of the files that may be installed for it."""

    name: str
    version: str
    hashes: tuple[str, ...]

    def text(self) -> str:
        return " \\\n    ".join([f"{self.name}=={self.version}", *(f"--hash={one}" for one in self.hashes)])


@dataclass(frozen=True, slots=True)
class Lock:
    """What was resolved, for which Python and from which inputs (a digest)."""

    python: str
    inputs: str
    pins: tuple[Pin, ...]

    def text(self) -> str:
        head = [_HEADER, f"# python {self.python}", f"# inputs {self.inputs}"]
        return "\n".join([*head, *(pin.text() for pin in self.pins), ""])


def inputs_digest(environment: Environment, platform: Sequence[Requirement]) -> str:
    """Of everything that a resolution depends on, besides the indexes' contents and the time."""
    texts = [[one.text for one in part] for part in (environment.requirements, environment.constraints, platform)]
    return sha256(canonical([*texts, environment.python, list(environment.indexes)]))


def read_lock(path: Path) -> Lock | None:
    """The lock beside an app.yaml; None where there is none; raises BuildError with file and line for what cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    python, inputs = _PYTHON.search(text), _INPUTS.search(text)
    if python is None or inputs is None:
        raise BuildError(f"{path}: no lock of ours: delete it, or build with --upgrade")
    return Lock(python[1], inputs[1], _parse(text, path))


def resolve(
    uv: Uv,
    interpreter: Interpreter,
    environment: Environment,
    platform: Sequence[Requirement],
    *,
    app_root: Path,
    scratch: Path,
    before: Lock | None,
) -> Lock:
    """Find versions for all requirements; those of `before` are kept where they still fit.

    Raises PinsConflict, PackageMissing or IndexUnreachable.
    """
    asked = [*environment.requirements, *platform]
    given, constraints, made = scratch / "requirements.in", scratch / "constraints.in", scratch / "lock.txt"
    given.write_text("".join(f"{one.text}\n" for one in asked), encoding="utf-8")
    if before is not None:
        made.write_text("".join(f"{pin.text()}\n" for pin in before.pins), encoding="utf-8")

    def find(limits: Sequence[Requirement]) -> tuple[Pin, ...]:
        constraints.write_text("".join(f"{one.text}\n" for one in limits), encoding="utf-8")
        uv.run(
            *("pip", "compile", str(given), "-c", str(constraints), "-o", str(made), "--python", str(interpreter.executable)),
            *("--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "--quiet"),
            *("--only-binary", ":all:", *find_links(environment, app_root)),
            folder=scratch,
            requirements=[*asked, *limits],
        )
        return _parse(made.read_text(encoding="utf-8"), made)

    pins = find(environment.constraints) if asked else ()
    if _has_numpy_1(pins):
        pins = find([*environment.constraints, _BESIDE_NUMPY_1])
    return Lock(interpreter.version, inputs_digest(environment, platform), pins)


def find_links(environment: Environment, app_root: Path) -> list[str]:
    """uv's options for the folders of `env.wheels`."""
    return [word for folder in environment.wheels for word in ("--find-links", str((app_root / folder).resolve()))]


def write_lock(path: Path, lock: Lock) -> None:
    """Write `env.lock` where it changed."""
    text = lock.text().encode()
    if not path.exists() or path.read_bytes() != text:
        write_durably(path, text)
        path.chmod(0o644)


def _has_numpy_1(pins: Sequence[Pin]) -> bool:
    return any(pin.name == "numpy" and pin.version.startswith("1.") for pin in pins)


def _parse(text: str, path: Path) -> tuple[Pin, ...]:
    found: list[Pin] = []
    for block in re.split(r"\n(?=[A-Za-z0-9])", text.strip()):
        lines = [line for line in block.splitlines() if not line.startswith("#")]
        if not lines:
            continue
        pin = _PIN.match(lines[0])
        if pin is None:
            raise BuildError(f"{path}: {lines[0][:100]!r} is no pinned package: build with --upgrade")
        hashes = sorted(set(_HASH.findall(block)))
        if not hashes:
            raise BuildError(f"{path}: {pin['name']} has no hash: build with --upgrade")
        found.append(Pin(pin["name"], pin["version"], tuple(hashes)))
    return tuple(sorted(found, key=lambda one: one.name))
