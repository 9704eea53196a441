"""The alert rules as Prometheus itself judges them: `alerts_test.yaml` says what sets each off and what does not."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.metrics_reference import series
from tests.unit.deploy.test_dashboards import FOLDER, OF_SERIES, QUERIES, rules

CASES = Path(__file__).with_name("alerts_test.yaml")
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not on the PATH (Debian: `apt install prometheus`)")
# What only Grafana knows, as it would fill it in.
FILLED_IN = (("$__rate_interval", "1m"), ("$app", ".*"), ("$__all", ".*"))


def cases() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(CASES.read_text(encoding="utf-8"))["tests"]
    return found


def test_each_alert_has_a_case_that_sets_it_off() -> None:
    set_off = {
        name
        for case in cases()
        for expected in case["promql_expr_test"]
        for sample in expected.get("exp_samples", ())
        for name in re.findall(r'alertname="(\w+)"', expected["expr"] + sample["labels"])
    }
    assert set_off == {rule["alert"] for rule in rules()}


def test_cases_give_only_series_that_processes_show_with_labels_that_they_have() -> None:
    for case in cases():
        for given in case["input_series"]:
            name, _, labels = given["series"].partition("{")
            if name != "up":
                assert name in series()
                assert set(re.findall(r"(\w+)=", labels)) <= OF_SERIES[name], given["series"]


@needs_promtool
def test_prometheus_takes_the_rules_and_each_alert_goes_off_when_it_should_and_only_then() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", str(FOLDER / "alerts.yaml"))
    promtool("test", "rules", str(CASES))


@needs_promtool
def test_prometheus_can_read_every_query_of_the_dashboard(tmp_path: Path) -> None:
    alerts = {rule["alert"] for rule in rules()}
    records = []
    for number, (name, query) in enumerate(QUERIES):
        if name not in alerts and not query.startswith("label_values("):
            for placeholder, value in FILLED_IN:
                query = query.replace(placeholder, value)
            records.append({"record": f"query:{number}", "expr": query})
    assert records
    path = tmp_path / "dashboard.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": records}]}))
    promtool("check", "rules", str(path))


def promtool(*words: str) -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *words], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
