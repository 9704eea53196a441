"""What stands before every page: names it answers to, where a request comes from, what a browser may load and run."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Collection
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deploy.console.access import SESSION_COOKIE, Access

LOGIN_PATH: Final = "/login"
LOGOUT_PATH: Final = "/logout"
MAX_BODY_BYTES: Final = 4_096
_SAFE: Final = frozenset({"GET", "HEAD"})
_FORMS: Final = frozenset({LOGIN_PATH, LOGOUT_PATH})
_SCRIPT: Final = re.compile(rb"<script\b")
_FOREIGN_SITE: Final = frozenset({"cross-site", "same-site"})


class Guard:
    """An ASGI middleware. Owns no state; is given the names that the console answers to, and who may read.

    Another host name than ours (a rebound DNS name) is 403, whatever is asked. So is anything but GET that is not one of our
    two forms, a form or a socket from another origin, and any request of another site that is no plain navigation. Every page
    gets a Content-Security-Policy whose scripts are those with this response's nonce, and that connects to nowhere else.
    """

    def __init__(self, app: ASGIApp, *, access: Access, names: Collection[str]) -> None:
        self._app = app
        self._access = access
        self._names = frozenset(name.lower() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send if scope["type"] == "websocket" else _Hardened(send))
        elif scope["type"] == "websocket":
            await _refuse_socket(receive, send)
        else:
            await refusal(scope, receive, _Hardened(send))

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if _host_name(headers.get("host", "")) not in self._names:
            return _no("this console does not answer to that name; --allow-host adds one")
        path, socket = scope["path"], scope["type"] == "websocket"
        unsafe = socket or scope["method"] not in _SAFE
        origin = headers.get("origin")
        if unsafe and not socket and path not in _FORMS:
            return _no("nothing here takes that method", 405 if origin is None else 403)
        # A proxy in front may speak TLS where we do not: the host decides, and it is one of ours.
        if unsafe and origin not in (f"http://{headers['host']}", f"https://{headers['host']}"):
            return _no("that came from another place than this console's own pages")
        if headers.get("sec-fetch-site") in _FOREIGN_SITE and headers.get("sec-fetch-mode") != "navigate":
            return _no("another site's page asked for that")
        if unsafe and not socket and not _small(headers.get("content-length")):
            return _no("that is more than a form of this console sends", 413)
        known = self._access.session(session_cookie(headers), time.monotonic()) is not None
        if self._access.read_needs_login and path != LOGIN_PATH and not known:
            if not unsafe and "text/html" in headers.get("accept", ""):
                return RedirectResponse(LOGIN_PATH, status_code=303)
            return _no("log in first", 401)
        return None


class _Hardened:
    """Sends a response on with our headers; a page's scripts get this response's nonce."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._page = bytearray()
        self._nonce = secrets.token_urlsafe(16)

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            self._set(headers)
            if headers.get("content-type", "").startswith("text/html"):
                self._start = message
                return
        elif message["type"] == "http.response.body" and self._start is not None:
            self._page += message.get("body", b"")
            if message.get("more_body"):
                return
            page = _SCRIPT.sub(b'<script nonce="' + self._nonce.encode() + b'"', bytes(self._page))
            start, self._start = self._start, None
            MutableHeaders(scope=start)["content-length"] = str(len(page))
            await self._send(start)
            message = {"type": "http.response.body", "body": page}
        await self._send(message)

    def _set(self, headers: MutableHeaders) -> None:
        # Vue compiles its templates in the browser, which a browser counts as eval; text from topics never becomes a template.
        headers["content-security-policy"] = (
            f"default-src 'none'; script-src 'self' 'nonce-{self._nonce}' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
            "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; base-uri 'none'; "
            "form-action 'self'; frame-ancestors 'none'"
        )
        headers["x-content-type-options"] = "nosniff"
        headers["x-frame-options"] = "DENY"
        # With "no-referrer" a browser calls the origin of our own forms null.
        headers["referrer-policy"] = "same-origin"
        headers["cross-origin-opener-policy"] = "same-origin"
        headers["cross-origin-resource-policy"] = "same-origin"
        headers["permissions-policy"] = "camera=(), geolocation=(), microphone=()"
        if "cache-control" not in headers:
            headers["cache-control"] = "no-store"


def session_cookie(headers: Headers) -> str | None:
    """The session's key out of a request's cookies."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(SESSION_COOKIE)
    except CookieError:
        return None
    return found.value if found is not None else None


def _host_name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _small(content_length: str | None) -> bool:
    return content_length is not None and content_length.isdecimal() and int(content_length) <= MAX_BODY_BYTES


def _no(text: str, status: int = 403) -> Response:
    return PlainTextResponse(text + "\n", status_code=status)


async def _refuse_socket(receive: Receive, send: Send) -> None:
    """Closing before accepting is answered with 403."""
    await receive()
    await send({"type": "websocket.close", "code": 1008})
