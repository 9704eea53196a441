"""The state folder (`.rayline`): who runs, where Kafka is, the secrets, the logs; and the lock that allows one launcher."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from deploy.local.child import ProcessRecord
from rayline.errors import LaunchError
from rayline.file_locks import is_locked

_VERSION: Final = 1
_TOKEN_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class PlatformState:
    """What `state.json` holds: one run of `rayline up`. `console` is the address of its web page, None without one."""

    run_id: str
    launcher: ProcessRecord
    bootstrap_servers: str
    ready: bool = False
    clusters: Mapping[str, str] = field(default_factory=dict)
    processes: Sequence[ProcessRecord] = ()
    console: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return {"v": _VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PlatformState:
        return cls(
            run_id=data["run_id"],
            launcher=ProcessRecord(**data["launcher"]),
            bootstrap_servers=data["bootstrap_servers"],
            ready=data["ready"],
            clusters=data["clusters"],
            console=data.get("console"),
            processes=tuple(ProcessRecord(**item) for item in data["processes"]),
        )


class StateFolder:
    """One state folder.

    Owns the lock, `state.json`, `secrets.json` (mode 0600), `logs/` and the names of the sub-folders. Reading needs no lock;
    writing is for the launcher that holds it. Life: `lock` -> `write` any number of times -> `clear` -> `unlock`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.logs = self.path / "logs"
        self.broker_data = self.path / "kafka"
        self.ray = self.path / "ray"
        self.environments = self.path / "environments"
        self.node = self.path / "node"
        self._state = self.path / "state.json"
        self._secrets = self.path / "secrets.json"
        self._lock_fd: int | None = None

    def lock(self) -> None:
        """Become the one launcher of this folder; raises LaunchError that names the one that runs."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / ".gitignore").write_text("*\n")
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(fd, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise LaunchError(
                f"Rayline is running already in {self.path} (pid {holder}): `rayline status` shows it, `rayline down` stops it; "
                "for a second one choose another --state-dir"
            ) from error
        os.ftruncate(fd, 0)
        os.write(fd, str(os.getpid()).encode())
        self._lock_fd = fd

    def unlock(self) -> None:
        """Let another launcher in."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def locked(self) -> bool:
        """Whether a launcher holds the lock at this moment."""
        return is_locked(self.path / "lock")

    def wait_unlocked(self, timeout_seconds: float) -> bool:
        """Until no launcher holds the lock; False when one still does after `timeout_seconds`."""
        give_up = time.monotonic() + timeout_seconds
        while self.locked():
            if time.monotonic() >= give_up:
                return False
            time.sleep(0.05)
        return True

    def read(self) -> PlatformState | None:
        """The last written state, or None; raises LaunchError when the file is not ours to read."""
        try:
            data = json.loads(self._state.read_text())
            if data.get("v") != _VERSION:
                raise LaunchError(
                    f"{self._state} was written by another version of Rayline: stop that one with its own `rayline down`"
                )
            return PlatformState.from_dict(data)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LaunchError(f"{self._state} cannot be read ({error!r}): remove the folder when nothing of it runs") from error

    def write(self, state: PlatformState) -> None:
        """Replace `state.json` in one step."""
        _replace(self._state, json.dumps(state.as_dict(), indent=1), mode=0o644)

    def read_kafka(self) -> dict[str, str]:
        """The environment of KafkaSettings that the launcher uses, or nothing; raises LaunchError as `read` does."""
        return dict(self._read_secrets().get("kafka", {}))

    def write_secrets(self, *, channel_token: str, kafka: Mapping[str, str]) -> None:
        """Replace `secrets.json` (mode 0600)."""
        _replace(self._secrets, json.dumps({"channel_token": channel_token, "kafka": dict(kafka)}), mode=0o600)

    def read_channel_token(self) -> str | None:
        """The token of the channel into the clusters, for tools that speak it themselves."""
        return self._read_secrets().get("channel_token")

    def clear(self) -> None:
        """Forget the run; logs and the broker's data stay."""
        self._state.unlink(missing_ok=True)
        self._secrets.unlink(missing_ok=True)

    def _read_secrets(self) -> dict[str, Any]:
        try:
            data: dict[str, Any] = json.loads(self._secrets.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise LaunchError(f"{self._secrets} cannot be read ({error}): ask who started it, or remove the folder") from error
        return data


def new_token() -> str:
    """A random token, hexadecimal."""
    return secrets.token_hex(_TOKEN_BYTES)


def _replace(path: Path, text: str, *, mode: int) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "w") as file:
        file.write(text)
    temporary.replace(path)
