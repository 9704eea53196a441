"""`init`, `deploy`, `undeploy`, `app schema`, `app check`: an app from its scaffold to the platform."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.cli.exit_codes import ExitCode
from deploy.cli.options import DEFAULT_STATE_DIR, App, Bootstrap, KafkaConfig, Output, StateDir, StoreUrl, kafka_settings
from deploy.cli.output import OutputFormat, note, show

if TYPE_CHECKING:
    from deploy.rollouts import Rollout
    from rayline.app_spec import AppSpec
    from rayline.bus import KafkaSettings

group = typer.Typer(help="Look at an app's manifest without a platform.", no_args_is_help=True, rich_markup_mode=None)
ManifestFile = Annotated[Path, typer.Argument(metavar="APP.YAML", help="The manifest, or the folder it is in.")]


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New or empty folder; its name becomes the app's.")],
    name: Annotated[str | None, typer.Option("--name", help="Another name for the app.")] = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Write the scaffold of an app that runs: manifest, feature function, test and sample jobs."""
    from deploy.scaffold import write_scaffold

    app, files = write_scaffold(folder, name)
    text = "".join(f"  {path}\n" for path in files)
    show(output, {"app": app, "files": [str(path) for path in files]}, f"{app}:\n{text}".rstrip())
    note("next: `rayline up` in one shell, and in another:")
    note(f"  rayline deploy {folder} --wait")
    note(f"  rayline submit {app} {folder}/jobs.jsonl")
    note(f"  rayline results {app} --follow --from-beginning")


def deploy(
    manifest: ManifestFile,
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when actors of this version and the app's lanes are ready.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for --wait.")] = 120,
    bundle: Annotated[
        str | None,
        typer.Option("--bundle", metavar="BUNDLE", help="APP@COUNTER or APP@sha256:DIGITS; default: this version's newest."),
    ] = None,
    share: Annotated[
        float | None,
        typer.Option(
            "--share",
            min=0,
            max=1,
            help="Only this share of the nodes takes the version, the others stay (a canary); sets `rollout.share` of the app.",
        ),
    ] = None,
    prefetch: Annotated[
        bool, typer.Option("--prefetch", help="Only put the bundle in place on every node; the version that runs goes on.")
    ] = False,
    store: StoreUrl = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Check an app, make its topics, and have it run (again with another version: rolls it out).

    An app whose manifest has `env:` runs in the bundle that `rayline env build` made of it.
    """
    from deploy.bundle_choice import needs_bundle, with_bundle
    from rayline.entrypoint import check_entrypoint
    from rayline.manifest import load_manifest

    spec = load_manifest(manifest)
    check_entrypoint(spec)
    if bundle is not None or needs_bundle(spec):
        from runtime_env.store import open_store

        spec = with_bundle(spec, open_store(store or str(state_dir / "environments")), bundle)
    settings = kafka_settings(bootstrap_servers, kafka_config, state_dir)
    if prefetch and share is not None:
        raise typer.BadParameter("nothing is switched with --prefetch", param_hint="--share")
    if prefetch:
        version = asyncio.run(_prefetch(settings, spec))
        show(
            output,
            {"app": spec.name, "version": version, "prefetched": spec.bundle},
            f"{spec.name}: nodes fetch {spec.bundle[:19]}; {version} goes on (`rayline status` shows how far they are)",
        )
        return
    rollout, nodes = asyncio.run(_deploy(settings, spec, share, timeout if wait else None))
    previous = rollout.spec.previous
    record = {
        "app": spec.name,
        "version": spec.version,
        "bundle": spec.bundle or None,
        "previous": None if previous is None else previous.version,
        "share": rollout.share,
        "ready_nodes": nodes,
    }
    ready = f", ready on {', '.join(nodes) or 'no node'}" if nodes is not None else "; `rayline status` shows when it is ready"
    show(output, record, f"{spec.name} {spec.version} deployed{ready}")


async def _prefetch(settings: KafkaSettings, spec: AppSpec) -> str:
    """Name the bundle beside what runs; returns the version that does.

    Raises:
        ConfigError: the app has no bundle, or does not run.
    """
    from dataclasses import replace

    from deploy.app_registry import AppRegistry, publish_app
    from rayline.errors import ConfigError

    if not spec.bundle:
        raise ConfigError(f"{spec.name} has no environment of its own (`env:` in its manifest): there is nothing to fetch")
    async with AppRegistry(settings) as registry:
        running = (await registry.snapshot()).get(spec.name)
    if running is None:
        raise ConfigError(f"{spec.name} is not deployed: deploy it, or another version before, without --prefetch")
    await publish_app(settings, replace(running, prefetch=spec.bundle))
    return running.version


async def _deploy(
    settings: KafkaSettings, spec: AppSpec, share: float | None, wait_seconds: float | None
) -> tuple[Rollout, list[str] | None]:
    """The roll-out, and the nodes that serve the version where they were waited for."""
    from deploy.node_watch import joined_nodes, serving_nodes, wait_lanes, wait_served
    from deploy.rollouts import roll_out

    rollout, differences = await roll_out(settings, spec, share=share, say=note)
    for difference in differences:
        note(f"warning: {difference}")
    previous = rollout.spec.previous
    if previous is not None and rollout.partial:
        nodes = await joined_nodes(settings)
        note(rollout.text(nodes))
        if not spec.bundle and previous.root == spec.root:
            note(f"warning: both versions load their code from {spec.root}: an actor that starts anew loads what is there then")
        if not rollout.taking(nodes):
            return rollout, [] if wait_seconds is not None else None
    if wait_seconds is None:
        return rollout, None
    note(f"waiting for actors of {spec.name} {spec.version} …")
    watch = await wait_served(settings, spec.name, spec.version, timeout_seconds=wait_seconds)
    note(f"waiting for the lanes of {spec.name} …")
    await wait_lanes(settings, spec.name, timeout_seconds=wait_seconds)
    return rollout, serving_nodes(watch, spec.name, spec.version)


def undeploy(
    app: App,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Stop running an app; its topics and what they hold stay."""
    from deploy.app_registry import AppRegistry, remove_app

    settings = kafka_settings(bootstrap_servers, kafka_config, state_dir)

    async def remove() -> bool:
        async with AppRegistry(settings) as registry:
            if app not in await registry.snapshot():
                return False
        await remove_app(settings, app)
        return True

    if not asyncio.run(remove()):
        note(f"no app {app!r} is deployed; `rayline status` lists them")
        raise typer.Exit(ExitCode.NO)
    show(output, {"app": app, "removed": True}, f"{app} removed; its topics stay")


@group.command("schema")
def schema(output: Output = OutputFormat.JSON) -> None:
    """Print the JSON Schema of app.yaml, for editors."""
    from rayline.manifest import manifest_schema

    show(output, manifest_schema())


@group.command("check")
def check(manifest: ManifestFile, output: Output = OutputFormat.TEXT) -> None:
    """Check a manifest and its entrypoint; print what would be deployed."""
    from rayline.entrypoint import check_entrypoint
    from rayline.manifest import load_manifest

    spec = load_manifest(manifest)
    check_entrypoint(spec)
    show(output, spec.as_dict(), f"{spec.name} {spec.version}: in order ({spec.entrypoint} in {spec.root})")
