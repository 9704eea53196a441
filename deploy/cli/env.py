"""`rayline env`: build an app's environment, look at what a store holds, check it, make room."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli.apps import ManifestFile
from deploy.cli.bars import build_bar, bytes_bar
from deploy.cli.exit_codes import ExitCode
from deploy.cli.options import (
    DEFAULT_STATE_DIR,
    Bootstrap,
    KafkaConfig,
    Output,
    StateDir,
    StoreUrl,
    known_kafka_settings,
)
from deploy.cli.output import OutputFormat, note, show, table
from rayline.errors import ConfigError

if TYPE_CHECKING:
    from rayline.bus import KafkaSettings
    from runtime_env.bundle import Bundle
    from runtime_env.signing import SignedBundle, SigningKey, Trust
    from runtime_env.store import Store, WritableStore

group = typer.Typer(help="Environments of apps: build, look, check.", no_args_is_help=True, rich_markup_mode=None)

KeyFile = Annotated[
    Path | None, typer.Option("--key", envvar="RAYLINE_ENV_KEY", help="Private key that signs (`rayline env keygen`).")
]
TrustPath = Annotated[
    Path | None, typer.Option("--trust", envvar="RAYLINE_ENV_TRUST", help="File with the public keys that are trusted.")
]
Development = Annotated[bool, typer.Option("--dev", envvar="RAYLINE_ENV_DEV", help="Development: unsigned bundles are in order.")]
CacheFolder = Annotated[
    Path | None,
    typer.Option("--cache", envvar="RAYLINE_ENV_CACHE", help="Folder of the build cache; default: below ~/.cache/rayline."),
]
Ref = Annotated[str, typer.Argument(metavar="BUNDLE", help="APP (its newest), APP@COUNTER or APP@sha256:DIGITS.")]


@group.command("build")
def build(
    manifest: ManifestFile,
    upgrade: Annotated[bool, typer.Option("--upgrade", help="Find versions anew instead of keeping env.lock.")] = False,
    python: Annotated[str | None, typer.Option("--python", help="Another Python than `env.python`, e.g. 3.12.")] = None,
    bare: Annotated[
        bool, typer.Option("--bare", help="Only what the app asks for: without what Rayline's actors need (pyarrow, msgpack).")
    ] = False,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Import the entrypoint in the finished environment.")] = True,
    store: StoreUrl = None,
    key: KeyFile = None,
    development: Development = False,
    cache: CacheFolder = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Build an app's bundle, sign it and put it into the store; only what changed is made and moved."""
    from dataclasses import replace

    from rayline.entrypoint import check_entrypoint
    from rayline.manifest import load_manifest
    from runtime_env.build import BuildCache, Builder, BuildOptions
    from runtime_env.build.cache import default_cache_folder
    from runtime_env.store import publish

    started = time.monotonic()
    signer = signing_key(key, development)
    place = writable_store(store, state_dir)
    spec = load_manifest(manifest)
    check_entrypoint(spec)
    if python is not None:
        spec = replace(spec, environment=replace(spec.environment, python=python))
    builds = BuildCache(path=cache or default_cache_folder())
    with build_bar() as progress:
        built = Builder(cache=builds, progress=progress).build(spec, BuildOptions(upgrade=upgrade, bare=bare))
    if check:
        _try(built.bundle, built.blob_paths, builds, for_actors=not bare)
    with bytes_bar() as stored:
        published = publish(place, built.bundle, built.blob_paths, key=signer, progress=stored)
    seconds = time.monotonic() - started
    record = {
        **_summary(published.signed),
        "store": place.url,
        "made": list(built.made),
        "moved_bytes": published.moved_bytes,
        "new": published.new,
        "seconds": round(seconds, 3),
    }
    text = (
        f"{spec.name}@{published.signed.counter} {built.bundle.digest[:19]} Python {built.bundle.python}, "
        f"{len(built.bundle.layers)} layers, {size_text(built.bundle.size_bytes)}; made {len(built.made)}, moved "
        f"{size_text(published.moved_bytes)} to {place.url} in {seconds:.1f} s{'' if published.new else ' (nothing new)'}"
    )
    show(output, record, text)


