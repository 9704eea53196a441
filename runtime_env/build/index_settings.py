"""Where packages come from: the machine's own settings of pip and uv, and further indexes by the names of their settings."""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from rayline.errors import ConfigError

# pip's word → uv's variable, and what stands between several values there. uv does not read pip's settings.
_WORDS: Final = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "cert": ("SSL_CERT_FILE", " "),
    "no-index": ("UV_NO_INDEX", " "),
}
_USER: Final = re.compile(r"(?<=://)[^/\s@]+@")


def uv_environment(base: Mapping[str, str], indexes: Sequence[str] = ()) -> dict[str, str]:
    """`base` with pip's settings in uv's words, and the named indexes added; what `base` says to uv itself wins.

    The index `company-packages` is the address in RAYLINE_INDEX_COMPANY_PACKAGES. Raises ConfigError where that is not set.
    """
    translated: dict[str, str] = {}
    for word, value in {**_configured(base), **_variables(base)}.items():
        if word in _WORDS and value.split():
            variable, between = _WORDS[word]
            translated[variable] = between.join(value.split())
    environment = {**translated, **base}
    named = [_address(name, base) for name in indexes]
    if named:
        environment["UV_INDEX"] = " ".join([*named, environment.get("UV_INDEX", "")]).strip()
    return environment


def without_passwords(text: str) -> str:
    """`text` with the user and password of every address cut out."""
    return _USER.sub("", text)


def setting_name(index: str) -> str:
    """The environment variable that holds the address of a named index."""
    return f"RAYLINE_INDEX_{index.upper().replace('-', '_')}"


def _address(index: str, base: Mapping[str, str]) -> str:
    address = base.get(setting_name(index))
    if not address:
        raise ConfigError(
            f"`env.indexes` names {index!r}, but {setting_name(index)} is not set here: set it to the index's address"
        )
    return address


def _variables(base: Mapping[str, str]) -> dict[str, str]:
    prefix = "PIP_"
    return {name.removeprefix(prefix).lower().replace("_", "-"): value for name, value in base.items() if name.startswith(prefix)}


def _configured(base: Mapping[str, str]) -> dict[str, str]:
    """pip's configuration files, the most particular last."""
    home = Path(base.get("HOME", "/"))
    files = [Path("/etc/pip.conf"), home / ".pip" / "pip.conf", home / ".config" / "pip" / "pip.conf"]
    named = base.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return {}
    parser = configparser.RawConfigParser()
    try:
        parser.read([*files, *([Path(named)] if named else [])], encoding="utf-8")
    except configparser.Error as error:
        raise ConfigError(f"pip's configuration cannot be read: {error}") from error
    sections = [section for section in ("global", "install") if parser.has_section(section)]
    return {word: value for section in sections for word, value in parser.items(section)}
