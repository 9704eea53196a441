"""The command: options, a platform of its own, the table and the picture at the end, the exit code."""

from __future__ import annotations

import argparse
import asyncio
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console

from deploy.app_registry import remove_app
from deploy.chaos.effects import network
from deploy.chaos.evidence.answers import save_answers
from deploy.chaos.faults import Stroke
from deploy.chaos.leftovers import family, left_over
from deploy.chaos.picture import save_picture
from deploy.chaos.plan import Plan, load_plan, plan_names
from deploy.chaos.run import app_name, open_theatre, strike_under_load, watched
from deploy.chaos.schedule import draw_schedule
from deploy.chaos.site import Census
from deploy.chaos.stage import RunningPlatform, Stage
from deploy.chaos.table import verdict_table
from deploy.chaos.tuning import app_of, set_config
from deploy.chaos.verdict import Found, Verdict
from deploy.interruption import Interruption
from deploy.local.platform import LocalPlatform, PlatformPlan
from deploy.local.startup_log import StartupLog
from deploy.local.state import StateFolder
from deploy.run_folder import run_folder
from rayline.errors import ConfigError

MISSED_BAR_EXIT_CODE: Final = 1


def run(json_path: Path | None, arguments: Sequence[str] = ()) -> int:
    """`rayline chaos [PLAN]`; 0 when every bar of the plan was met, 1 otherwise, 130 after Ctrl-C."""
    options = _parse(arguments)
    console = Console()
    if options.list:
        for name in plan_names():
            console.print(f"{name:<16} {load_plan(name).summary}", soft_wrap=True)
        return 0
    given = {name: value for name in ("clusters", "pods") if (value := getattr(options, name)) is not None}
    given |= {"config": options.config} if options.config is not None else {}
    given |= {"retry": False} if options.no_retry else {}
    plan = load_plan(options.plan, short=options.short, **given)
    if options.state_dir is not None and plan.stays_changed:
        raise ConfigError(
            f"plan {plan.name} leaves settings or clusters changed: leave out --state-dir, for a platform of its own"
        )
    if plan.needs_network and options.state_dir is None:
        if reason := network.missing():
            console.print(f"[yellow]faults of the network will be skipped:[/] {reason}")
        else:
            json_option = [] if json_path is None else ["--json", str(json_path)]
            network.enter_namespace(["chaos", *arguments, *json_option])

    async def main(interruption: Interruption) -> int:
        with run_folder("chaos") as folder:
            record = folder.resolve() / "record"
            record.mkdir()
            run = _Run(plan=plan, seed=options.seed, rate_per_second=options.rate, record=record, log=StartupLog())
            try:
                if options.state_dir is None:
                    verdict = await run.on_a_platform_of_its_own(folder, interruption)
                else:
                    verdict = await run.on_one_that_runs(options.state_dir)
            except asyncio.CancelledError:
                logs = StateFolder(options.state_dir or folder).logs
                struck = f"{len(run.strokes)} fault{'s' * (len(run.strokes) != 1)}"
                console.print(f"interrupted after {struck}: nothing is judged; the logs are in {logs}", soft_wrap=True)
                raise
            if options.keep is not None:
                logs = StateFolder(options.state_dir or folder).logs
                shutil.copytree(logs, options.keep / "logs", dirs_exist_ok=True)
                shutil.copytree(record, options.keep / "record", dirs_exist_ok=True)
                save_answers(options.keep / "answers.jsonl", verdict.answers)
        if json_path is not None:
            verdict.write(json_path)
        if options.picture is not None:
            save_picture(options.picture, verdict)
        console.print(verdict_table(verdict))
        for bar in verdict.missed_bars():
            console.print(f"[bold red]missed:[/] {bar.name}: {bar.text()} (wanted {bar.wanted})")
        return MISSED_BAR_EXIT_CODE if verdict.missed_bars() else 0

    return Interruption().run(main)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="rayline chaos", description="Break parts of a local platform under load.")
    parser.add_argument("plan", nargs="?", default="all", help=f"one of {', '.join(plan_names())}, or a YAML file (default: all)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments and targets (default: 1)")
    parser.add_argument("--rate", type=float, default=None, help="jobs a second (default: as the plan says)")
    parser.add_argument("--short", action="store_true", help="the plan's short form: fewer faults, less time")
    parser.add_argument("--clusters", type=int, help="Ray clusters (default: as the plan says)")
    parser.add_argument("--pods", type=int, help="pods of each cluster (default: as the plan says)")
    parser.add_argument(
        "--config", metavar="SET", help="settings during the run, e.g. as-in-the-article (default: as the plan says)"
    )
    parser.add_argument("--no-retry", action="store_true", help="whatever ends an attempt ends the job: what retries are worth")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw latency and faults over time into FILE (PNG)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="copy the logs, the app's record and all answers there")
    parser.add_argument("--state-dir", type=Path, metavar="DIR", help="strike a platform that runs already (default: its own)")
    parser.add_argument("--list", action="store_true", help="say what each plan does, and end")
    options = parser.parse_args(list(arguments))
    if options.picture is not None and options.picture.suffix.lower() != ".png":
        parser.error(f"--picture {options.picture}: the picture is a PNG, so the name must end with .png")
    return options


