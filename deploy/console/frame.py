"""What stands around every page: navigation, the state of the platform in one word, theme, who is logged in; and its pulse."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from nicegui import ui
from starlette.requests import Request

from deploy.console import parts
from deploy.console.access import SESSION_COOKIE, Access, Session
from deploy.console.desk import Desk, Source
from deploy.console.guard import LOGIN_PATH
from deploy.console.theme import keys, style_sheet
from deploy.observation.snapshot import Snapshot
from rayline.errors import RaylineError
from rayline.stalls import StallKind

THEME_COOKIE: Final = "rayline_theme"
STALE_SECONDS: Final = 10.0
_PULSE_SECONDS: Final = 0.5
_SILENCE_SECONDS: Final = 5.0
_MOST_TROUBLES: Final = 5
# Stands until the page itself is built, so that something is seen at once.
_BOOT: Final = '<div id="rl-boot" aria-hidden="true"><div class="rl-mark"></div>Rayline</div>'
_OLD: Final = ("No answer", "Stale")
_PAGES: Final = (
    ("/", "Overview"),
    ("/nodes", "Clusters & nodes"),
    ("/apps", "Apps"),
    ("/jobs", "Jobs"),
    ("/dead-letters", "Dead letters"),
    ("/config", "Config"),
    ("/events", "Events"),
)
_NEXT_THEME: Final = {None: True, True: False, False: None}
_THEMES: Final[dict[str, bool | None]] = {"dark": True, "light": False}


@dataclass(slots=True)
class Console:
    """What all pages share. Owns nothing; `now_ms` is the wall clock, given so that tests can hold it."""

    source: Source
    desk: Desk
    access: Access
    now_ms: Callable[[], int] = lambda: round(time.time() * 1000)


class View:
    """One page in one browser. Owns its pulse: `live` callbacks run at each new snapshot, as long as the browser is there."""

    def __init__(self, console: Console, session_key: str | None) -> None:
        self.console = console
        self._session_key = session_key
        self._callbacks: list[Callable[[Snapshot], None]] = []
        self._seen = -1

    @property
    def session(self) -> Session | None:
        """Asked anew at each action: a session may have ended since the page was built."""
        return self.console.access.session(self._session_key, time.monotonic())

    def live(self, callback: Callable[[Snapshot], None]) -> None:
        """Call with the present one, and at each new one."""
        callback(self.console.source.snapshot())
        self._callbacks.append(callback)

    def author(self) -> str | None:
        """Who acts; None, with a word to them, when nobody may."""
        session = self.session
        if session is None:
            ui.notify("Log in to change anything.", type="warning")
            return None
        return session.name

    def beat(self) -> None:
        version = self.console.source.version
        if version == self._seen:
            return
        self._seen = version
        now = self.console.source.snapshot()
        for callback in self._callbacks:
            callback(now)


@contextmanager
def frame(console: Console, request: Request, path: str) -> Iterator[View]:
    """The page's surroundings; what is built inside stands in its main part."""
    view = View(console, request.cookies.get(SESSION_COOKIE))
    ui.add_css(style_sheet())
    ui.add_head_html(keys())
    ui.add_body_html(_BOOT)
    dark = ui.dark_mode(_THEMES.get(request.cookies.get(THEME_COOKIE, "")))
    skip = parts.box("rl-skip", "a")
    skip.props["href"] = "#main"
    with skip:
        parts.text("To the content", tag="span")
    with parts.box("rl-top", "header"):
        with parts.box("rl-brand"):
            parts.box("rl-mark")
            parts.text("Rayline", tag="span")
        with parts.box("rl-nav", "nav") as navigation:
            navigation.props["aria-label"] = "Pages"
            for target, name in _PAGES:
                link = parts.box("", "a")
                link.props["href"] = target
                if target == path or (target != "/" and path.startswith(target)):
                    link.props["aria-current"] = "page"
                with link:
                    parts.text(name, tag="span")
        with parts.box("rl-side"):
            _side(view, dark)
    with parts.box("rl-main", "main") as main:
        main.props["id"] = "main"
        place = parts.box("rl-grid")
        with parts.box("rl-body") as body:
            yield view
    _tell_troubles(view, place, body)
    ui.timer(_PULSE_SECONDS, view.beat)