@group.command("publish")
def publish_again(
    ref: Ref,
    store: StoreUrl = None,
    key: KeyFile = None,
    development: Development = False,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Make an earlier bundle the app's newest again: a roll-back on purpose, with a new counter and signature."""
    from runtime_env.store import publish

    place = writable_store(store, state_dir)
    published = publish(place, place.get_manifest(ref).bundle, {}, key=signing_key(key, development))
    show(output, _summary(published.signed), f"{published.signed.bundle.app}@{published.signed.counter} is the newest")


@group.command("list")
def list_bundles(
    app: Annotated[str | None, typer.Argument(metavar="[APP]", help="Only this app's.")] = None,
    store: StoreUrl = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    output: Output = OutputFormat.TEXT,
) -> None:
    """The bundles of a store, oldest first."""
    place = readable_store(store, state_dir)
    rows = [_summary(place.get_manifest(f"{one.app}@{one.counter}")) for one in place.entries()]
    rows = [row for row in rows if app in (None, row["app"])]
    cells = [
        (
            f"{row['app']}@{row['counter']}",
            row["digest"][7:19],
            row["python"],
            size_text(row["size_bytes"]),
            " ".join(row["signed_by"]),
        )
        for row in rows
    ]
    show(output, {"store": place.url, "bundles": rows}, table(("BUNDLE", "DIGEST", "PYTHON", "SIZE", "SIGNED BY"), cells))


@group.command("show")
def show_bundle(
    ref: Ref, store: StoreUrl = None, state_dir: StateDir = DEFAULT_STATE_DIR, output: Output = OutputFormat.TEXT
) -> None:
    """One bundle: its layers, packages, models and who signed it."""
    signed = readable_store(store, state_dir).get_manifest(ref)
    bundle = signed.bundle
    layers = table(
        ("LAYER", "KIND", "DIGEST", "SIZE", "UNPACKED", "FILES"),
        [
            (one.name, one.kind, one.digest[7:19], size_text(one.size_bytes), size_text(one.content_bytes), one.files)
            for one in bundle.layers
        ],
    )
    models = "".join(f"\nmodel {one.name}: {one.path} ({one.digest[:19]})" for one in bundle.models)
    head = (
        f"{bundle.app}@{signed.counter} {bundle.digest}\n"
        f"version {bundle.app_version}, {bundle.entrypoint}, Python {bundle.python}, for {bundle.host}\n"
        f"signed by {', '.join(signed.signatures) or 'nobody'}"
    )
    show(output, _summary(signed) | {"bundle": bundle.as_dict()}, f"{head}{models}\n\n{layers}")


@group.command("diff")
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A bundle that is there.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The bundle that is to come.")],
    store: StoreUrl = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    output: Output = OutputFormat.TEXT,
) -> None:
    """What changes from bundle A to B, and how many bytes that moves to a node that has A."""
    place = readable_store(store, state_dir)
    before, after = place.get_manifest(a).bundle, place.get_manifest(b).bundle
    old, new = ({layer.digest: layer for layer in bundle.layers} for bundle in (before, after))
    removed, added = [old[one] for one in old if one not in new], [new[one] for one in new if one not in old]
    moved = sum(layer.size_bytes for layer in added)
    lines = [f"- {one.name}" for one in removed] + [f"+ {one.name} {size_text(one.size_bytes)}" for one in added]
    lines += [
        f"  {what}: {was} → {now}"
        for what, was, now in (
            ("Python", before.python, after.python),
            ("variables", dict(before.variables), dict(after.variables)),
            ("entrypoint", before.entrypoint, after.entrypoint),
            ("host", before.host, after.host),
        )
        if was != now
    ]
    record = {
        "removed": [one.name for one in removed],
        "added": [one.name for one in added],
        "moved_bytes": moved,
        "same": not lines,
    }
    show(output, record, "\n".join([*lines, f"{size_text(moved)} to move"]) if lines else "no difference")