@dataclass(frozen=True, slots=True)
class _Run:
    """One run: what is played, where its files are, who is told."""

    plan: Plan
    seed: int
    rate_per_second: float | None
    record: Path
    log: StartupLog
    strokes: list[Stroke] = field(default_factory=list)

    async def on_a_platform_of_its_own(self, folder: Path, interruption: Interruption) -> Verdict:
        """Start one, play, stop it, and look for what it left."""
        plan = self.plan
        groups = network.PodNetwork(folder.name) if plan.needs_network and network.missing() is None else None
        platform = LocalPlatform(
            PlatformPlan(state_dir=folder, clusters=plan.clusters, pods_per_cluster=plan.pods, lanes_per_app=plan.lanes),
            log=self.log,
        )
        interruption.on_second = platform.hurry
        with opened(groups):
            async with watched(platform, groups) as census, platform:
                state = platform.folder.read()
                try:
                    found = await self._play(platform, census, pods=plan.clusters * plan.pods, groups=groups)
                except asyncio.CancelledError:
                    self.log.say("interrupted: stopping")
                    raise
                processes = family()
                self.log.say("stopping")
        left = left_over(processes, state.run_id if state is not None else "")
        return Verdict(plan=plan, seed=self.seed, found=found, left_over_processes=left)

    async def on_one_that_runs(self, state_dir: Path) -> Verdict:
        """Play there; the app of chaos is removed at the end. Faults of the network are skipped: its pods run already."""
        async with RunningPlatform(StateFolder(state_dir)) as platform, watched(platform, None) as census:
            try:
                found = await self._play(platform, census, pods=platform.pods, groups=None)
            finally:
                await remove_app(platform.settings, app_name())
        return Verdict(plan=self.plan, seed=self.seed, found=found, left_over_processes=None)

    async def _play(self, platform: Stage, census: Census, *, pods: int, groups: network.PodNetwork | None) -> Found:
        plan = self.plan
        with self.log.step("deploying the app of chaos"):
            theatre = await open_theatre(
                platform,
                census,
                record=self.record,
                pods=pods,
                work_ms=plan.work_ms,
                network=groups,
                tune=partial(app_of, plan),
            )
            if plan.config:
                await set_config(platform.settings, plan)
        self.log.say(f"plan {plan.name}, seed {self.seed}, {plan.load_seconds:g} s or longer")
        return await strike_under_load(
            theatre,
            plan=plan,
            schedule=draw_schedule(plan, self.seed),
            rate_per_second=self.rate_per_second,
            on_stroke=self._tell,
        )

    def _tell(self, stroke: Stroke) -> None:
        self.strokes.append(stroke)
        self.log.say(f"{stroke.kind}: {stroke.target}" + (f", skipped: {stroke.skipped}" if stroke.skipped else ""))


@contextmanager
def opened(groups: network.PodNetwork | None) -> Iterator[None]:
    """The groups of a run exist as long as this is open."""
    if groups is None:
        yield
        return
    groups.open()
    try:
        yield
    finally:
        groups.close()
