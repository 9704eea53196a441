"""Which process reads the config topic, and which records are for it."""

from __future__ import annotations

from dataclasses import dataclass

from rayline.config.setting import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """One process as the config topic sees it.

    `name` is unique and lasting among processes of the same role and place (a lane's instance, a resource's name). `registrar`:
    it also answers records that address nobody who could, and keeps the log of changes made by others than our command.
    """

    role: Role
    name: str = ""
    app: str | None = None
    cluster: str | None = None
    node: str | None = None
    registrar: bool = False

    @property
    def process(self) -> str:
        """`lane/ocr/0`, `agent/a/pod-1`, `gateway/a`, `resource/0`."""
        return "/".join(part for part in (self.role.value, self.app, self.cluster, self.node, self.name) if part)
