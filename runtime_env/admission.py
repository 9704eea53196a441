"""Whether a node may use a bundle: signed by a trusted key, not older than what it has seen, made for this machine."""

from __future__ import annotations

import json
from pathlib import Path

from rayline.errors import ConfigError, RolledBack
from runtime_env.bundle import Bundle, Host
from runtime_env.durable import write_durably
from runtime_env.signing import SignedBundle, Trust


class SeenCounters:
    """The highest counter of each app that this node has used, in one small file.

    Owns the file; survives a crash at any moment. Does not own the decision: see `Admission`.
    """

    def __init__(self, *, path: Path) -> None:
        self._path = path

    def highest(self, app: str) -> int:
        return self._read().get(app, 0)

    def note(self, app: str, counter: int) -> None:
        """Remember that `counter` was used; a lower one never replaces a higher one."""
        seen = self._read()
        if counter > seen.get(app, 0):
            write_durably(self._path, json.dumps({**seen, app: counter}, sort_keys=True).encode())

    def _read(self) -> dict[str, int]:
        try:
            return {str(app): int(counter) for app, counter in json.loads(self._path.read_bytes()).items()}
        except FileNotFoundError:
            return {}
        except (ValueError, AttributeError, OSError) as error:
            raise ConfigError(
                f"{self._path} cannot be read: {error}; it guards against rolled-back bundles: restore it"
            ) from error


class Admission:
    """The gate before anything is fetched. Life: `admit` before the download, `used` once the app runs from it."""

    def __init__(self, *, trust: Trust, seen: SeenCounters, host: Host | None = None) -> None:
        self._trust = trust
        self._seen = seen
        self._host = host or Host.here()

    def admit(self, signed: SignedBundle, *, back: bool = False) -> Bundle:
        """The bundle; raises Unsigned, SignatureWrong, RolledBack or WrongPlatform. `back`: the deployment names its digest as
        that of the version before the newest; it may be older than what was used here."""
        self._trust.check(signed)
        highest = self._seen.highest(signed.bundle.app)
        if signed.counter < highest and not back:
            raise RolledBack(
                f"{signed.ref} has counter {signed.counter}, this node has used {highest}: an old bundle is offered as new; "
                "to go back on purpose, publish the old contents again (`rayline env publish`), which gives them a new counter"
            )
        self._host.require(signed.bundle.host, signed.ref)
        return signed.bundle

    def used(self, signed: SignedBundle) -> None:
        """Remember the counter, so that nothing older is taken again."""
        self._seen.note(signed.bundle.app, signed.counter)
