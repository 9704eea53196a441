"""The console as an ASGI application, and serving it."""

from __future__ import annotations

import html
import time
from collections.abc import Collection
from typing import Final
from urllib.parse import parse_qs

import uvicorn
from fastapi import FastAPI
from nicegui import Client, ui
from nicegui import app as pages
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from deploy.console.access import SESSION_COOKIE, SESSION_SECONDS
from deploy.console.frame import Console, frame
from deploy.console.guard import LOGIN_PATH, LOGOUT_PATH, MAX_BODY_BYTES, Guard
from deploy.console.pages.apps import app_page, apps
from deploy.console.pages.config import config
from deploy.console.pages.dead_letters import dead_letters
from deploy.console.pages.events import events
from deploy.console.pages.jobs import jobs
from deploy.console.pages.nodes import nodes
from deploy.console.pages.overview import overview
from deploy.console.theme import login_page

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_RECONNECT_SECONDS: Final = 10.0
_HISTORY_MESSAGES: Final = 100
_MIN_GZIP_BYTES: Final = 1_000
_ICON: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><defs><linearGradient id="a" x2="1" y2="1">'
    '<stop stop-color="#5b7cfa"/><stop offset=".6" stop-color="#c561e0"/><stop offset="1" stop-color="#f0ac3c"/>'
    '</linearGradient></defs><rect width="16" height="16" rx="4.5" fill="url(#a)"/></svg>'
)


def build(console: Console, *, names: Collection[str], far: bool = False) -> FastAPI:
    """The whole console; once in a process, since NiceGUI's pages are the process's own. `far`: answers are compressed."""
    web = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    _add_login(web, console)
    _add_pages(console)
    pages.config.quasar_config["brand"] |= {
        "primary": "#4f6df5",
        "positive": "#12a37a",
        "negative": "#d6303a",
        "warning": "#a86400",
    }
    ui.run_with(
        web,
        title="Rayline",
        favicon=_ICON,
        dark=None,
        tailwind=False,
        reconnect_timeout=_RECONNECT_SECONDS,
        message_history_length=_HISTORY_MESSAGES,
        gzip_middleware_factory=None,
        binding_refresh_interval=1.0,
        show_welcome_message=False,
    )
    # Polling would be a second, older way in, with requests that change things.
    pages.config.socket_io_js_transports = ["websocket"]
    web.add_middleware(Guard, access=console.access, names=names)
    if far:
        web.add_middleware(GZipMiddleware, minimum_size=_MIN_GZIP_BYTES)
    return web


def server(web: FastAPI) -> uvicorn.Server:
    """Serves until it is told to end; its own log lines stay at warnings."""
    settings = uvicorn.Config(web, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=2)
    return uvicorn.Server(settings)


def viewers() -> int:
    """Pages that a browser has open now."""
    return sum(client.has_socket_connection for client in Client.instances.values())


def _add_pages(console: Console) -> None:
    @ui.page("/")
    def _overview(request: Request) -> None:
        with frame(console, request, "/") as view:
            overview(view)

    @ui.page("/nodes")
    def _nodes(request: Request) -> None:
        with frame(console, request, "/nodes") as view:
            nodes(view)

    @ui.page("/apps")
    def _apps(request: Request) -> None:
        with frame(console, request, "/apps") as view:
            apps(view)

    @ui.page("/apps/{name}")
    def _app(request: Request, name: str) -> None:
        with frame(console, request, "/apps") as view:
            app_page(view, name)

    @ui.page("/jobs")
    def _jobs(request: Request, app: str | None = None, job: str | None = None) -> None:
        with frame(console, request, "/jobs") as view:
            jobs(view, app, job)

    @ui.page("/dead-letters")
    def _dead_letters(request: Request, app: str | None = None) -> None:
        with frame(console, request, "/dead-letters") as view:
            dead_letters(view, app)

    @ui.page("/config")
    def _config(request: Request) -> None:
        with frame(console, request, "/config") as view:
            config(view)

    @ui.page("/events")
    def _events(request: Request) -> None:
        with frame(console, request, "/events") as view:
            events(view)


def _add_login(web: FastAPI, console: Console) -> None:
    access = console.access

    def page(request: Request, message: str = "", status: int = 200) -> HTMLResponse:
        note = f'<p class="bad" role="alert">{html.escape(message)}</p>' if message else "<p>A token allows changes.</p>"
        if not access.writable:
            note = '<p>This console was started without a token: it is read-only. <a href="/">Back</a></p>'
        disabled = "" if access.writable else " disabled"
        token = access.form_token(request.cookies.get(SESSION_COOKIE))
        return HTMLResponse(login_page(message=note, form=token, disabled=disabled), status_code=status)

    @web.get(LOGIN_PATH)
    async def show_login(request: Request) -> Response:
        return page(request)

    @web.post(LOGIN_PATH)
    async def login(request: Request) -> Response:
        form = await _form(request)
        if not access.form_is_ours(form.get("form", ""), request.cookies.get(SESSION_COOKIE)):
            return page(request, "That form is no longer valid: try again.", 403)
        now = time.monotonic()
        if access.guessed_too_often(now):
            return page(request, "Too many wrong tokens came lately: wait half a minute.", 429)
        session = access.login(form.get("token", ""), form.get("name", ""), now)
        if session is None:
            return page(request, "That is not the token.", 401)
        answer = RedirectResponse("/", status_code=303)
        secure = request.url.scheme == "https"
        answer.set_cookie(
            SESSION_COOKIE, session.key, max_age=SESSION_SECONDS, httponly=True, samesite="strict", secure=secure, path="/"
        )
        return answer

    @web.post(LOGOUT_PATH)
    async def logout(request: Request) -> Response:
        key = request.cookies.get(SESSION_COOKIE)
        form = await _form(request)
        if not access.form_is_ours(form.get("form", ""), key):
            return page(request, "That form is no longer valid: try again.", 403)
        access.logout(key)
        answer = RedirectResponse("/", status_code=303)
        answer.delete_cookie(SESSION_COOKIE, path="/")
        return answer


async def _form(request: Request) -> dict[str, str]:
    """A small form's first values; one that is too large was refused by its length before."""
    body = await request.body()
    fields = parse_qs(body[:MAX_BODY_BYTES].decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=10)
    return {name: values[0] for name, values in fields.items()}
