"""How the console looks: our own style sheet, a few keys and the login page, read once from `look/`."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from string import Template


def style_sheet() -> str:
    """Sizes are in rem, so that a wall's screen only needs a larger root."""
    return _read("console.css")


def keys() -> str:
    """`g` and a letter go to a page, `/` into its search: only where nobody types."""
    return f"<script>{_read('keys.js')}</script>"


def login_page(*, message: str, form: str, disabled: str) -> str:
    """The login form; its parts are HTML."""
    return Template(_read("login.html")).substitute(message=message, form=form, disabled=disabled)


@cache
def _read(name: str) -> str:
    return (files("deploy.console") / "look" / name).read_text(encoding="utf-8")
