"""One browser and one console of each scene for the tests of a module (while a browser is open, no test here may be async)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.integration.console.browser import Site, chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's Chromium."""
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def site() -> Iterator[Callable[[str], Site]]:
    """Consoles by scene; started when first asked for."""
    running: dict[str, Site] = {}

    def get(scene: str) -> Site:
        if scene not in running:
            running[scene] = Site(scene)
        return running[scene]

    yield get
    for one in running.values():
        one.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page in a context of its own: no cookie of another test."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    yield context.new_page()
    context.close()
