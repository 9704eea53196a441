"""One environment, from its name to a folder that runs: the steps of `runtime_env.node.activation`, carried out on this node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rayline.engines import Chosen
from rayline.errors import (
    BlobCorrupt,
    BlobTruncated,
    BundleRefused,
    DiskFull,
    HealthCheckFailed,
    NotInStore,
    PeerError,
    ProviderAbsent,
    RaylineError,
    RolledBack,
    SignatureWrong,
    StoreError,
    Unsigned,
    WrongPlatform,
)
from runtime_env.admission import Admission
from runtime_env.bundle import Bundle, hex_of
from runtime_env.durable import write_durably
from runtime_env.node.activation import Failure, Phase, Wanted
from runtime_env.node.folder import NodeFolder
from runtime_env.node.source import BlobSource
from runtime_env.signing import SignedBundle, Trust
from runtime_env.store import Store
from runtime_env.unpack import check_blob, is_unpacked

OnPhase = Callable[[Phase], None]
OnProgress = Callable[[int, int], None]
# What the app computes with here, where it names an engine; raises HealthCheckFailed or ProviderAbsent unless actors can start
# from the unpacked bundle.
Check = Callable[[Path, Bundle], Chosen | None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """An environment that actors may start from."""

    root: Path
    bundle: Bundle
    chosen: Chosen | None = None


class Preparer:
    """Carries out the steps for one environment at a time. Owns the copies of manifests in the node's folder; does not own what
    else lies there, nor the decision what is prepared when.

    A bundle that lies unpacked on this node already is checked and used although its store may be away.
    """

    def __init__(self, *, folder: NodeFolder, store: Store, source: BlobSource, trust: Trust, check: Check) -> None:
        self._folder = folder
        self._store = store
        self._source = source
        self._check = check
        self._admission = Admission(trust=trust, seen=folder.seen)
        self._manifests = folder.path / "manifests"

    def prepare(self, wanted: Wanted, on_phase: OnPhase, on_progress: OnProgress) -> Prepared:
        """Blocks until the environment is ready; the caller holds a lease on its digest.

        `on_phase` is told each step that begins, `on_progress` the bytes fetched and their total.

        Raises:
            EnvError: with its reason; other environments are as they were.
        """
        with self._folder.changing():
            signed = self._admit(wanted)
            bundle = signed.bundle
            if is_unpacked(bundle, self._folder.unpacked):
                on_phase(Phase.VERIFYING)
                on_phase(Phase.UNPACKING)
                root = self._folder.environment(bundle.digest)
            else:
                root = self._bring(bundle, on_phase, on_progress)
            on_phase(Phase.CHECKING)
        # Outside of the lock: the app's own code runs here, and may take as long as it is allowed to.
        chosen = self._check(root, bundle)
        with self._folder.changing():
            if not wanted.ahead:
                self._admission.used(signed)
            self._folder.collect()
        return Prepared(root, bundle, chosen)

    def _bring(self, bundle: Bundle, on_phase: OnPhase, on_progress: OnProgress) -> Path:
        fetched = 0
        on_progress(0, bundle.size_bytes)

        def on_bytes(count: int) -> None:
            nonlocal fetched
            fetched += count
            on_progress(min(fetched, bundle.size_bytes), bundle.size_bytes)

        blobs = self._source.fetch(bundle.layers, on_bytes)
        on_phase(Phase.VERIFYING)
        for layer in bundle.layers:
            try:
                check_blob(layer, blobs[layer.digest])
            except (BlobCorrupt, BlobTruncated):
                # It was damaged here after it came: the next attempt fetches it again.
                blobs[layer.digest].unlink(missing_ok=True)
                raise
        on_phase(Phase.UNPACKING)
        return self._folder.place(bundle, blobs)

    def _admit(self, wanted: Wanted) -> SignedBundle:
        """The manifest that this node kept, where it is still in order; otherwise the store's."""
        kept = self._manifests / f"{hex_of(wanted.digest)}.json"
        try:
            signed = SignedBundle.from_bytes(kept.read_bytes())
            if signed.bundle.digest == wanted.digest:
                self._admission.admit(signed, back=wanted.back)
                return signed
        except (FileNotFoundError, BundleRefused):
            # Another publication of the same contents may be in order: the store is asked.
            pass
        signed = self._store.get_manifest(f"{wanted.app}@{wanted.digest}")
        self._admission.admit(signed, back=wanted.back)
        write_durably(kept, signed.to_bytes())
        return signed


_REMEDIES: tuple[tuple[type[RaylineError], str], ...] = (
    (DiskFull, "make room on this node's disk, or move apps elsewhere"),
    (Unsigned, "sign it: `rayline env build --key`, or start nodes with RAYLINE_ENV_DEV=1 in development"),
    (SignatureWrong, "add the signer's public key to the nodes' trust file (RAYLINE_ENV_TRUST), if it is right"),
    (RolledBack, "to go back on purpose: `rayline env publish APP@COUNTER`, then deploy"),
    (WrongPlatform, "build the bundle on a machine of this node's kind"),
    (BlobCorrupt, "look into who wrote to the store, and publish the bundle again"),
    (BlobTruncated, "the rest is fetched by itself; where that does not help, publish the bundle again: `rayline env build`"),
    (BundleRefused, "build and publish the bundle again: `rayline env build`"),
    (
        ProviderAbsent,
        "bring the engine for this card (`env.requirements`: onnxruntime-gpu, say) and its driver, or name what shall do "
        "instead in `env.providers`",
    ),
    (HealthCheckFailed, "mend the app, then `rayline env build` and `rayline deploy`; its traceback is the reason"),
    (NotInStore, "publish the bundle to the store that nodes read: `rayline env build --store`"),
    (PeerError, "look at the network between nodes"),
    (StoreError, "see that this node reaches the store (RAYLINE_ENV_STORE)"),
)


def failure_of(error: Exception) -> Failure:
    """What is told of a failed attempt: the error's own words, and what to do."""
    for kind, remedy in _REMEDIES:
        if isinstance(error, kind):
            return Failure(str(error), remedy)
    if isinstance(error, OSError):
        return Failure(str(error), "look at this node's disk; the agent's log has more")
    return Failure(f"{type(error).__name__}: {error}", "see the agent's log on this node")
