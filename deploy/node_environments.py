"""How a pod gets the environments of its apps: its node's folder, the store, and whom it trusts, as its variables name them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from deploy.node_peers import open_peers
from deploy.process_environment import (
    CARDS_VARIABLE,
    DEVELOPMENT_VARIABLE,
    NODE_DIR_VARIABLE,
    NODE_QUOTA_VARIABLE,
    STORE_VARIABLE,
    TRUST_VARIABLE,
    is_set,
)
from rayline.engines import Chosen
from rayline.errors import ConfigError, StoreError
from runtime_env.bundle import Bundle
from runtime_env.node.folder import NodeFolder
from runtime_env.node.model_fetching import HeldModel, ModelFetcher
from runtime_env.node.preparing import Prepared, Preparer
from runtime_env.node.source import StoreSource
from runtime_env.signing import Trust
from runtime_env.store import open_store
from workers.activation import check_environment
from workers.agent import NodeEnvironments
from workers.sampling import Cards, NamedCards, find_cards

DEFAULT_QUOTA_GIB: Final = 64.0


class _WithoutStore:
    """What stands for the preparer and the fetcher where no store is named: apps with an environment, and models that are
    published by themselves, fail there, and say why."""

    def prepare(self, *_: object) -> Prepared:
        raise StoreError(f"this node knows no store of environments: {STORE_VARIABLE} is not set")

    def fetch(self, *_: object) -> HeldModel:
        raise StoreError(f"this node knows no store of models: {STORE_VARIABLE} is not set")


def open_environments(environment: Mapping[str, str], *, node: str, cores: float) -> NodeEnvironments:
    """By the variables of this process; `node` is `cluster/name`, `cores` what it may use.

    Raises:
        ConfigError: a variable, or the trust file, cannot be read.
    """
    default = Path(tempfile.gettempdir()) / f"rayline-node-{os.getuid()}"
    quota_bytes = round(_quota_gib(environment) * 2**30)
    folder = NodeFolder(path=Path(environment.get(NODE_DIR_VARIABLE) or default), quota_bytes=quota_bytes)
    store_url, trust = environment.get(STORE_VARIABLE), environment.get(TRUST_VARIABLE)
    if not store_url:
        return NodeEnvironments(folder, _WithoutStore(), _WithoutStore())
    store = open_store(store_url)
    peers = open_peers(environment, node=node, cores=cores, store=store, cache=folder.blobs)
    source, peering = (StoreSource(store=store, cache=folder.blobs), None) if peers is None else peers
    trusted = Trust.read(Path(trust) if trust else None, development=is_set(environment.get(DEVELOPMENT_VARIABLE)))
    cards = open_cards(environment)

    def check(root: Path, bundle: Bundle) -> Chosen | None:
        return check_environment(root, bundle, [card.kind for card in cards.read()])

    preparer = Preparer(folder=folder, store=store, source=source, trust=trusted, check=check)
    models = ModelFetcher(folder=folder, store=store, source=source, trust=trusted)
    return NodeEnvironments(folder, preparer, models, peering)


def open_cards(environment: Mapping[str, str]) -> Cards:
    """The cards of this node: those that a variable names, or those that can be asked."""
    named = [kind.strip() for kind in environment.get(CARDS_VARIABLE, "").split(",")]
    return NamedCards(kinds=[kind for kind in named if kind]) if any(named) else find_cards()


def _quota_gib(environment: Mapping[str, str]) -> float:
    text = environment.get(NODE_QUOTA_VARIABLE) or f"{DEFAULT_QUOTA_GIB:g}"
    try:
        quota_gib = float(text)
    except ValueError as error:
        raise ConfigError(f"{NODE_QUOTA_VARIABLE} is {text!r}: give a number of GiB") from error
    if not 0 <= quota_gib < 2**20:
        raise ConfigError(f"{NODE_QUOTA_VARIABLE} is {text}: give a number of GiB from 0 to a million")
    return quota_gib
