"""What was printed as text to be kept and shown: valid, on one line, without secrets, without orders to a terminal. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from rayline.logs import on_one_line, redact

_HIDDEN: Final = "***"
_TAB_COLUMNS: Final = 8
_COLOURS: Final = re.compile("\x1b\\[[0-9;]{0,32}m")


def clean_line(raw: bytes, hidden: Sequence[str] = ()) -> str:
    """One line. Bytes that are no UTF-8, and characters that are not printable, stand there as escapes; colours are left out.

    `hidden` are texts that must not be shown, besides what looks like a secret.
    """
    return on_one_line(_without_secrets(_text(raw), hidden).expandtabs(_TAB_COLUMNS))


def clean_traceback(raw: bytes, hidden: Sequence[str] = ()) -> str:
    """A text of several lines; each is cleaned like a line."""
    text = _without_secrets(_text(raw), hidden)
    return "\n".join(on_one_line(line.expandtabs(_TAB_COLUMNS)) for line in text.split("\n"))


def _text(raw: bytes) -> str:
    text = raw.decode("utf-8", "backslashreplace")
    return _COLOURS.sub("", text) if "\x1b" in text else text


def _without_secrets(text: str, hidden: Sequence[str]) -> str:
    for secret in hidden:
        text = text.replace(secret, _HIDDEN)
    return redact(text)
