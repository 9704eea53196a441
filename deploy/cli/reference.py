"""Writes the generated parts of the documents (commands, manifest, settings) from the code: `python -m deploy.cli.reference`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import typer

from deploy.cli import app
from deploy.cli.exit_codes import ExitCode
from deploy.metrics_reference import attributes, metrics
from rayline.config import SETTINGS
from rayline.manifest import manifest_fields

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
_PART: Final = re.compile(r"(<!-- generated: (?P<part>[a-z ]+) \([^)]*\) -->\n).*?(<!-- end -->)", re.DOTALL)


def all_commands() -> list[tuple[str, Any]]:
    """Every command that people call, by its whole name (`rayline dlq list`)."""
    return list(_walk("rayline", typer.main.get_command(app)))


def commands() -> str:
    """Every command with its arguments and options."""
    lines: list[str] = []
    for name, command in all_commands():
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option" and not getattr(p, "hidden", False)]
        usage = " ".join([name, *(_argument(argument) for argument in arguments)])
        lines += [f"### `{usage}`", "", _one_line(command.help), ""]
        lines += [
            f"- `{', '.join(option.opts)}`{_default(option)}: {_one_line(getattr(option, 'help', None))}" for option in options
        ]
        lines += [""] if options else []
    return "\n".join(lines)


def exit_codes() -> str:
    rows = [f"| {code.value} | {code.meaning} |" for code in ExitCode]
    return "\n".join(["| code | meaning |", "|---|---|", *rows, ""])


def keys() -> str:
    rows = [f"| `{name}` | {default} | {description} |" for name, default, description in manifest_fields()]
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows, ""])


def settings() -> str:
    """Every tunable: what it does, its bounds, who reads it, and from when on a change counts."""
    rows = []
    for setting in SETTINGS.values():
        default = f"`{json.dumps(setting.default)}`" + (f" {setting.unit}" if setting.unit else "")
        scopes, processes = ", ".join(setting.scopes), ", ".join(setting.roles)
        meaning = f"{setting.description} {setting.effect}"
        rows.append(f"| `{setting.name}` | {default} | {setting.right()} | {scopes} | {processes} | {meaning} |")
    head = ["| setting | default | right | scopes | processes | meaning |", "|---|---|---|---|---|---|"]
    return "\n".join([*head, *rows, ""])


PARTS: Final[dict[str, Callable[[], str]]] = {
    "commands": commands,
    "exit codes": exit_codes,
    "keys": keys,
    "settings": settings,
    "metrics": metrics,
    "metric attributes": attributes,
}


def render(text: str) -> str:
    """A document with its generated parts made anew."""
    return _PART.sub(lambda match: f"{match[1]}{PARTS[match['part']]()}{match[3]}", text)


def documents() -> list[Path]:
    return [DOCS / "cli.md", DOCS / "manifest.md", DOCS / "config.md", DOCS / "metrics.md"]


def _walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield name, command
        return
    for child_name, child in children.items():
        if not child.hidden:
            yield from _walk(f"{name} {child_name}", child)


def _argument(argument: Any) -> str:
    name = (argument.metavar or argument.name.upper()).strip("[]{}")
    name = f"{name}…" if argument.nargs == -1 else name
    return name if argument.required else f"[{name}]"


def _default(option: Any) -> str:
    value = option.default
    if value is None or value is False or callable(value):
        return ""
    return f" (default `{getattr(value, 'value', value)}`)"


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


if __name__ == "__main__":
    for path in documents():
        path.write_text(render(path.read_text(encoding="utf-8")), encoding="utf-8")
