"""`env:` and `models:` of app.yaml: every refusal names file and line; addresses and secrets never get in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rayline.app_spec import AppSpec, ModelSource, Requirement
from rayline.errors import ManifestError
from rayline.manifest import load_manifest

MINIMAL = "name: demo\nentrypoint: feature:extract\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "app.yaml"
    path.write_text(MINIMAL + text)
    return path


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(ManifestError) as caught:
        load_manifest(write(folder, text))
    return str(caught.value)


def test_requirements_keep_their_file_and_line_and_survive_the_topic(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("# first\nnumpy>=2  # why\n-r more.txt\nray \\\n  ==2.60.0\n")
    (tmp_path / "more.txt").write_text("\nmsgpack\n")
    (tmp_path / "model.bin").write_bytes(b"m")
    text = (
        "env:\n  python: '3.12'\n  requirements:\n  - pillow\n  requirements_file: requirements.txt\n"
        "  indexes: [company-packages]\n  variables: {A: b}\nmodels:\n- {name: detector, source: model.bin}\n"
    )
    spec = load_manifest(write(tmp_path, text))
    assert spec.environment.requirements == (
        Requirement("pillow", f"{tmp_path}/app.yaml:6"),
        Requirement("numpy>=2", f"{tmp_path}/requirements.txt:2"),
        Requirement("msgpack", f"{tmp_path}/more.txt:2"),
        Requirement("ray ==2.60.0", f"{tmp_path}/requirements.txt:4"),
    )
    assert spec.models == (ModelSource("detector", "model.bin"),)
    assert dict(spec.env) == {"A": "b"}
    assert AppSpec.from_dict(spec.as_dict()) == spec


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("env:\n  python: 3.10\n", ["app.yaml:4: `env.python` is 3.1", "quotes"]),
        ("env:\n  python: '2.7'\n", ["app.yaml:4: `env.python` is '2.7'", "'3.11'"]),
        ("env:\n  indexes:\n  - https://user:word@host/simple\n", ["app.yaml:5: `env.indexes.0`", "company-packages"]),
        ("env:\n  requirements:\n  - numpy\n  - pkg @ https://host/pkg.whl\n", ["app.yaml:6: 'pkg'", "env.indexes"]),
        ("env:\n  requirements:\n  - --index-url https://host\n", ["app.yaml:5: option '--index-url'", "env.indexes"]),
        ("env:\n  requirements_file: gone.txt\n", ["app.yaml:4: `env.requirements_file`", "no file"]),
        ("env:\n  libraries:\n  - gone.so\n", ["app.yaml:5: `env.libraries`", "gone.so"]),
        ("env:\n  python: '3.11'\n  conda: environment.yml\n", ["app.yaml:5: `env.conda`", "drop `env.python`"]),
        ("env:\n  engine: 'not a module'\n", ["app.yaml:4: `env.engine`", "onnxruntime"]),
        ("env:\n  providers: {nvidia: CUDAExecutionProvider}\n", ["app.yaml:4: `env.providers`", "env.engine"]),
        ("env:\n  engine: torch\n  providers: {nvidia: ''}\n", ["app.yaml:5: `env.providers.nvidia`"]),
        ("env:\n  requirement: [a]\n", ["app.yaml:4: unknown key `env.requirement`", "did you mean `requirements`?"]),
        ("models:\n- name: a\n  source: s3://bucket/model\n", ["app.yaml:5: `models.0.digest` is missing", "SHA-256"]),
        ("models:\n- name: a\n  sorce: x\n", ["unknown key `models.0.sorce`", "did you mean `source`?"]),
        ("models:\n- name: a\n  source: gone.bin\n", ["app.yaml:5: there is no", "gone.bin"]),
        ("models:\n- name: A B\n  source: x\n", ["app.yaml:4: `models.0.name`", "detector"]),
        ("models:\n- {name: a, source: x, digest: md5:1}\n", ["app.yaml:4: `models.0.digest`", "sha256:"]),
        (
            "models:\n- name: a\n  source: https://me:word@host/m\n  digest: sha256:" + "0" * 64 + "\n",
            ["app.yaml:5: the source holds a user"],
        ),
    ],
)
def test_an_error_names_file_line_and_what_would_be_right(tmp_path: Path, text: str, expected: list[str]) -> None:
    message = refusal(tmp_path, text)
    for part in expected:
        assert part in message


def test_constraints_are_read_and_hold_no_addresses_either(tmp_path: Path) -> None:
    (tmp_path / "constraints.txt").write_text("# tried together\nnumpy<2.2\n")
    spec = load_manifest(write(tmp_path, "env:\n  constraints_file: constraints.txt\n"))
    assert spec.environment.constraints == (Requirement("numpy<2.2", f"{tmp_path}/constraints.txt:2"),)
    (tmp_path / "constraints.txt").write_text("numpy @ https://me:word@host/numpy.whl\n")
    told = refusal(tmp_path, "env:\n  constraints_file: constraints.txt\n")
    assert "constraints.txt:1: 'numpy'" in told
    assert "word" not in told


def test_a_requirements_file_that_includes_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("-r requirements.txt\n")
    assert "circle" in refusal(tmp_path, "env:\n  requirements_file: requirements.txt\n")


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"")
    assert "app.yaml:5" in refusal(tmp_path, "models:\n- {name: a, source: m}\n- {name: a, source: m}\n")


def test_two_models_that_one_variable_would_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"")
    told = refusal(tmp_path, "models:\n- {name: a-b, source: m}\n- {name: a_b, source: m}\n")
    for part in ("app.yaml:5", "RAYLINE_MODEL_A_B", "'a-b'", "'a_b'"):
        assert part in told


def test_an_engine_keeps_the_order_of_its_providers_through_the_topic(tmp_path: Path) -> None:
    text = "env:\n  engine: onnxruntime\n  providers: {nvidia a10: TensorrtExecutionProvider, nvidia: CUDAExecutionProvider}\n"
    spec = load_manifest(write(tmp_path, text))
    assert spec.environment.engine == "onnxruntime"
    providers = (("nvidia a10", "TensorrtExecutionProvider"), ("nvidia", "CUDAExecutionProvider"))
    assert spec.environment.providers == providers
    assert AppSpec.from_dict(json.loads(json.dumps(spec.as_dict()))) == spec
