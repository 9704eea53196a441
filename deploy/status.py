"""What `rayline status` shows: the launcher's processes, the nodes as they report themselves, the apps and their lag."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from deploy.app_registry import AppRegistry
from deploy.app_versions import version_rows, versions_text, weights_in_force
from deploy.cli.output import table
from deploy.cluster_report import ClusterReport, read_cluster_report
from deploy.config_board import read_last_words
from deploy.local.child import ProcessRecord
from deploy.local.state import PlatformState, StateFolder
from deploy.node_watch import NodeWatch
from deploy.process_health import read_health
from deploy.progress import NoProgress, idle_apps
from deploy.rollouts import Rollout, read_shares
from rayline.app_spec import AppSpec
from rayline.bus import KafkaSettings
from rayline.bus.progress import GroupProgress
from rayline.errors import RaylineError
from rayline.reports import NodeState
from rayline.topics import group_id, requests_topic
from rayline.versions import VersionWeights
from scheduler.view import NodeView

_REPORT_MEMORY_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class StatusReport:
    """A snapshot. `lags` counts the jobs of each app that are not committed; `trouble` is what kept Kafka from answering;
    `stalls` is what makes no progress, by the rule of `deploy.progress`; `addresses` tells where processes show their metrics;
    `version_weights` is what an app's lanes have in force, `shares` on which part of its nodes its newest version is to run."""

    state: PlatformState | None
    launcher_alive: bool
    bootstrap_servers: str | None
    nodes: Sequence[NodeView]
    apps: Sequence[AppSpec]
    lags: Mapping[str, int]
    clusters: ClusterReport | None
    trouble: str | None
    stalls: Sequence[NoProgress] = ()
    addresses: Mapping[str, str] = field(default_factory=dict)
    version_weights: Mapping[str, VersionWeights] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        """Whether a local platform runs, or (with Kafka named) whether any node reports."""
        return self.launcher_alive or bool(self.nodes)

    def as_dict(self) -> dict[str, Any]:
        return {
            "running": self.running,
            "ready": self.state.ready if self.state is not None else None,
            "bootstrap_servers": self.bootstrap_servers,
            "console": self.state.console if self.state is not None else None,
            "launcher": self.state.launcher.as_dict() if self.state is not None else None,
            "processes": [_process_row(record) for record in (self.state.processes if self.state is not None else ())],
            "clusters": self.clusters.as_dict()["clusters"] if self.clusters is not None else [],
            "nodes": [_node_row(node) for node in self.nodes],
            "apps": [
                {
                    **_app_row(app, self.nodes),
                    "lag": self.lags.get(app.name),
                    "versions": self._versions(app),
                    "rollout": self._rollout(app).as_dict(self._node_keys),
                }
                for app in self.apps
            ],
            "trouble": self.trouble,
            "stalls": [asdict(stall) for stall in self.stalls],
            "addresses": dict(self.addresses),
        }

    def text(self) -> str:
        data = self.as_dict()
        if self.state is None:
            head = "no local platform runs here" if self.bootstrap_servers is None else f"Kafka at {self.bootstrap_servers}"
        elif not self.launcher_alive:
            head = f"the launcher (pid {self.state.launcher.pid}) was killed; `rayline down` ends what it left"
        else:
            stage = "up" if self.state.ready else "starting"
            head = f"{stage}, launcher {self.state.launcher.pid}, Kafka at {self.bootstrap_servers}"
            head += f", console at {self.state.console}" if self.state.console is not None else ""
        parts = [head]
        if data["processes"]:
            rows = [(p["name"], p["role"], p["pid"], p["state"], f"{p['memory_mb']} MB") for p in data["processes"]]
            parts.append(table(("PROCESS", "ROLE", "PID", "STATE", "MEMORY"), rows))
        if self.clusters is not None and self.clusters.rows:
            parts.append(self.clusters.text())
        if data["nodes"]:
            node_rows = [
                (n["node"], n["state"], n["cpus"], f"{n['heard_seconds_ago']:.1f} s ago", n["actors"], n["reason"] or "")
                for n in data["nodes"]
            ]
            parts.append(table(("NODE", "STATE", "CPUS", "HEARD", "ACTORS", "REASON"), node_rows))
            unready = [(n["node"], e) for n in data["nodes"] for e in n["environments"] if e["phase"] != "ready"]
            if unready:
                rows = [
                    (node, f"{e['app']} {e['version']}", _phase(e), e["reason"] or "", e["remedy"] or "") for node, e in unready
                ]
                parts.append(table(("NODE", "ENVIRONMENT", "PHASE", "REASON", "REMEDY"), rows))
        if data["apps"]:
            app_rows = [(a["app"], a["version"], a["actors"], a["nodes"], a["lag"], a["entrypoint"]) for a in data["apps"]]
            parts.append(table(("APP", "VERSION", "ACTORS", "NODES", "LAG", "ENTRYPOINT"), app_rows))
            parts += versions_text({app["app"]: app["versions"] for app in data["apps"]})
            rollouts = [rollout.text(self._node_keys) for app in self.apps if (rollout := self._rollout(app)).partial]
            parts += ["\n".join(rollouts)] if rollouts else []
        elif self.trouble is None and self.running:
            parts.append("no app is deployed; `rayline deploy app.yaml` deploys one")
        if self.trouble is not None:
            parts.append(f"Kafka does not tell: {self.trouble}")
        if self.stalls:
            parts.append("\n".join(f"! {stall.text}" for stall in self.stalls))
        return "\n\n".join(parts)

    @property
    def _node_keys(self) -> list[str]:
        return [node.key for node in self.nodes]

    def _rollout(self, app: AppSpec) -> Rollout:
        return Rollout(app, self.shares.get(app.name, 1.0))

    def _versions(self, app: AppSpec) -> list[dict[str, Any]]:
        weights = self.version_weights.get(app.name, VersionWeights())
        wanted = [app.previous.version] if app.previous is not None and self._rollout(app).partial else []
        return version_rows(app, [node.report for node in self.nodes], weights, wanted=wanted)


