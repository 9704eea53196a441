"""One published model, from its name to a read-only folder of this node."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from rayline.errors import BlobCorrupt, BlobTruncated, BundleRefused, NotInStore
from rayline.file_locks import FileLease
from rayline.models import ModelChoice
from runtime_env.bundle import Layer, hex_of
from runtime_env.durable import write_durably
from runtime_env.model_release import ModelRelease, SignedModel
from runtime_env.node.folder import NodeFolder
from runtime_env.node.source import BlobSource
from runtime_env.signing import Trust
from runtime_env.store import Store
from runtime_env.store.protocol import ModelEntry
from runtime_env.unpack import check_blob


@dataclass(frozen=True, slots=True)
class HeldModel:
    """A model in place; nobody collects it while `lease` is held."""

    path: Path
    lease: FileLease


class ModelFetcher:
    """Brings publications of models to this node. Owns the copies of their manifests in the node's folder; does not own what else
    lies there, nor the decision which publication is wanted.

    A model that lies unpacked on this node already is used although its store may be away.
    """

    def __init__(self, *, folder: NodeFolder, store: Store, source: BlobSource, trust: Trust) -> None:
        self._folder = folder
        self._store = store
        self._source = source
        self._trust = trust
        self._manifests = folder.path / "manifests"

    def fetch(self, app: str, name: str, choice: ModelChoice) -> HeldModel:
        """Blocks until the model is in place, every byte checked.

        Raises:
            EnvError: with its reason; other models are as they were.
        """
        with self._folder.changing():
            release = self._admit(app, name, choice)
            layer = release.layer
            lease = self._folder.lease(layer.digest)
            try:
                tree = self._folder.layer(layer.digest)
                try:
                    self._folder.place_layers([layer], {})
                except NotInStore:
                    self._folder.place_layers([layer], self._bring(layer))
                path = tree / release.model.path
                if not path.exists():
                    raise BundleRefused(f"model {name} of {app}: its archive holds no {release.model.path}: publish it again")
                _close_folders(tree)
                self._folder.collect()
            except BaseException:
                lease.release()
                raise
        return HeldModel(path, lease)

    def _bring(self, layer: Layer) -> dict[str, Path]:
        blobs = self._source.fetch([layer], lambda _count: None)
        try:
            check_blob(layer, blobs[layer.digest])
        except (BlobCorrupt, BlobTruncated):
            # It was damaged here after it came: the next attempt fetches it again.
            blobs[layer.digest].unlink(missing_ok=True)
            raise
        return blobs

    def _admit(self, app: str, name: str, choice: ModelChoice) -> ModelRelease:
        """The manifest that this node kept, where it is still in order; otherwise the store's."""
        entry = ModelEntry(app, name, choice.publication, choice.digest)
        kept = self._manifests / f"{hex_of(choice.digest)}.json"
        try:
            signed = SignedModel.from_bytes(kept.read_bytes())
            if ModelEntry.of(signed) == entry:
                self._trust.check(signed)
                return signed.release
        except (FileNotFoundError, BundleRefused):
            # Another copy may be in order: the store is asked.
            pass
        signed = self._store.get_model(entry)
        self._trust.check(signed)
        write_durably(kept, signed.to_bytes())
        return signed.release


def _close_folders(tree: Path) -> None:
    """Files are read-only already; so that none is added, replaced or removed by accident, either."""
    for folder, _, _ in os.walk(tree):
        Path(folder).chmod(0o555)
