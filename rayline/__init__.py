"""Rayline's vocabulary, and `rayline.Client`. Importing the package loads nothing: it is thin where user code runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rayline.blocking import BlockingClient
    from rayline.client import Client, NewJob, Submitted

__all__ = ["BlockingClient", "Client", "NewJob", "Submitted"]


def __getattr__(name: str) -> Any:
    if name == "BlockingClient":
        from rayline.blocking import BlockingClient

        return BlockingClient
    if name in __all__:
        from rayline import client

        return getattr(client, name)
    raise AttributeError(f"module 'rayline' has no attribute {name!r}")
