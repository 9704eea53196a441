"""Which bundle a deployed app runs in: the newest of exactly its version, or the one that somebody names."""

from __future__ import annotations

from dataclasses import replace

from rayline.app_spec import AppSpec, Environment
from rayline.errors import NotInStore, RolledBack
from runtime_env.bundle import hex_of
from runtime_env.signing import SignedBundle
from runtime_env.store import ManifestEntry, Store

# How many digits of the bundle's digest stand in the version that results carry.
DIGEST_DIGITS = 12
# How far back a bundle is looked for: each look reads a manifest.
MAX_LOOKS = 100


def needs_bundle(spec: AppSpec) -> bool:
    """Whether the manifest asks for anything that the platform's own environment does not promise."""
    return spec.environment != Environment()


def with_bundle(spec: AppSpec, store: Store, ref: str | None = None) -> AppSpec:
    """The app in its bundle; its version gets the bundle's digest as its build: `1.4.0+0123456789ab`.

    So two builds of one version (other requirements, say) are two versions for nodes, lanes and results.

    Raises:
        NotInStore: there is no bundle of this version.
        RolledBack: it is not the app's newest publication; nodes would refuse it.
        StoreError: the store cannot be read.
    """
    entries = [entry for entry in store.entries() if entry.app == spec.name]
    signed = store.get_manifest(_of_app(spec, ref)) if ref is not None else _newest_of_version(spec, store, entries)
    newest = max(entry.counter for entry in entries)
    if signed.counter < newest:
        raise RolledBack(
            f"{spec.name}@{signed.counter} is not the newest bundle of {spec.name}, that is {newest}: nodes take none that is "
            f"older than what they used. To go back on purpose: `rayline env publish {spec.name}@{signed.counter}`, then deploy"
        )
    bundle = signed.bundle
    version = f"{bundle.app_version}+{hex_of(bundle.digest)[:DIGEST_DIGITS]}"
    return replace(
        spec,
        version=version,
        bundle=bundle.digest,
        entrypoint=bundle.entrypoint,
        constructor=dict(bundle.constructor),
        env=dict(bundle.variables),
    )


def _of_app(spec: AppSpec, ref: str) -> str:
    app, at, _ = ref.partition("@")
    if app != spec.name:
        raise NotInStore(f"{ref} is a bundle of {app}, the manifest is {spec.name}'s")
    return ref if at else app


def _newest_of_version(spec: AppSpec, store: Store, entries: list[ManifestEntry]) -> SignedBundle:
    for entry in sorted(entries, reverse=True)[:MAX_LOOKS]:
        signed = store.get_manifest(f"{entry.app}@{entry.counter}")
        if signed.bundle.app_version == spec.version:
            return signed
    raise NotInStore(
        f"{store.url} has no bundle of {spec.name} {spec.version}, and its manifest asks for an environment of its own: make one "
        f"with `rayline env build {spec.root}` (after each change), or name one with --bundle"
    )
