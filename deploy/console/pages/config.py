"""The config editor: a form made from the declared settings, what a change would do, and what each process said of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from nicegui import ui

from deploy.config_board import value_text
from deploy.config_change import Effect, read_request
from deploy.config_flow import Care
from deploy.console import parts, shown
from deploy.console.desk import ConfigLook
from deploy.console.frame import View, told
from deploy.console.pages.config_care import Carefulness, Progress, show_report
from rayline.config import SETTINGS, Kind, Scope, Setting
from rayline.config.declared import describe
from rayline.config.record import form
from rayline.errors import ConfigError

_HISTORY: Final = 40
_CHANGES: Final[list[dict[str, Any]]] = [
    {"name": "time", "label": "When", "field": "time", "align": "left"},
    {"name": "key", "label": "Key", "field": "key", "align": "left"},
    {"name": "value", "label": "Value", "field": "value", "align": "left"},
    {"name": "author", "label": "By", "field": "author", "align": "left"},
    {"name": "outcome", "label": "Came of it", "field": "outcome", "align": "left", "style": "white-space:normal"},
]
_EFFECTS: Final[list[dict[str, Any]]] = [
    {"name": "process", "label": "Process", "field": "process", "align": "left"},
    {"name": "before", "label": "Now", "field": "before", "align": "left"},
    {"name": "after", "label": "In force then", "field": "after", "align": "left"},
    {"name": "verdict", "label": "", "field": "verdict", "align": "left"},
    {"name": "reason", "label": "Why", "field": "reason", "align": "left", "style": "white-space:normal"},
]


def config(view: View) -> None:
    """Build the page."""
    parts.text("Config", "rl-h1", "h1")
    _Editor(view)


class _Editor:
    """Owns the page's elements and what was last read of the settings."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._look: ConfigLook | None = None
        self._value: Any = None
        self._carefulness: Carefulness | None = None
        with parts.box("rl-grid rl-two"):
            with parts.card("Change a setting"):
                self._form()
            with parts.card("What it would do, and what it did"):
                self._result = parts.box("rl-grid")
                with self._result:
                    parts.empty(
                        "Nothing was asked yet", "A dry run says who would change, from what to what; nothing is written."
                    )
        with parts.box("rl-grid rl-two"):
            with parts.card("Set now"):
                self._set = parts.box("rl-grid")
            with parts.card("Processes"):
                self._processes = parts.box("rl-grid")
        with parts.card("Log of changes"):
            self._changes = ui.table(columns=_CHANGES, rows=[], row_key="version", pagination={"rowsPerPage": 0})
            self._changes.props("flat hide-bottom dense virtual-scroll").classes("rl-table short")
        self._choose()
        ui.timer(0.05, self._read, once=True)

    def _form(self) -> None:
        # `rayline model` sets those of kind MODELS: nobody types digests.
        names = sorted(name for name, setting in SETTINGS.items() if setting.kind is not Kind.MODELS)
        self._setting = (
            ui.select(
                names,
                value=names[0],
                label="Setting",
                with_input=True,
                on_change=self._choose,
            )
            .props("dense outlined")
            .classes("rl-search")
        )
        self._about = parts.box("rl-grid").style("gap:.3rem")
        self._scope = ui.select([], label="For whom", on_change=self._choose_place).props("dense outlined")
        self._places = parts.box("rl-tools")
        self._input = parts.box("")
        self._buttons: list[ui.button] = []
        if self._view.session is not None:
            self._carefulness = Carefulness(self._processes_concerned)
        with parts.box("rl-tools"):
            ui.button("Dry run", on_click=self._dry_run).props("outline")
            if self._view.session is not None:
                self._buttons = [
                    ui.button("Set it", on_click=lambda: self._write(delete=False)).props("unelevated"),
                    ui.button("Delete the key", on_click=lambda: self._write(delete=True)).props("flat color=negative"),
                ]
            elif self._view.console.access.writable:
                parts.text("Log in to change anything; a dry run is free.", "rl-sub")
            else:
                parts.text("This console is read-only: it was given no token. A dry run is free.", "rl-sub")

    @property
    def _declared(self) -> Setting:
        return SETTINGS[str(self._setting.value)]

    def _choose(self) -> None:
        setting = self._declared
        said = describe(setting)
        self._about.clear()
        with self._about:
            parts.text(setting.description, "rl-sub")
            parts.facts(
                [
                    ("Right is", said["right"]),
                    ("Default", value_text(setting.default)),
                    ("Counts", setting.effect),
                    ("Read by", ", ".join(said["processes"])),
                ]
            )
        scopes = {scope.value: form(scope).replace("<setting>", setting.name) for scope in setting.scopes}
        self._scope.set_options(scopes, value=next(iter(scopes)))
        self._choose_place()
        self._input.clear()
        self._value = setting.default
        with self._input:
            self._field(setting)

    def _field(self, setting: Setting) -> None:
        def take(event: Any) -> None:
            self._value = event.value

        match setting.kind:
            case Kind.FLAG:
                ui.switch("on", value=bool(setting.default), on_change=take)
            case Kind.CHOICE:
                ui.select(list(setting.choices), value=setting.default, label="Value", on_change=take).props("dense outlined")
            case Kind.INTEGER | Kind.NUMBER:
                label = f"Value, {setting.unit}" if setting.unit else "Value"
                number = ui.number(label, value=setting.default, min=setting.minimum, max=setting.maximum, on_change=take)
                number.props("dense outlined")
            case Kind.VERSIONS:
                ui.input("Value, such as 1.4.0=0.1,1.3.0=1", on_change=take).props("dense outlined").classes("rl-search")

    def _choose_place(self) -> None:
        now = self._view.console.source.snapshot()
        self._places.clear()
        self._place: list[ui.select] = []
        scope = Scope(str(self._scope.value))
        names = {
            Scope.GLOBAL: [],
            Scope.APP: [("App", [app.app for app in now.apps])],
            Scope.CLUSTER: [("Cluster", [cluster.cluster for cluster in now.clusters])],
            Scope.NODE: [("Node", [node.key for node in now.nodes if node.state != "gone"])],
        }[scope]
        with self._places:
            for label, known in names:
                select = ui.select(known, value=known[0] if known else None, label=label, with_input=True).props("dense outlined")
                self._place.append(select)

    def _key(self) -> str:
        chosen = [str(select.value) for select in self._place]
        if any(value in ("None", "") for value in chosen):
            raise ConfigError("nothing of that kind is there to be set")
        return "/".join([str(self._scope.value), *chosen, self._declared.name])

    async def _dry_run(self) -> None:
        with told():
            change = read_request(self._key(), json.dumps(self._value))
            effects = await self._view.console.desk.preview(change)
            now = (self._look.values if self._look is not None else {}).get(str(change.key), "not set")
            self._result.clear()
            with self._result:
                self._diff(str(change.key), now, value_text(change.value))
                _effects(effects)

    def _processes_concerned(self) -> list[str]:
        """Who would answer a record under the chosen key, as far as was read."""
        if self._look is None:
            return []
        try:
            key = read_request(self._key(), None).key
        except ConfigError:
            return []
        return [name for name, known in self._look.presences.items() if key.concerns(known.identity, self._declared)]

    async def _write(self, *, delete: bool) -> None:
        author = self._view.author()
        if author is None:
            return
        with told():
            change = read_request(self._key(), None if delete else json.dumps(self._value))
            care = Care() if delete or self._carefulness is None else self._carefulness.chosen()
            before = (self._look.values if self._look is not None else {}).get(str(change.key), "not set")
            self._result.clear()
            with self._result:
                self._diff(str(change.key), before, "deleted" if delete else value_text(change.value))
                progress = Progress(care)
            self._enable(False)
            try:
                report = await self._view.console.desk.change(
                    change, author=author, care=care, say=progress.say, on_look=progress.look
                )
            finally:
                # The browser may have gone meanwhile; the change went on without it.
                if not self._result.is_deleted:
                    progress.end()
                    self._enable(True)
            if not self._result.is_deleted:
                with self._result:
                    show_report(report)
                    parts.text(f"What each process said of version {report.outcome.version}", "rl-sub")
                    _effects(report.outcome.effects, written=True)
                await self._read()

    def _enable(self, able: bool) -> None:
        for button in self._buttons:
            button.set_enabled(able)

    def _diff(self, key: str, before: str, after: str) -> None:
        parts.text(key, "rl-sub")
        with parts.box("rl-diff"):
            parts.text(before)
            parts.text("→", "rl-sub")
            parts.text(after)

    async def _read(self) -> None:
        with told():
            look = self._look = await self._view.console.desk.config()
            self._set.clear()
            with self._set:
                if look.values:
                    parts.facts(sorted(look.values.items()))
                else:
                    parts.empty("Nothing is set", "Every process runs on its manifest and the defaults.")
            self._processes.clear()
            with self._processes:
                if not look.presences:
                    parts.empty("No process tells of itself", "Lanes, agents, gateways, resources and keepers do, when they run.")
                for name, presence in look.presences.items():
                    with parts.box("rl-row"):
                        parts.text(name, "rl-sub")
                        parts.text(
                            presence.problem or f"has read up to {presence.seen}",
                            "rl-sub" + (" rl-bad" if presence.problem else ""),
                        )
            self._changes.rows[:] = [
                {
                    "version": entry.version,
                    "time": shown.moment(entry.at_ms),
                    "key": entry.key,
                    "value": shown.readable(entry.value.encode(), 80) if entry.value is not None else "deleted",
                    "author": entry.author or "another client",
                    "outcome": f"refused: {entry.refusal}"
                    if entry.refusal
                    else ", ".join(one["outcome"] for one in entry.outcomes),
                }
                for entry in list(look.history)[-_HISTORY:][::-1]
            ]
            self._changes.update()


def _effects(effects: Sequence[Effect], *, written: bool = False) -> None:
    """What a change would do, or what became of one: then nobody tells what was before."""
    if not effects:
        parts.text("No process that lives is concerned.", "rl-sub")
        return
    rows = [
        {
            "process": effect.process,
            "before": value_text(effect.before),
            "after": value_text(effect.after),
            "verdict": effect.verdict,
            "reason": effect.reason or "",
        }
        for effect in effects
    ]
    columns = [column for column in _EFFECTS if not written or column["name"] != "before"]
    table = ui.table(columns=columns, rows=rows, row_key="process", pagination={"rowsPerPage": 0})
    table.props("flat hide-bottom dense virtual-scroll").classes("rl-table short")
