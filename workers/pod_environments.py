"""What a pod's agent tells its actors of their environments: one small file for each, in the pod's folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

FOLDER = "environments"


@dataclass(frozen=True, slots=True)
class PodEnvironment:
    """One environment of this pod. `root` and `lease` (the file that is locked while it is used) stand once it is ready.

    `reason` and `remedy` say why it is not, where an attempt failed; `phase` is as `runtime_env.node.activation` names it;
    `engine` are the fields of `rayline.engines.Chosen`, none of them where the app names no engine.
    """

    digest: str
    phase: str
    root: str | None = None
    lease: str | None = None
    reason: str | None = None
    remedy: str | None = None
    engine: dict[str, str] = field(default_factory=dict)


def write_environment(pod_dir: Path, environment: PodEnvironment) -> None:
    """Replace what stands there, at once."""
    path = _path(pod_dir, environment.digest)
    path.parent.mkdir(exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(asdict(environment)))
    new.replace(path)


def read_environment(pod_dir: Path, digest: str) -> PodEnvironment | None:
    """None while the agent does not know of it."""
    try:
        return PodEnvironment(**json.loads(_path(pod_dir, digest).read_text()))
    except FileNotFoundError:
        return None


def forget_environment(pod_dir: Path, digest: str) -> None:
    _path(pod_dir, digest).unlink(missing_ok=True)


def _path(pod_dir: Path, digest: str) -> Path:
    return pod_dir / FOLDER / f"{digest.removeprefix('sha256:')}.json"
