"""The console in real Chromium: it is alive, asks nobody else, stays usable at every size, and says what is broken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.console.browser import TOKEN, Site

pytestmark = pytest.mark.integration

PAGES = ("/", "/nodes", "/apps", "/apps/ocr-features", "/jobs?app=ocr-features&job=4711", "/dead-letters", "/config", "/events")
Sites = Callable[[str], Site]


def open_page(page: Any, url: str) -> None:
    """Open and wait until the page stands and its socket is open."""
    page.goto(url)
    page.locator("main.rl-main").wait_for()
    page.wait_for_function("window.socket?.connected")


def log_in(page: Any, site: Site, token: str = TOKEN) -> None:
    page.goto(f"{site.url}/login")
    page.fill("input[name=name]", "mara")
    page.fill("input[name=token]", token)
    with page.expect_navigation():
        page.click("button")


@pytest.mark.parametrize("path", PAGES)
def test_a_page_asks_no_address_but_its_own_and_breaks_no_rule_of_its_own(page: Any, site: Sites, path: str) -> None:
    here = site("busy")
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    open_page(page, here.url + path)
    page.wait_for_timeout(700)
    ours = (f"http://127.0.0.1:{here.port}/", f"ws://127.0.0.1:{here.port}/", "data:", "blob:")
    assert [url for url in asked if not url.startswith(ours)] == []
    assert len(asked) > 5
    assert wrong == []


@pytest.mark.parametrize(
    ("width", "height", "scheme", "paths"),
    [
        (400, 860, "light", PAGES),
        (1440, 900, "dark", PAGES[:4]),
        (3840, 2160, "light", PAGES[:1]),
        (3840, 2160, "dark", PAGES[1:2]),
    ],
)
def test_no_page_is_wider_than_its_screen(
    browser: Any, site: Sites, width: int, height: int, scheme: str, paths: tuple[str, ...]
) -> None:
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    for path in paths:
        open_page(page, site("busy").url + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == ("rgb(9, 12, 18)" if scheme == "dark" else "rgb(243, 245, 249)")
    context.close()


def test_an_eviction_is_on_the_page_within_two_seconds(page: Any, site: Sites) -> None:
    here = site("evicting")
    open_page(page, here.url)
    marked = page.locator('.rl-event[data-eviction="true"]')
    marked.first.wait_for()
    newest = marked.first.inner_text()
    here.say("evict")
    page.wait_for_function(
        "(old) => document.querySelector('.rl-event[data-eviction=\"true\"]').innerText !== old", arg=newest, timeout=2000
    )


def test_figures_move_without_asking(page: Any, site: Sites) -> None:
    open_page(page, site("busy").url)
    number = page.locator(".rl-num").first
    seen = number.inner_text()
    page.wait_for_function("(old) => [...document.querySelectorAll('.rl-num')].some(one => one.innerText !== old)", arg=seen)
    lag = page.locator(".rl-num").nth(2).inner_text()
    page.wait_for_function("(old) => document.querySelectorAll('.rl-num')[2].innerText !== old", arg=lag, timeout=5000)


def test_a_broker_that_does_not_answer_is_said_and_nothing_is_made_up(page: Any, site: Sites) -> None:
    open_page(page, site("broken").url)
    assert "does not answer" in page.locator(".rl-notice").first.inner_text()
    assert "no answer" in page.locator(".rl-side").inner_text()
    assert page.get_by_text("Nothing is known yet").is_visible()
    assert not page.get_by_text("Kept promises").is_visible()


def test_old_figures_are_called_old(page: Any, site: Sites) -> None:
    open_page(page, site("stale").url)
    assert "what stands here is old" in page.locator(".rl-notice").first.inner_text()
    assert page.locator(".rl-body.rl-stale").count() == 1


def test_what_stands_still_is_said_first(page: Any, site: Sites) -> None:
    open_page(page, site("stalled").url)
    assert "Partition 3 of ocr-features" in page.locator(".rl-notice").first.inner_text()
    assert "stalled" in page.locator(".rl-side").inner_text()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/", "No app is deployed yet"),
        ("/nodes", "No node reports itself"),
        ("/apps", "No app is deployed"),
        ("/jobs", "No app is deployed"),
        ("/dead-letters", "No app is deployed"),
        ("/events", "Nothing yet"),
    ],
)
def test_an_empty_platform_says_what_to_do(page: Any, site: Sites, path: str, said: str) -> None:
    open_page(page, site("empty").url + path)
    assert page.get_by_text(said).first.is_visible()


def test_a_thousand_nodes_are_found_and_only_what_is_seen_is_drawn(page: Any, site: Sites) -> None:
    open_page(page, site("thousand").url + "/nodes")
    page.get_by_text("1000 nodes").wait_for()
    assert 5 < page.locator(".rl-table tbody tr").count() < 300
    page.keyboard.press("/")
    page.keyboard.type("c17/c17-pod-42")
    page.wait_for_function("document.querySelectorAll('.rl-table tbody tr[class]').length === 1")
    page.locator(".rl-open").first.focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="c17/c17-pod-42").wait_for()


def test_every_page_is_reached_by_keys_alone(page: Any, site: Sites) -> None:
    open_page(page, site("busy").url)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#main"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-current')") == "page"
    page.keyboard.press("g")
    page.keyboard.press("c")
    page.wait_for_url("**/config")


def test_nothing_can_be_changed_without_the_token(page: Any, site: Sites) -> None:
    here = site("busy")
    open_page(page, here.url + "/config")
    assert page.get_by_role("button", name="Set it").count() == 0
    open_page(page, here.url + "/dead-letters")
    page.get_by_text("23 letters").wait_for()
    assert page.get_by_role("button", name="Replay chosen").is_hidden()
    page.locator(".rl-open").first.click()
    page.get_by_text("hidden: it may hold").wait_for()
    assert page.get_by_role("button", name="Show it").count() == 0
    assert "SECRET-PAYLOAD" not in page.content()
    log_in(page, here, "a-guess-of-enough-length")
    assert "not the token" in page.content()


def test_who_logged_in_changes_and_their_name_is_noted(page: Any, site: Sites) -> None:
    here = site("acting")
    log_in(page, here)
    open_page(page, here.url + "/config")
    page.get_by_role("button", name="Dry run").click()
    page.get_by_text("app/text-embeddings is more specific").wait_for()
    page.get_by_label("Value", exact=False).last.fill("25")
    page.get_by_role("button", name="Set it").click()
    page.locator(".rl-notice", has_text="In force").wait_for()
    open_page(page, here.url + "/dead-letters")
    page.locator(".rl-open").first.click()
    page.get_by_role("button", name="Show it").click()
    page.get_by_text("SECRET-PAYLOAD").wait_for()
    page.get_by_role("button", name="Close").click()
    page.locator(".rl-table tbody .q-checkbox").first.click()
    page.get_by_role("button", name="Replay chosen").click()
    page.get_by_role("button", name="Submit again").click()
    page.get_by_text("1 submitted again").wait_for()
    acted = here.say("")
    assert ("change", "global/batching.linger_ms", "25.0", "mara") in acted
    assert ("reveal", "ocr-features", "0-23", "mara") in acted
    assert ("replay", "ocr-features", "0-23", "mara") in acted
    cookie = next(one for one in page.context.cookies() if one["name"] == "rayline_session")
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")


def test_a_change_is_watched_and_taken_back_when_it_makes_things_worse(page: Any, site: Sites) -> None:
    here = site("guarding")
    log_in(page, here)
    open_page(page, here.url + "/config")
    page.get_by_text("Processes").wait_for()
    page.get_by_label("Seconds").wait_for(state="hidden")
    page.get_by_role("checkbox", name="Watch the results").click()
    page.get_by_label("Seconds").fill("12")
    page.get_by_label("Value", exact=False).last.fill("2000")
    page.get_by_role("button", name="Set it").click()
    page.get_by_text("watching ocr-features for 12 s").wait_for()
    assert page.get_by_role("button", name="Set it").is_disabled()
    page.get_by_text("since the change: 640 results, p99 2140 ms").wait_for()
    verdict = page.locator(".rl-notice", has_text="Taken back")
    verdict.wait_for()
    assert "p99 is 2140 ms, was 210 ms" in verdict.inner_text()
    assert page.get_by_role("row", name="before 14800 44 ms 210 ms").count() == 1
    page.get_by_role("button", name="Set it").and_(page.locator(":enabled")).wait_for()
    assert ("change", "global/batching.linger_ms", "2000.0", "mara", "guard 12 1.25") in here.say("")


def test_a_change_is_tried_on_the_process_that_one_names_and_a_good_one_stays(page: Any, site: Sites) -> None:
    here = site("trying")
    log_in(page, here)
    open_page(page, here.url + "/config")
    page.get_by_text("has read up to").first.wait_for()
    page.get_by_role("checkbox", name="One process first").click()
    page.get_by_label("Which").click()
    page.get_by_role("option", name="lane/ocr-features/0").click()
    page.get_by_role("button", name="Set it").click()
    page.locator(".rl-notice", has_text="only lane/ocr-features/0 has it").wait_for()
    page.get_by_role("checkbox", name="Watch the results").click()
    page.get_by_role("button", name="Set it").click()
    page.locator(".rl-notice", has_text="Stays").wait_for()
    changes = [one[4:] for one in here.say("") if one[0] == "change"]
    assert changes == [("canary", "lane/ocr-features/0"), ("canary", "lane/ocr-features/0", "guard 30 1.25")]


def test_a_session_that_ended_changes_nothing_on_a_page_that_is_still_open(page: Any, site: Sites) -> None:
    here = site("ended")
    log_in(page, here)
    open_page(page, here.url + "/config")
    other = page.context.new_page()
    open_page(other, here.url)
    other.get_by_role("button", name="Log out").click()
    other.get_by_role("button", name="Log in").wait_for()
    page.get_by_role("button", name="Set it").click()
    page.get_by_text("Log in to change anything.").wait_for()
    assert not [one for one in here.say("") if one[0] == "change"]
