"""`rayline model`: publish models by themselves, put one in force while everything runs, go back."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from deploy.cli.bars import bytes_bar
from deploy.cli.config import AuthorName, Canary, DryRun, Guard, Only, Timeout, check_only
from deploy.cli.env import CacheFolder, Development, KeyFile, readable_store, signing_key, size_text, writable_store
from deploy.cli.options import DEFAULT_STATE_DIR, Bootstrap, KafkaConfig, Output, StateDir, StoreUrl, kafka_settings
from deploy.cli.output import OutputFormat, note, show, table
from rayline.errors import ConfigError

if TYPE_CHECKING:
    from deploy.config_history import Entry
    from deploy.model_choices import Choices, InForce, NodeServes
    from rayline.models import ModelChoice
    from runtime_env.store import ModelEntry, Store

group = typer.Typer(
    help="Models of an app: publish, put in force while it runs, go back.", no_args_is_help=True, rich_markup_mode=None
)
AppName = Annotated[str, typer.Argument(metavar="APP", help="Name of the app.")]
ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model: the app finds it by RAYLINE_MODEL_<NAME>.")]
Wait = Annotated[bool, typer.Option("--wait", help="Return when every node where the app runs serves it; 3 if one does not.")]
BUNDLED: Final = "bundle"


@group.command("publish")
def publish(
    app: AppName,
    name: ModelName,
    source: Annotated[str, typer.Argument(metavar="PATH", help="A file or folder, http(s)://…, or what fsspec opens.")],
    digest: Annotated[
        str | None, typer.Option("--digest", metavar="sha256:…", help="SHA-256 of the file; needed for what is not local.")
    ] = None,
    store: StoreUrl = None,
    key: KeyFile = None,
    development: Development = False,
    cache: CacheFolder = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Put a version of a model into the store, signed and numbered. `rayline model use` puts it in force."""
    from rayline.app_spec import ModelSource
    from rayline.models import MODEL_NAME
    from runtime_env.build import BuildCache
    from runtime_env.build.cache import default_cache_folder
    from runtime_env.build.model_layer import build_model
    from runtime_env.store import publish_model

    if not MODEL_NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name of a model: lower case letters, digits, `-` and `_`, at most 64")
    started = time.monotonic()
    signer = signing_key(key, development)
    place = writable_store(store, state_dir)
    builds = BuildCache(path=cache or default_cache_folder())
    with bytes_bar() as progress:
        built = build_model(builds, app, Path.cwd(), ModelSource(name, source, digest or ""), progress=progress)
        published = publish_model(place, built.release, built.blob, key=signer, progress=progress)
    seconds = time.monotonic() - started
    counter, size = published.signed.counter, built.release.layer.size_bytes
    record = {
        "app": app,
        "model": name,
        "publication": counter,
        "digest": built.release.digest,
        "size_bytes": size,
        "moved_bytes": published.moved_bytes,
        "new": published.new,
        "signed_by": sorted(published.signed.signatures),
        "store": place.url,
        "seconds": round(seconds, 3),
    }
    nothing = "" if published.new else " (nothing new)"
    show(output, record, f"{name}@{counter} of {app}, {size_text(size)}, in {place.url} after {seconds:.1f} s{nothing}")
    note(f"next: rayline model use {app} {name}@{counter} --wait")


@group.command("list")
def list_models(
    app: Annotated[str | None, typer.Argument(metavar="[APP]", help="Only this app's.")] = None,
    store: StoreUrl = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    output: Output = OutputFormat.TEXT,
) -> None:
    """The published models of a store, oldest first."""
    place = readable_store(store, state_dir)
    rows: list[dict[str, Any]] = []
    for entry in place.model_entries():
        if app in (None, entry.app):
            signed = place.get_model(entry)
            rows.append(
                {
                    "app": entry.app,
                    "model": entry.name,
                    "publication": entry.counter,
                    "digest": entry.digest,
                    "size_bytes": signed.release.layer.size_bytes,
                    "signed_by": sorted(signed.signatures),
                }
            )
    cells = [
        (
            row["app"],
            f"{row['model']}@{row['publication']}",
            row["digest"][7:19],
            size_text(row["size_bytes"]),
            " ".join(row["signed_by"]),
        )
        for row in rows
    ]
    show(output, {"store": place.url, "models": rows}, table(("APP", "MODEL", "DIGEST", "SIZE", "SIGNED BY"), cells))


