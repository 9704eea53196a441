"""What others write into topics stays text, and other sites get nothing."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.console.browser import Site
from tests.integration.console.test_pages import log_in, open_page

pytestmark = pytest.mark.integration

Sites = Callable[[str], Site]


@pytest.mark.parametrize("path", ["/", "/nodes", "/apps", "/jobs?job=4711", "/dead-letters", "/config", "/events"])
def test_keys_headers_errors_and_names_stay_text(page: Any, site: Sites, path: str) -> None:
    here = site("hostile")
    log_in(page, here)
    open_page(page, here.url + path)
    page.wait_for_timeout(1500)
    if path == "/dead-letters":
        page.locator(".rl-open").first.click()
        page.get_by_role("button", name="Show it").click()
        page.wait_for_timeout(500)
    if path == "/apps":
        page.locator(".rl-app").first.click()
        page.wait_for_timeout(1500)
    shown = page.locator("body").inner_text()
    assert "onerror=" in shown or "onload=" in shown or path in ("/", "/config")
    assert page.evaluate("window.pwned") is None
    assert page.locator("img[src=x], svg[onload]").count() == 0
    assert "${window" not in shown or "49" not in shown.split("${window")[0][-12:]


def test_a_script_that_got_into_the_page_would_not_run(page: Any, site: Sites) -> None:
    open_page(page, site("busy").url)
    page.evaluate(
        """() => { const one = document.createElement('div');
        one.innerHTML = '<img src=x onerror="window.pwned=1">'; document.body.append(one); }"""
    )
    page.wait_for_timeout(500)
    assert page.evaluate("window.pwned") is None


def _ask(site: Site, method: str, path: str, **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        return connection.getresponse().status
    finally:
        connection.close()


def test_foreign_hosts_and_origins_get_403(site: Sites) -> None:
    here = site("busy")
    ours = f"127.0.0.1:{here.port}"
    assert _ask(here, "GET", "/", Host=ours) == 200
    for path in ("/", "/config", "/login", "/_nicegui_ws/socket.io/"):
        assert _ask(here, "GET", path, Host="rebound.example") == 403
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Key": "x" * 22 + "==",
    }
    assert (
        _ask(here, "GET", "/_nicegui_ws/socket.io/?EIO=4&transport=websocket", Host=ours, Origin="http://evil.example", **upgrade)
        == 403
    )
    assert _ask(here, "GET", "/_nicegui_ws/socket.io/?EIO=4&transport=websocket", Host=ours, **upgrade) == 403
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert _ask(here, method, "/login", Host=ours, Origin="http://evil.example") == 403
        assert _ask(here, method, "/config", Host=ours, Origin=f"http://{ours}") == 403
    assert _ask(here, "POST", "/login", Host=ours, Origin=f"http://{ours}", Content_Length="0") == 403
    assert _ask(here, "GET", "/openapi.json", Host=ours) == 404