def _side(view: View, dark: ui.dark_mode) -> None:
    dot = parts.box("rl-dot")
    word = parts.Field("", "span")
    where = parts.Field("rl-where", "span")

    def show(now: Snapshot) -> None:
        tone, said = condition(now, view.console.now_ms())
        dot.props["data-tone"] = tone
        dot.update()
        word.show(said)
        where.show(now.broker)

    view.live(show)

    def turn() -> None:
        dark.value = _NEXT_THEME[dark.value]
        name = {True: "dark", False: "light", None: "auto"}[dark.value]
        ui.run_javascript(f"document.cookie = '{THEME_COOKIE}={name}; path=/; SameSite=Strict; max-age=31536000'")
        ui.notify(f"Theme: {name}", timeout=900)

    ui.button(icon="contrast", on_click=turn).props('flat round dense aria-label="Theme: dark, light or as the system"').classes(
        "text-inherit"
    )
    session = view.session
    if session is not None:
        parts.text(session.name, "rl-where", "span")
        form = parts.box("", "form")
        form.props.update({"method": "post", "action": "/logout"})
        with form:
            hidden = parts.box("", "input")
            hidden.props.update({"type": "hidden", "name": "form", "value": view.console.access.form_token(session.key)})
            ui.button("Log out").props("flat dense no-caps type=submit")
    elif view.console.access.writable:
        ui.button("Log in", on_click=lambda: ui.navigate.to(LOGIN_PATH)).props("flat dense no-caps")
    else:
        parts.text("read-only", tag="span")


def _tell_troubles(view: View, place: ui.element, body: ui.element) -> None:
    shown: list[tuple[str, str, str]] | None = None

    def show(now: Snapshot) -> None:
        nonlocal shown
        said = troubles(now, view.console.now_ms())
        if said == shown:
            return
        shown = said
        old = any(word in _OLD for word, _, _ in said)
        body.classes(**({"add": "rl-stale"} if old else {"remove": "rl-stale"}))
        place.clear()
        place.set_visibility(bool(said))
        with place:
            for word, what, tone in said[:_MOST_TROUBLES]:
                parts.notice(word, what, tone)
            if len(said) > _MOST_TROUBLES:
                parts.text(f"and {len(said) - _MOST_TROUBLES} more: `rayline status` names all", "rl-sub")

    view.live(show)
    # Silence brings no new snapshot, so that it has to be looked for.
    ui.timer(_SILENCE_SECONDS, lambda: show(view.console.source.snapshot()))


def troubles(now: Snapshot, now_ms: int) -> list[tuple[str, str, str]]:
    """What a person should know before anything else: a word, a sentence, a tone."""
    said = []
    if not now.answering:
        said.append(("No answer", f"Kafka at {now.broker} does not answer: what stands here is the last that was known.", "bad"))
    elif now_ms - now.at_ms > STALE_SECONDS * 1000:
        said.append(("Stale", "Nothing new was heard for more than ten seconds: what stands here is old.", "bad"))
    elif not now.caught_up:
        said.append(("Reading", "The topics are still being read: figures are not complete yet.", "accent"))
    # The two kinds that are said in words of their own.
    own = {StallKind.SOURCE} if now.answering else {StallKind.SOURCE, StallKind.BROKER}
    said += [("Stalled", stall.text, "bad") for stall in now.stalls if stall.kind not in own]
    said += [
        ("Source", f"{source.source}: {source.problem}", "warn") for source in now.sources if source.problem and now.answering
    ]
    return said


def condition(now: Snapshot, now_ms: int) -> tuple[str, str]:
    """Tone and word for the whole platform."""
    if not now.answering:
        return "bad", "no answer"
    if now_ms - now.at_ms > STALE_SECONDS * 1000:
        return "bad", "stale"
    if now.stalls:
        return "bad", "stalled"
    return ("good", "live") if not any(source.problem for source in now.sources) else ("warn", "look here")


@contextmanager
def told() -> Iterator[None]:
    """What goes wrong in an action is said to the person who asked for it."""
    try:
        yield
    except (RaylineError, TimeoutError) as error:
        ui.notify(str(error) or "That took too long; is the broker up?", type="negative", multi_line=True, timeout=10_000)
