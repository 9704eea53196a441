"""A stand-in for `deploy.app_registry.AppRegistry` that asks no Kafka."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from rayline.app_spec import AppSpec


def registry_of(deployed: Callable[[], dict[str, AppSpec]]) -> type:
    """A registry whose snapshot is what `deployed` says at that moment."""

    class Registry:
        def __init__(self, _settings: object) -> None: ...

        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *_: object) -> None: ...

        async def snapshot(self) -> dict[str, AppSpec]:
            return deployed()

    return Registry
