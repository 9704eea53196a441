"""app.yaml: errors name file, line, what was found and what would be right; a version follows the code."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from rayline.app_spec import AppSpec
from rayline.entrypoint import check_entrypoint
from rayline.errors import ManifestError
from rayline.manifest import load_manifest, manifest_fields, manifest_schema
from rayline.manifest_types import parse_bytes

MINIMAL = "name: demo\nentrypoint: feature:extract\n"


def write(folder: Path, text: str, code: str = "def extract(job):\n    return job\n") -> Path:
    (folder / "feature.py").write_text(code)
    path = folder / "app.yaml"
    path.write_text(text)
    return path


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(ManifestError) as caught:
        load_manifest(write(folder, text))
    return str(caught.value)


def refusals(path: Path) -> list[str]:
    """What is told of a manifest, line by line; nothing where it is taken."""
    try:
        load_manifest(path)
    except ManifestError as error:
        return str(error).splitlines()
    return []


def test_a_minimal_manifest_has_the_defaults_of_the_app_spec(tmp_path: Path) -> None:
    spec = load_manifest(write(tmp_path, MINIMAL))
    assert spec == AppSpec(name="demo", version=spec.version, root=str(tmp_path), entrypoint="feature:extract")


def test_every_field_arrives_in_the_spec_and_survives_the_topic(tmp_path: Path) -> None:
    text = MINIMAL + (
        "version: '2'\ncall: batch\nbatch_format: arrow\nconstructor: {size: 3}\nenv: {variables: {A: b}}\n"
        "concurrency: 4\nactors_per_node: 2\nresources: {num_cpus: 0.5, memory: 512MiB}\n"
        "batching: {max_bytes: 2MiB}\nretries: {kills: 1}\nlimits: {execute_seconds: 2}\n"
    )
    spec = load_manifest(write(tmp_path, text))
    assert spec.resources.memory_bytes == 512 * 2**20
    assert spec.batching.max_bytes == 2 * 2**20
    assert (spec.version, spec.concurrency, spec.actors_per_node, spec.retries.kills) == ("2", 4, 2, 1)
    assert AppSpec.from_dict(spec.as_dict()) == spec


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("batch_fromat: rows", ["app.yaml:3: unknown key `batch_fromat`", "did you mean `batch_format`?"]),
        ("concurrency: many", ["app.yaml:3: `concurrency` is 'many'", "a whole number"]),
        ("concurrency: 0", ["app.yaml:3: `concurrency` is 0", "at least 1"]),
        ("call: batches", ["app.yaml:3: `call` is 'batches'", "did you mean `batch`?"]),
        ("env: {variables: {DEBUG: 1}}", ["app.yaml:3: `env.variables.DEBUG` is 1", "quotes"]),
        ("batching:\n  max_jobs: 3\n  linger: 5", ["app.yaml:5: unknown key `batching.linger`", "did you mean `linger_ms`?"]),
        ("resources:\n  memory: 12XB", ["app.yaml:4: `resources.memory` is '12XB'", "512MiB"]),
        ("limits: 3", ["app.yaml:3: `limits` is 3", "mapping of", "execute_seconds"]),
        ("sla_seconds: .nan", ["app.yaml:3: `sla_seconds`"]),
        ("name: other", ["app.yaml:3: `name` stands here and on line 1"]),
        ("call: [", ["app.yaml:", "not valid YAML"]),
        ("env:\n  requirements: numpy", ["app.yaml:4: `env.requirements` is 'numpy'", "right would be a list"]),
        ("env:\n  requirements_file: none.txt", ["app.yaml:4: `env.requirements_file`", "path from the folder of app.yaml"]),
        ("models:\n  - {name: m, source: none.bin}", ["app.yaml:4: ", "path from the folder of app.yaml"]),
        ("version: 2020-13-45", ["app.yaml:3: '2020-13-45' cannot be read", "put text in quotes"]),
        ("resources:\n  1: 2", ["app.yaml:4: the key 1 is no text", "right would be one of: num_cpus"]),
        ("~: 1", ["app.yaml:3: the key None is no text", "right would be one of: name"]),
        ("on: 1", ["app.yaml:3: the key True is no text"]),
        ("scheduling:\n  cards:\n    7: 1.5", ["app.yaml:5: `scheduling.cards.7` is 7", "quotes"]),
        ("sla_seconds: 1\nbatching:\n  linger_ms: 2000", ["app.yaml:5: `batching.linger_ms` is 2000", "below 1000"]),
    ],
)
def test_an_error_names_file_line_and_what_would_be_right(tmp_path: Path, line: str, expected: list[str]) -> None:
    message = refusal(tmp_path, MINIMAL + line + "\n")
    for part in expected:
        assert part in message


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        True,
        -1,
        10**30,
        1.5,
        float("nan"),
        "",
        "\0",
        [],
        [[1]],
        {},
        {"a": {"b": [1]}},
        {1: 2},
        {None: 2},
        datetime.date(2020, 1, 1),
    ],
    ids=repr,
)
def test_whatever_stands_at_a_key_is_taken_or_refused_with_its_line(tmp_path: Path, wrong: object) -> None:
    for field, _, _ in manifest_fields():
        first, _, second = field.replace("[]", "").partition(".")
        inner = {"name": "m", "source": "feature.py", second: wrong}
        value = wrong if not second else [inner] if "[]" in field else {second: wrong}
        path = write(tmp_path, yaml.safe_dump({**yaml.safe_load(MINIMAL), first: value}, sort_keys=False))
        for line in refusals(path):
            assert re.match(r".*app\.yaml:\d+: ", line), field
            assert " should " not in line, "the library's own words do not say what would be right"


def test_all_errors_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    lines = refusal(tmp_path, "name: a b\nentrypoint: nothing\ncall: x\n").splitlines()
    assert [line.split(":")[1] for line in lines] == ["1", "2", "3"]


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    assert "`entrypoint` is missing" in refusal(tmp_path, "name: demo\n")


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just text"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    assert "the manifest is" in refusal(tmp_path, text)


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="rayline init"):
        load_manifest(tmp_path / "app.yaml")


@pytest.mark.parametrize("name", ["rayline", "rayline.apps", "-x", "a/b", "a" * 101])
def test_a_name_that_makes_no_topic_or_is_the_platforms_is_refused(tmp_path: Path, name: str) -> None:
    assert "app.yaml:1: `name`" in refusal(tmp_path, f"name: {name}\nentrypoint: feature:extract\n")


def test_the_version_follows_the_code_and_nothing_else(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL)
    first = load_manifest(path).version
    (tmp_path / "notes.txt").write_text("nothing that runs")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "x.py").write_text("cache")
    assert load_manifest(path).version == first
    (tmp_path / "feature.py").write_text("def extract(job):\n    return 1\n")
    assert load_manifest(path).version != first


@pytest.mark.parametrize(
    ("written", "size"), [("512MiB", 512 * 2**20), ("2 GB", 2 * 10**9), ("1.5KiB", 1536), (77, 77), ("100", 100), ("3kb", 3000)]
)
def test_sizes_are_read_in_the_usual_units(written: object, size: int) -> None:
    assert parse_bytes(written) == size


@pytest.mark.parametrize("written", ["", "MiB", "5 bananas", True, None, [1], "1e999GB", "-"])
def test_what_is_no_size_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="512MiB"):
        parse_bytes(written)


def test_the_schema_accepts_what_the_loader_accepts(tmp_path: Path) -> None:
    schema = manifest_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    good = yaml.safe_load(MINIMAL + "resources: {memory: 512MiB}\nbatching: {max_bytes: 1000}\n")
    assert not list(validator.iter_errors(good))
    assert list(validator.iter_errors({**good, "concurrency": 0}))
    assert list(validator.iter_errors({**good, "unknown": 1}))


def test_every_key_is_described() -> None:
    assert [name for name, _, description in manifest_fields() if not description] == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def extract(job): return 1\n", None),
        ("from os.path import join as extract\n", None),
        ("try:\n    import numpy\nexcept ImportError:\n    extract = None\nelse:\n    extract = len\n", None),
        ("class extract:\n    def __call__(self, job): return 1\n", None),
        ("def extrat(job): return 1\n", "did you mean `extrat`?"),
        ("def extract(job:\n", "feature.py:1"),
        ("class extract:\n    pass\n", "no `__call__`"),
    ],
)
def test_the_entrypoint_is_checked_without_running_it(tmp_path: Path, code: str, expected: str | None) -> None:
    spec = load_manifest(write(tmp_path, MINIMAL, code))
    if expected is None:
        check_entrypoint(spec)
    else:
        with pytest.raises(ManifestError) as caught:
            check_entrypoint(spec)
        assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("feature.py:extract", "feature:extract"),
        ("./feature.py:extract", "feature:extract"),
        ("package/feature:extract", "package.feature:extract"),
        ("package/feature.py:extract", "package.feature:extract"),
        ("package\\feature.py:extract", "package.feature:extract"),
        ("/home/me/feature.py:extract", "feature:extract"),
        ("../feature.py:extract", "feature:extract"),
    ],
)
def test_an_entrypoint_that_names_a_file_is_told_the_module(tmp_path: Path, written: str, right: str) -> None:
    with pytest.raises(ManifestError, match=rf"`entrypoint`.*right would be {re.escape(right)},"):
        check_entrypoint(load_manifest(write(tmp_path, f"name: demo\nentrypoint: {written}\n")))


@pytest.mark.parametrize("written", ["feature", "feature.py", "a-b/c:extract", "feature:extract()", "feature:"])
def test_an_entrypoint_that_names_nothing_is_told_the_form(tmp_path: Path, written: str) -> None:
    assert "right would be text like feature:extract" in refusal(tmp_path, f"name: demo\nentrypoint: '{written}'\n")


def test_a_module_called_py_is_one(tmp_path: Path) -> None:
    (tmp_path / "feature").mkdir()
    (tmp_path / "feature" / "py.py").write_text("def extract(job): return 1\n")
    check_entrypoint(load_manifest(write(tmp_path, "name: demo\nentrypoint: feature.py:extract\n")))


def test_a_missing_module_is_named(tmp_path: Path) -> None:
    spec = load_manifest(write(tmp_path, "name: demo\nentrypoint: featur:extract\n"))
    with pytest.raises(ManifestError, match=r"no module `featur`.*did you mean `feature`"):
        check_entrypoint(spec)
