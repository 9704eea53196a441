"""What stands before every page: names, origins, methods, headers, nonces."""

from __future__ import annotations

import re
from time import monotonic
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from deploy.console.access import SESSION_COOKIE, Access
from deploy.console.guard import MAX_BODY_BYTES, Guard

HOST = "localhost:8440"
TOKEN = "a-token-of-enough-length"
PAGE = b"<html><script>ours()</script><script type=module>ours()</script>&lt;script>not ours&lt;/script></html>"


async def _page(scope: Scope, receive: Receive, send: Send) -> None:
    """Everything that is let through is a page, or an open socket."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html; charset=utf-8")]})
    await send({"type": "http.response.body", "body": PAGE[:20], "more_body": True})
    await send({"type": "http.response.body", "body": PAGE[20:]})


class Asked:
    """One request through the guard."""

    def __init__(self, access: Access) -> None:
        self._guard = Guard(_page, access=access, names=["localhost", "127.0.0.1"])

    async def __call__(self, path: str = "/", *, method: str = "GET", kind: str = "http", **headers: str) -> list[Message]:
        sent: list[Message] = []
        given = {"host": HOST, **{name.replace("_", "-"): value for name, value in headers.items()}}
        scope: dict[str, Any] = {
            "type": kind,
            "path": path,
            "method": method,
            "scheme": "ws" if kind == "websocket" else "http",
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "query_string": b"",
        }

        async def receive() -> Message:
            return {"type": "websocket.connect"} if kind == "websocket" else {"type": "http.request"}

        async def send(message: Message) -> None:
            sent.append(message)

        await self._guard(scope, receive, send)
        return sent

    async def status(self, path: str = "/", **more: Any) -> int:
        return int((await self(path, **more))[0]["status"])


@pytest.fixture
def ask() -> Asked:
    return Asked(Access(token=TOKEN, read_needs_login=False))


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io:8440", "", "[::1", "169.254.169.254"]
)
async def test_another_host_name_is_refused_for_pages_and_sockets(ask: Asked, host: str) -> None:
    assert await ask.status(host=host) == 403
    sent = await ask("/_nicegui_ws/socket.io/", kind="websocket", host=host, origin=f"http://{host}")
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:9999", "http://localhost:8440.evil.example", None]
)
async def test_forms_and_sockets_of_another_origin_are_refused(ask: Asked, origin: str | None) -> None:
    given = {} if origin is None else {"origin": origin}
    assert await ask.status("/login", method="POST", content_length="9", **given) == 403
    assert (await ask("/_nicegui_ws/socket.io/", kind="websocket", **given))[0]["type"] == "websocket.close"


async def test_our_own_origin_passes(ask: Asked) -> None:
    assert await ask.status("/login", method="POST", content_length="9", origin=f"http://{HOST}") == 200
    assert (await ask("/_nicegui_ws/socket.io/", kind="websocket", origin=f"http://{HOST}"))[0]["type"] == "websocket.accept"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"])
@pytest.mark.parametrize("path", ["/", "/config", "/_nicegui/upload", "/_nicegui_ws/socket.io/"])
async def test_nothing_but_the_two_forms_takes_an_unsafe_method(ask: Asked, method: str, path: str) -> None:
    assert await ask.status(path, method=method, content_length="0", origin=f"http://{HOST}") == 403
    assert await ask.status(path, method=method) == 405


@pytest.mark.parametrize(
    ("length", "status"), [(str(MAX_BODY_BYTES), 200), (str(MAX_BODY_BYTES + 1), 413), ("-1", 413), ("", 413)]
)
async def test_a_form_may_be_so_large(ask: Asked, length: str, status: int) -> None:
    assert await ask.status("/login", method="POST", origin=f"http://{HOST}", content_length=length) == status


async def test_another_site_may_link_here_and_no_more(ask: Asked) -> None:
    assert await ask.status(sec_fetch_site="cross-site", sec_fetch_mode="navigate") == 200
    assert await ask.status(sec_fetch_site="cross-site", sec_fetch_mode="no-cors") == 403
    assert await ask.status(sec_fetch_site="same-site", sec_fetch_mode="cors") == 403


async def test_a_page_runs_only_scripts_with_its_own_nonce(ask: Asked) -> None:
    nonces = []
    for _ in range(2):
        start, body = await ask()
        headers = dict(start["headers"])
        found = re.search(r"script-src 'self' 'nonce-([^']+)'", headers[b"content-security-policy"].decode())
        assert found is not None
        nonces.append(found[1])
        assert body["body"].count(f'<script nonce="{found[1]}"'.encode()) == 2
        assert headers[b"content-length"] == str(len(body["body"])).encode()
        assert b"'unsafe-inline'" not in headers[b"content-security-policy"].split(b"script-src")[1].split(b";")[0]
        assert headers[b"x-frame-options"] == b"DENY"
        assert headers[b"cache-control"] == b"no-store"
    assert nonces[0] != nonces[1]


async def test_reading_needs_a_login_where_others_than_this_machine_can_ask() -> None:
    access = Access(token=TOKEN, read_needs_login=True)
    ask = Asked(access)
    assert await ask.status(accept="text/html") == 303
    assert await ask.status("/_nicegui/3/static/nicegui.js") == 401
    assert await ask.status("/logout", method="POST", origin=f"http://{HOST}", content_length="3") == 401
    closed = await ask("/_nicegui_ws/socket.io/", kind="websocket", origin=f"http://{HOST}")
    assert closed[0]["type"] == "websocket.close"
    assert await ask.status("/login") == 200
    session = access.login(TOKEN, "mara", monotonic())
    assert session is not None
    assert await ask.status("/nodes", cookie=f"{SESSION_COOKIE}={session.key}") == 200
    assert await ask.status("/nodes", cookie="made-up; ;;=") == 401
