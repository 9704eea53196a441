"""YAML read with the line of every key, so that an error can say where; safe types only, duplicate keys refused."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from rayline.errors import ManifestError

MAX_FILE_BYTES: Final = 1024 * 1024
_MERGE_TAG: Final = "tag:yaml.org,2002:merge"


@dataclass(frozen=True, slots=True)
class LocatedYaml:
    """A parsed file: its plain value, and for each path of keys the line (from 1) on which it stands."""

    path: Path
    value: Any
    lines: Mapping[tuple[Any, ...], int]

    def line(self, keys: Sequence[Any]) -> int:
        """The line of a path of keys, or of the nearest enclosing one that exists."""
        found = tuple(keys)
        while found:
            for candidate in (found, (*found[:-1], str(found[-1]))):
                if candidate in self.lines:
                    return self.lines[candidate]
            found = found[:-1]
        return self.lines.get((), 1)

    def where(self, keys: Sequence[Any]) -> str:
        """`file:line` of a path of keys."""
        return f"{self.path}:{self.line(keys)}"


def read_yaml(path: Path) -> LocatedYaml:
    """Read one YAML document; raises ManifestError for a missing file, bad syntax, a key given twice, or an alias bomb."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ManifestError(f"{path}: larger than {MAX_FILE_BYTES} bytes; that is no app manifest")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ManifestError(f"{path} does not exist; `rayline init FOLDER` makes one that runs") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path} cannot be read: {error}") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[tuple[Any, ...], int] = {}
        if node is not None:
            _locate(path, node, (), lines)
        return LocatedYaml(path, yaml.safe_load(text), lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        raise ManifestError(f"{path}:{line}: not valid YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ManifestError(f"{path}: not valid YAML: {error}") from error


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """` (did you mean `x`?)`, or nothing when nothing is near."""
    near = difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.6)
    return f" (did you mean `{near[0]}`?)" if near else ""


def _locate(path: Path, node: yaml.Node, keys: tuple[Any, ...], lines: dict[tuple[Any, ...], int]) -> None:
    lines.setdefault(keys, node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode):
        _scalar(path, node)
    elif isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            key = _key_name(_scalar(path, key_node)) if isinstance(key_node, yaml.ScalarNode) else str(key_node)
            line = key_node.start_mark.line + 1
            below = (*keys, key)
            if below in lines and key != "<<":
                raise ManifestError(
                    f"{path}:{line}: `{'.'.join(map(str, below))}` stands here and on line {lines[below]}; keep one"
                )
            lines[below] = line
            _locate(path, value_node, below, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _locate(path, item, (*keys, index), lines)


def _scalar(path: Path, node: yaml.ScalarNode) -> Any:
    """The value of a scalar; raises ManifestError for what looks like a date or a number and is none."""
    if node.tag == _MERGE_TAG:
        return node.value
    try:
        return yaml.constructor.SafeConstructor().construct_object(node)
    except ValueError as error:
        line = node.start_mark.line + 1
        raise ManifestError(f"{path}:{line}: {node.value!r} cannot be read ({error}); put text in quotes") from error


def _key_name(key: Any) -> str:
    """A key as pydantic names it in the place of an error: a truth value (`on`, `yes`) by its number."""
    return str(int(key)) if isinstance(key, bool) else str(key)
