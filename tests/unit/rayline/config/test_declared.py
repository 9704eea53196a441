"""The declared settings: consistent in themselves, with the code's own defaults, and complete."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from rayline.app_spec import Batching, Limits, Retries, Scheduling
from rayline.config import SETTINGS, Kind, Setting
from rayline.config.declared import schema
from tests.unit.rayline.config.fixed import FIXED, FIXED_MANIFEST

ROOT = Path(__file__).resolve().parents[4]
# Of `deploy` what runs as a process of the platform; the rest are tools, whose figures are their options.
SOURCES = ("rayline", "runtime_env", "workers", "scheduler", "ingest", "deploy/keeper", "deploy/*_process.py")
# How constants that an operator might want to tune are named: a bound, or a quantity with its unit.
TUNABLE = re.compile(
    r"_?(MAX|MIN|LEAST|MOST)_|.*_(SECONDS|MS|BYTES|JOBS|SHARE|FACTOR|RECORDS|RESULTS|RETRIES|SAMPLES|CHARS"
    r"|BEATS|ROUNDS|BATCHES|FLIGHT|KEPT|LINES|PIECES|THREADS|LEVEL|NICE|PER_CALL|A_TURN|AT_ONCE)$"
)
UNIT_FACTORS = {("_SECONDS", "ms"): 1000, ("_ms", "s"): 0.001}


def constants() -> Iterator[str]:
    """`module:NAME` of each numeric constant of the platform's packages whose name is that of a tunable, or which is a fraction;
    `module:Class.field` of each numeric default of such a name."""
    for source in SOURCES:
        for path in sorted(ROOT.glob(source if source.endswith(".py") else f"{source}/**/*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                target = (
                    node.target if isinstance(node, ast.AnnAssign) else node.targets[0] if isinstance(node, ast.Assign) else None
                )
                if isinstance(target, ast.Name) and _numeric(node.value):  # type: ignore[union-attr]
                    if TUNABLE.match(target.id) or _fraction(node.value):  # type: ignore[union-attr]
                        yield f"{module}:{target.id}"
                elif isinstance(node, ast.ClassDef):
                    yield from (f"{module}:{node.name}.{field}" for field in _tunable_fields(node))


def _tunable_fields(node: ast.ClassDef) -> Iterator[str]:
    """Annotated fields with a default that is more than an empty beginning."""
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and TUNABLE.match(part.target.id.upper()):
            named = isinstance(part.value, ast.Name)  # a constant that is found by itself
            if _numeric(part.value) and not named and ast.unparse(part.value or part) not in ("0", "0.0", "-1"):
                yield part.target.id


def _fraction(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, float)


def _numeric(node: ast.AST | None) -> bool:
    return node is not None and all(
        isinstance(part.value, int | float)
        if isinstance(part, ast.Constant)
        else isinstance(part, ast.BinOp | ast.operator | ast.unaryop | ast.UnaryOp | ast.Name | ast.expr_context)
        for part in ast.walk(node)
    )


def declared_constants() -> set[str]:
    return {setting.constant for setting in SETTINGS.values() if setting.constant is not None}


def test_every_tunable_of_the_code_is_declared_or_said_to_be_fixed_and_why() -> None:
    of_the_manifest = {f"rayline.app_spec:{name}" for name in FIXED_MANIFEST}
    unknown = sorted(set(constants()) - declared_constants() - FIXED.keys() - of_the_manifest)
    assert not unknown, f"declare these in rayline/config/declared.py, or say in fixed.py why no operator tunes them: {unknown}"


def test_nothing_is_said_to_be_fixed_that_is_gone_or_declared() -> None:
    assert not sorted(FIXED.keys() - set(constants()))
    assert not FIXED.keys() & declared_constants()


def test_every_number_of_the_manifest_is_declared_or_said_to_be_fixed_and_why() -> None:
    known = {constant.partition(":")[2] for constant in declared_constants()} | FIXED_MANIFEST.keys()
    found = {
        f"{section.__name__}.{field.name}" for section in (Batching, Retries, Limits, Scheduling) for field in fields(section)
    }
    assert not found - known


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=lambda setting: setting.name)
def test_a_setting_is_whole_and_its_default_is_right(setting: Setting) -> None:
    assert setting.check(setting.default) == setting.default
    assert setting.description.endswith(".")
    assert setting.effect.endswith(".")
    assert setting.scopes
    assert setting.roles
    if setting.kind in (Kind.INTEGER, Kind.NUMBER):
        assert setting.minimum is not None
        assert setting.maximum is not None
        for value in (setting.minimum - 1, setting.maximum + 1, "1", None, True, [], float("nan")):
            with pytest.raises(ValueError, match="right would be"):
                setting.check(value)


@pytest.mark.parametrize(
    "setting", [setting for setting in SETTINGS.values() if setting.constant], ids=lambda setting: setting.name
)
def test_the_declared_default_is_the_one_in_the_code(setting: Setting) -> None:
    assert setting.constant is not None
    module, _, path = setting.constant.partition(":")
    value: Any = importlib.import_module(module)
    for part in path.split("."):
        if is_dataclass(value) and isinstance(value, type):
            (field,) = (field for field in fields(value) if field.name == part)
            value = field.default
        else:
            value = getattr(value, part)
    factor = next((f for (ending, unit), f in UNIT_FACTORS.items() if path.endswith(ending) and setting.unit == unit), 1)
    assert setting.default == (value * factor if isinstance(value, int | float) else value)


def test_the_schema_takes_every_default_and_refuses_what_the_settings_refuse() -> None:
    whole = schema()
    jsonschema.Draft202012Validator.check_schema(whole)
    jsonschema.validate({name: setting.default for name, setting in SETTINGS.items()}, whole)
    for wrong in ({"sla_seconds": 0}, {"sla_seconds": "10"}, {"cordon": 1}, {"weights.policy": "dice"}, {"nothing": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, whole)