async def read_status(state_dir: Path, kafka: KafkaSettings | None) -> StatusReport:
    """Look at the state folder, and at Kafka where one is known."""
    folder = StateFolder(state_dir)
    state = folder.read()
    alive = state is not None and state.launcher.process() is not None
    env = folder.read_kafka() if alive else {}
    settings = kafka or (KafkaSettings.from_env(env) if env else None)
    nodes: list[NodeView] = []
    apps: list[AppSpec] = []
    lags: dict[str, int] = {}
    clusters = None
    trouble = None
    stalls: list[NoProgress] = []
    addresses: dict[str, str] = {}
    weights: dict[str, VersionWeights] = {}
    shares: dict[str, float] = {}
    if settings is not None:
        try:
            nodes = await _read_nodes(settings)
            async with AppRegistry(settings) as registry:
                apps = list((await registry.snapshot()).values())
            lags = {app.name: await _lag(settings, app.name) for app in apps}
            clusters = await read_cluster_report(settings)
            shares = await read_shares(settings)
            words = await read_last_words(settings)
            weights = weights_in_force(word.presence for word in words.values())
            health = await read_health(words)
            addresses = {one.process: one.address for one in health if one.address is not None}
            stalls = [stall for one in health for stall in one.stalls]
            worked_on = {words[one.process].presence.identity.app for one in health}
            stalls += idle_apps(lags.items(), {app for app in worked_on if app is not None}, now_ms=round(time.time() * 1000))
        except RaylineError as error:
            trouble = str(error)
    servers = settings.bootstrap_servers if settings is not None else None
    return StatusReport(state, alive, servers, nodes, apps, lags, clusters, trouble, stalls, addresses, weights, shares)


async def _lag(settings: KafkaSettings, app: str) -> int:
    async with GroupProgress(settings=settings, group_id=group_id(app), topic=requests_topic(app)) as progress:
        return await progress.lag()


async def _read_nodes(settings: KafkaSettings) -> list[NodeView]:
    watch = NodeWatch(settings, since_seconds=_REPORT_MEMORY_SECONDS)
    await watch.start()
    try:
        await watch.caught_up()
        return [node for node in watch.nodes() if node.report.state is not NodeState.GONE]
    finally:
        await watch.close()


def _process_row(record: ProcessRecord) -> dict[str, Any]:
    process = record.process()
    row = {"name": record.name, "role": record.role, "cluster": record.cluster, "pid": record.pid}
    try:
        if process is not None:
            memory = sum(member.memory_info().rss for member in (process, *process.children(recursive=True)))
            return {**row, "state": process.status(), "memory_mb": round(memory / 2**20)}
    except psutil.NoSuchProcess:
        pass
    return {**row, "state": "gone", "memory_mb": 0}


def _node_row(node: NodeView) -> dict[str, Any]:
    report, now = node.report, time.monotonic()
    return {
        "node": report.key,
        "state": str(node.standing(now)),
        "cpus": report.cpus,
        "heard_seconds_ago": round(now - node.heard, 1),
        "actors": len(report.actors or ()),
        "reason": report.reason,
        "zone": report.zone,
        "environments": [asdict(one) for one in (report.load.environments if report.load is not None else ())],
    }


def _phase(environment: Mapping[str, Any]) -> str:
    """`fetching 34 %`, `failed, again in 8 s`."""
    phase, share, again = environment["phase"], environment["share"], environment["retry_seconds"]
    if share is not None:
        return f"{phase} {share:.0%}"
    return f"{phase}, again in {again:.0f} s" if again is not None else str(phase)


def _app_row(app: AppSpec, nodes: Sequence[NodeView]) -> dict[str, Any]:
    serving = [
        (node.report.key, actor)
        for node in nodes
        for actor in node.report.actors or ()
        if (actor.app, actor.version) == (app.name, app.version)
    ]
    return {
        "app": app.name,
        "version": app.version,
        "entrypoint": app.entrypoint,
        "root": app.root,
        "actors": len(serving),
        "nodes": len({key for key, _ in serving}),
    }
