"""`rayline doctor`: each check can say yes and no, and a no comes with a remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest

from deploy import doctor
from deploy.doctor import Finding, Health, examine
from deploy.local.child import ProcessRecord
from deploy.local.state import PlatformState, StateFolder
from rayline.bus import KafkaSettings
from rayline.errors import BrokerUnavailable


@pytest.fixture(autouse=True)
def _a_machine_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Java that tells its version, jars, no Docker."""
    java = tmp_path / "jdk" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text("#!/bin/sh\necho 'openjdk version \"21.0.4\"' >&2\n")
    java.chmod(0o755)
    jars = tmp_path / "jars"
    jars.mkdir()
    (jars / "kafka_2.13.jar").touch()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    monkeypatch.setenv("RAYLINE_BROKER_JARS", str(jars))
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)


async def findings(state_dir: Path, kafka: KafkaSettings | None = None) -> dict[str, Finding]:
    return {finding.subject: finding for finding in await examine(state_dir, kafka)}


async def test_where_all_is_in_order_nothing_is_to_do_and_nothing_is_made(tmp_path: Path) -> None:
    found = await findings(tmp_path / "none")
    assert {finding.health for finding in found.values()} <= {Health.GOOD, Health.FAIR}
    assert all(finding.remedy for finding in found.values() if finding.health is not Health.GOOD)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("banner", "said"), [("echo 'openjdk version \"11.0.2\"' >&2", "Java 17 or later"), ("exit 1", "pip install")]
)
async def test_a_java_that_is_too_old_or_does_not_run_is_bad(tmp_path: Path, banner: str, said: str) -> None:
    (tmp_path / "jdk" / "bin" / "java").write_text(f"#!/bin/sh\n{banner}\n")
    java = (await findings(tmp_path))["Java"]
    assert java.health is Health.BAD
    assert said in java.remedy


async def test_missing_jars_name_what_gets_them(tmp_path: Path) -> None:
    (tmp_path / "jars" / "kafka_2.13.jar").unlink()
    jars = (await findings(tmp_path))["Kafka jars"]
    assert jars.health is Health.BAD
    assert "make setup" in jars.remedy


async def test_without_jars_a_docker_engine_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jars" / "kafka_2.13.jar").unlink()
    monkeypatch.setattr(doctor, "engine_answers", lambda: True)
    jars = (await findings(tmp_path))["Kafka jars"]
    assert jars.health is Health.FAIR
    assert "container" in jars.found


async def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        raise doctor.PackageNotFoundError(package)

    monkeypatch.setattr(doctor, "version", version)
    packages = (await findings(tmp_path))["packages"]
    assert (packages.health, packages.found) == (Health.BAD, "ray is not installed")


async def test_room_is_looked_for_where_the_state_folder_will_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def disk_usage(place: Path) -> Any:
        asked.append(Path(place))
        return type("Usage", (), {"free": 10})()

    monkeypatch.setattr("shutil.disk_usage", disk_usage)
    disk = (await findings(tmp_path / "not" / "yet"))["disk"]
    assert (disk.health, asked) == (Health.BAD, [tmp_path])
    assert "--state-dir" in disk.remedy


async def test_a_broker_that_does_not_answer_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nobody(settings: KafkaSettings, *, timeout_seconds: float) -> int:
        raise BrokerUnavailable(f"no broker at {settings.bootstrap_servers}")

    monkeypatch.setattr(doctor, "check_reachable", nobody)
    broker = (await findings(tmp_path, KafkaSettings(bootstrap_servers="gone:1")))["broker"]
    assert (broker.health, broker.found) == (Health.BAD, "no broker at gone:1")


async def test_what_a_killed_launcher_left_is_bad_and_down_is_the_remedy(tmp_path: Path) -> None:
    me = psutil.Process()
    pod = ProcessRecord(name="c1-pod-1", role="pod", pid=me.pid, started=me.create_time())
    launcher = ProcessRecord(name="launcher", role="launcher", pid=me.pid, started=1.0)
    StateFolder(tmp_path).write(PlatformState("run", launcher, "localhost:1", True, {}, (pod,)))
    platform = (await findings(tmp_path))["platform"]
    assert platform.health is Health.BAD
    assert "c1-pod-1" in platform.found
    assert "rayline down" in platform.remedy


async def test_a_state_folder_that_cannot_be_read_is_a_finding_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{}")
    (tmp_path / "secrets.json").write_text("{")
    found = await findings(tmp_path)
    assert {found[subject].health for subject in ("platform", "broker")} == {Health.BAD}
    assert "secrets.json" in found["broker"].found
