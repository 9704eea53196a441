"""Whoever has no token changes nothing: by any address and method, and by any event of any page's elements."""

from __future__ import annotations

import http.client
import re
from collections.abc import Callable
from typing import Any

import pytest

from deploy.console.guard import LOGIN_PATH, LOGOUT_PATH
from tests.integration.console.browser import Site
from tests.integration.console.test_pages import PAGES, log_in, open_page

pytestmark = pytest.mark.integration

Sites = Callable[[str], Site]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND")
# 404: there is nothing that takes that method.
REFUSED = {401, 403, 404, 405}
# What a page may ask for on its own; everything else acts.
READS = {"find"}
ACTS = {"change", "replay", "reveal", "cordon", "drain"}
UPGRADE = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "x" * 22 + "=="}


def addresses(site: Site) -> set[str]:
    """Every route of the application, with something in the place of each parameter, and something below each."""
    found = {re.sub(r"\{[^}]*\}", "x", path) for path, _ in site.say("routes")}
    assert {LOGIN_PATH, LOGOUT_PATH, "/", "/config", "/apps/x", "/_nicegui_ws"} <= found
    return found | {f"{path.rstrip('/')}/x" for path in found}


def ask(site: Site, method: str, path: str, **headers: str) -> tuple[int, str | None]:
    """Status, and where one is sent to."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=20)
    try:
        connection.request(method, path, headers={"Host": f"127.0.0.1:{site.port}", "Content-Length": "0", **headers})
        answer = connection.getresponse()
        return answer.status, answer.getheader("Location")
    finally:
        connection.close()


def test_no_address_takes_anything_but_questions_from_who_has_no_session(site: Sites) -> None:
    here = site("busy")
    before = here.say("")
    origin = f"http://127.0.0.1:{here.port}"
    for path in addresses(here):
        for method in METHODS[2:]:
            for headers in ({}, {"Origin": origin}, {"Origin": origin, "Content-Type": "application/x-www-form-urlencoded"}):
                assert ask(here, method, path, **headers)[0] in REFUSED, (method, path, headers)
    assert here.say("") == before


def test_where_others_may_ask_nothing_but_the_form_answers_who_has_no_session(site: Sites) -> None:
    here = site("far")
    origin = f"http://127.0.0.1:{here.port}"
    for path in addresses(here) | {LOGIN_PATH}:
        for method in METHODS:
            status, sent_to = ask(here, method, path, Origin=origin, Accept="text/html")
            if path == LOGIN_PATH and method in METHODS[:2]:
                assert status == (200 if method == "GET" else 404)
            else:
                assert status in REFUSED or (status, sent_to) == (303, LOGIN_PATH), (method, path)
            if path != LOGIN_PATH:
                assert ask(here, method, path, Origin=origin, Accept="application/json")[0] in REFUSED, (method, path)
    assert ask(here, "GET", "/_nicegui_ws/socket.io/?EIO=4&transport=websocket", Origin=origin, **UPGRADE)[0] == 403


def acted(browser: Any, here: Site, *, logged_in: bool) -> set[str]:
    """What was done when all events of all pages were set off."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    if logged_in:
        log_in(page, here)
    for path in PAGES:
        open_page(page, here.url + path)
        page.wait_for_timeout(300)
        here.say("poke")
    context.close()
    return {one[0] for one in here.say("")}


def test_no_event_of_any_element_acts_for_who_has_no_session(browser: Any, site: Sites) -> None:
    assert acted(browser, site("poked"), logged_in=False) <= READS


def test_the_same_events_act_for_who_has_one(browser: Any, site: Sites) -> None:
    assert acted(browser, site("poked-in"), logged_in=True) >= ACTS