@group.command("use")
def use(
    app: AppName,
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL@NUMBER…", help="MODEL alone: its newest; MODEL@bundle: the app's own again.")
    ],
    wait: Wait = False,
    timeout: Timeout = 60,
    dry_run: DryRun = False,
    canary: Canary = False,
    only: Only = None,
    guard: Guard = None,
    author: AuthorName = None,
    store: StoreUrl = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Put published models in force: nodes fetch them beside what serves, and take them up together."""
    from deploy.cli.model_flow import ModelFlow
    from deploy.config_flow import Care
    from deploy.interruption import Interruption

    check_only(only, canary=canary)
    settings = kafka_settings(bootstrap_servers, kafka_config, state_dir)
    chosen = _chosen(readable_store(store, state_dir), app, models)

    def change(now: InForce, _: list[Entry]) -> Choices:
        kept = {name: choice for name, choice in now.choices.items() if name not in chosen}
        return kept | {name: choice for name, choice in chosen.items() if choice is not None}

    care = Care(canary, only, guard) if canary or guard is not None else None
    flow = ModelFlow(settings, app, author=author, timeout=timeout, wait=wait, output=output)
    raise typer.Exit(Interruption().run(lambda _: flow.run(change, "use", dry_run=dry_run, care=care)))


@group.command("rollback")
def rollback(
    app: AppName,
    name: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="Only this one; default: all of the app's.")] = None,
    wait: Wait = False,
    timeout: Timeout = 60,
    dry_run: DryRun = False,
    author: AuthorName = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Go back to what was in force before, as a newer generation; once more goes forward again."""
    from deploy.cli.model_flow import ModelFlow
    from deploy.model_choices import choice_before, choices_before

    settings = kafka_settings(bootstrap_servers, kafka_config, state_dir)

    def change(now: InForce, entries: list[Entry]) -> Choices | None:
        if name is not None:
            return choice_before(entries, app, name, now.choices)
        return choices_before(entries, app, now.choices)

    flow = ModelFlow(settings, app, author=author, timeout=timeout, wait=wait, output=output)
    raise typer.Exit(asyncio.run(flow.run(change, "rollback", dry_run=dry_run)))


@group.command("show")
def show_models(
    app: AppName,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Which publications are in force for an app, and which generation each node serves."""
    from deploy.cli.model_flow import node_row, read_nodes
    from deploy.config_board import ConfigBoard
    from deploy.model_choices import choices_text, in_force
    from rayline.models import choices_value

    settings = kafka_settings(bootstrap_servers, kafka_config, state_dir)

    async def read() -> tuple[InForce, list[NodeServes]]:
        async with ConfigBoard(settings) as board:
            return in_force(board, app), await read_nodes(settings, app)

    now, nodes = asyncio.run(read())
    record = {
        "app": app,
        "generation": now.generation,
        "models": choices_value(now.choices),
        "nodes": [node_row(node) for node in nodes],
    }
    rows = [(node.node, node.serving or "bundle", node.wanted or "bundle", node.reason or "") for node in nodes]
    head = f"{app}: {choices_text(now.choices)}" + (f", generation {now.generation}" if now.generation else "")
    show(output, record, "\n".join([head, *([table(("NODE", "SERVES", "WANTED", "WHY"), rows)] if rows else [])]))


@group.command("gc")
def gc(
    app: AppName,
    keep: Annotated[int, typer.Option("--keep", min=1, help="Publications of each model that stay.")] = 5,
    dry_run: DryRun = False,
    store: StoreUrl = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Remove old publications of an app's models, never those in force or before; `rayline env gc` frees their bytes."""
    from deploy.config_board import ConfigBoard
    from deploy.config_history import read_history
    from deploy.model_choices import choices_before, in_force
    from runtime_env.store.protocol import ModelEntry
    from runtime_env.store.sweeping import sweep_models

    settings = kafka_settings(bootstrap_servers, kafka_config, state_dir)
    place = writable_store(store, state_dir)

    async def used() -> list[ModelEntry]:
        async with ConfigBoard(settings) as board:
            now = in_force(board, app).choices
            before = choices_before(await read_history(settings, board), app, now) or {}
        return [
            ModelEntry(app, name, choice.publication, choice.digest)
            for choices in (now, before)
            for name, choice in choices.items()
        ]

    gone = sweep_models(place, app, keep=keep, in_use=asyncio.run(used()), dry_run=dry_run)
    names = [f"{entry.name}@{entry.counter}" for entry in gone]
    show(
        output, {"app": app, "gone": names, "dry_run": dry_run}, f"{len(names)} publications {'would go' if dry_run else 'gone'}"
    )


def _chosen(place: Store, app: str, models: list[str]) -> dict[str, ModelChoice | None]:
    """What `MODEL@NUMBER` name; None: the bundle's own. Raises NotInStore, ConfigError."""
    from rayline.models import ModelChoice
    from runtime_env.store import resolve_model

    entries: list[ModelEntry] = place.model_entries()
    chosen: dict[str, ModelChoice | None] = {}
    for text in models:
        name, _, number = text.partition("@")
        if number == BUNDLED:
            chosen[name] = None
            continue
        if number and not number.isdecimal():
            raise ConfigError(f"{text!r}: give MODEL, MODEL@NUMBER or MODEL@{BUNDLED}; `rayline model list {app}` shows numbers")
        entry = resolve_model(entries, app, name, int(number) if number else None, place.url)
        chosen[name] = ModelChoice(entry.counter, entry.digest)
    return chosen
