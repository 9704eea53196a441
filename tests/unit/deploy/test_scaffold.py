"""What `rayline init` writes is an app in order, and its own test passes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.scaffold import write_scaffold
from rayline.entrypoint import check_entrypoint
from rayline.errors import ConfigError
from rayline.manifest import load_manifest

README = Path(__file__).resolve().parents[3] / "README.md"


def test_the_scaffold_is_in_order_and_its_test_passes(tmp_path: Path) -> None:
    app, _ = write_scaffold(tmp_path / "My App", None)
    spec = load_manifest(tmp_path / "My App")
    check_entrypoint(spec)
    assert app == spec.name == "my-app"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    subprocess.run(command, cwd=tmp_path / "My App", check=True, capture_output=True)


def test_its_sample_jobs_are_payloads_that_its_function_takes(tmp_path: Path) -> None:
    write_scaffold(tmp_path / "app", None)
    code = (
        "import json, sys; from feature import extract; print(json.dumps([extract(json.loads(l)) for l in open('jobs.jsonl')]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "app", check=True, capture_output=True, text=True)
    assert [feature["words"] for feature in json.loads(done.stdout)] == [6, 6, 3, 2]


def test_nothing_of_a_users_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        write_scaffold(tmp_path, "app")


def test_a_name_that_makes_no_topic_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--name"):
        write_scaffold(tmp_path / "app", "a b")


def test_the_readme_shows_the_code_and_counts_the_jobs_of_the_scaffold(tmp_path: Path) -> None:
    write_scaffold(tmp_path / "my-app", None)
    readme = README.read_text(encoding="utf-8")
    shown = readme.split("```python\n")[1].split("```")[0].splitlines()
    written = (tmp_path / "my-app" / "feature.py").read_text().splitlines()
    assert set(shown) <= set(written)
    jobs = len((tmp_path / "my-app" / "jobs.jsonl").read_text().splitlines())
    assert f"results my-app --follow --from-beginning --limit {jobs}\n" in readme