@group.command("verify")
def verify(
    ref: Ref,
    store: StoreUrl = None,
    trust: TrustPath = None,
    development: Development = False,
    full: Annotated[bool, typer.Option("--full", help="Also unpack it for a moment and import the entrypoint.")] = False,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Check a bundle as a node would: signature, platform, and every byte of every layer."""
    import tempfile

    from runtime_env.admission import Admission, SeenCounters
    from runtime_env.fetch import fetch_blobs
    from runtime_env.preflight import check_health
    from runtime_env.unpack import unpack
    from workers.bundle_process import without_secrets

    place = readable_store(store, state_dir)
    signed = place.get_manifest(ref)
    with tempfile.TemporaryDirectory(prefix="rayline-verify-") as folder:
        seen = SeenCounters(path=Path(folder, "seen.json"))
        bundle = Admission(trust=_trust(trust, development), seen=seen).admit(signed)
        blobs = fetch_blobs(place, bundle.layers, Path(folder, "blobs"))
        if full:
            check_health(unpack(bundle, blobs, Path(folder, "unpacked")), bundle, without_secrets(os.environ))
    checked = "signature, platform and every byte" + (", and its entrypoint is imported" if full else "")
    show(output, _summary(signed) | {"in_order": True, "full": full}, f"{signed.ref}: in order ({checked})")


@group.command("gc")
def gc(
    keep: Annotated[int, typer.Option("--keep", min=1, help="Publications of each app that stay.")] = 3,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")] = False,
    store: StoreUrl = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Remove old publications from a store, never what apps run, and blobs that nothing names. Not while a build runs."""
    from runtime_env.store.sweeping import sweep

    place = writable_store(store, state_dir)
    settings = known_kafka_settings(bootstrap_servers, kafka_config, state_dir)
    if settings is None:
        note("no platform is known here (--bootstrap-servers names one): what it runs is not looked at")
    in_use = asyncio.run(_deployed_bundles(settings)) if settings is not None else frozenset[str]()
    swept = sweep(place, keep=keep, in_use=in_use, dry_run=dry_run)
    record = {"manifests": [one.path for one in swept.manifests], "blobs": len(swept.blobs), "bytes": swept.freed_bytes}
    would = "would go" if dry_run else "gone"
    show(
        output,
        record,
        f"{len(swept.manifests)} publications and {len(swept.blobs)} blobs {would}, {size_text(swept.freed_bytes)}",
    )


@group.command("doctor")
def doctor(
    store: StoreUrl = None,
    key: KeyFile = None,
    trust: TrustPath = None,
    cache: CacheFolder = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Check what building needs on this machine: uv, interpreters, keys, the store, room."""
    from deploy.environment_doctor import examine_environments
    from runtime_env.build.cache import default_cache_folder

    findings = examine_environments(store=_url(store, state_dir), key=key, trust=trust, cache=cache or default_cache_folder())
    show(output, {"findings": [one.as_dict() for one in findings]}, "\n".join(one.text() for one in findings))
    if any(one.health.value == "bad" for one in findings):
        raise typer.Exit(ExitCode.NO)


@group.command("keygen")
def keygen(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where the private key goes (mode 0600).")],
    comment: Annotated[str, typer.Option("--comment", help="Who or what holds it.")] = "",
    output: Output = OutputFormat.TEXT,
) -> None:
    """Make a signing key; prints the line for the trust files of those who check."""
    from runtime_env.signing import SigningKey

    key = SigningKey.generate(path)
    line = f"ed25519 {key.public} {comment or key.name}"
    show(output, {"key": key.name, "public": key.public, "trust_line": line, "private_file": str(path)}, line)
    note(f"the private key is in {path}; the line above goes into the file of --trust (RAYLINE_ENV_TRUST)")


async def _deployed_bundles(settings: KafkaSettings) -> frozenset[str]:
    """The digests of what apps run from, in their newest version and the one before, or are to run from next."""
    from deploy.app_registry import AppRegistry

    async with AppRegistry(settings) as registry:
        apps = (await registry.snapshot()).values()
    versions = [version for spec in apps for version in (spec, spec.previous) if version is not None]
    return frozenset(digest for spec in versions for digest in (spec.bundle, spec.prefetch) if digest)


def _url(store: str | None, state_dir: Path) -> str:
    return store or str(state_dir / "environments")


def readable_store(store: str | None, state_dir: Path) -> Store:
    """What `--store` names, or the local platform's."""
    from runtime_env.store import open_store

    return open_store(_url(store, state_dir))


def writable_store(store: str | None, state_dir: Path) -> WritableStore:
    """As `readable_store`, to publish to."""
    from runtime_env.store import open_writable_store

    return open_writable_store(_url(store, state_dir))


def _trust(path: Path | None, development: bool) -> Trust:
    from runtime_env.signing import Trust

    return Trust.read(path, development=development)


def signing_key(path: Path | None, development: bool) -> SigningKey | None:
    """The key that signs; none only in development, so that nobody builds by accident what no node will take."""
    from runtime_env.signing import SigningKey

    if path is not None:
        return SigningKey.read(path)
    if not development:
        raise ConfigError(
            "nothing to sign with, and nodes refuse unsigned bundles: make a key with `rayline env keygen FILE` and give it by "
            "--key or RAYLINE_ENV_KEY; --dev builds without"
        )
    return None


def _try(bundle: Bundle, blob_paths: Any, builds: Any, *, for_actors: bool) -> None:
    """Unpack beside the cache, sharing layers from build to build, and check it there as nodes do."""
    from runtime_env.preflight import check_health
    from runtime_env.unpack import discard, unpack
    from workers.activation import check_imports

    place = builds.path / "tried"
    try:
        root = unpack(bundle, blob_paths, place)
        if for_actors:
            check_imports(root, bundle)
        else:
            check_health(root, bundle)
    finally:
        discard(bundle, place)


def _summary(signed: SignedBundle) -> dict[str, Any]:
    bundle = signed.bundle
    return {
        "app": bundle.app,
        "app_version": bundle.app_version,
        "counter": signed.counter,
        "digest": bundle.digest,
        "python": bundle.python,
        "host": str(bundle.host),
        "layers": len(bundle.layers),
        "size_bytes": bundle.size_bytes,
        "content_bytes": bundle.content_bytes,
        "signed_by": sorted(signed.signatures),
    }


def size_text(count: int) -> str:
    """A number of bytes, for people."""
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"
