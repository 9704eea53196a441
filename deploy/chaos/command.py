"""The command: options, a platform of its own, the table and the picture at the end, the exit code."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from deploy.chaos.effects import network
from deploy.chaos.faults import Stroke
from deploy.chaos.leftovers import family, left_over
from deploy.chaos.picture import save_picture
from deploy.chaos.plan import Plan, load_plan, plan_names
from deploy.chaos.run import open_theatre, strike_under_load, watched
from deploy.chaos.schedule import draw_schedule
from deploy.chaos.table import verdict_table
from deploy.chaos.verdict import Verdict
from deploy.interruption import Interruption
from deploy.local.platform import LocalPlatform, PlatformPlan
from deploy.local.startup_log import StartupLog
from deploy.run_folder import run_folder

MISSED_BAR_EXIT_CODE: Final = 1


def run(json_path: Path | None, arguments: Sequence[str] = ()) -> int:
    """`rayline chaos [PLAN]`; 0 when every bar of the plan was met, 1 otherwise, 130 after Ctrl-C."""
    options = _parse(arguments)
    console = Console()
    if options.list:
        for name in plan_names():
            console.print(f"{name:<16} {load_plan(name).summary}", soft_wrap=True)
        return 0
    plan = load_plan(options.plan, short=options.short)
    if plan.needs_network:
        if reason := network.missing():
            console.print(f"[yellow]faults of the network will be skipped:[/] {reason}")
        else:
            json_option = [] if json_path is None else ["--json", str(json_path)]
            network.enter_namespace(["chaos", *arguments, *json_option])

    async def main(interruption: Interruption) -> int:
        with run_folder("chaos") as folder:
            record = folder.resolve() / "record"
            record.mkdir()
            verdict = await _run_plan(plan, options, folder, record, interruption)
            if options.keep is not None:
                shutil.copytree(folder / "logs", options.keep / "logs", dirs_exist_ok=True)
                shutil.copytree(record, options.keep / "record", dirs_exist_ok=True)
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
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw latency and faults over time into FILE (PNG)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="copy the logs and the app's record there at the end")
    parser.add_argument("--list", action="store_true", help="say what each plan does, and end")
    return parser.parse_args(list(arguments))


async def _run_plan(plan: Plan, options: argparse.Namespace, folder: Path, record: Path, interruption: Interruption) -> Verdict:
    log = StartupLog()
    pods = network.PodNetwork(folder.name) if plan.needs_network and network.missing() is None else None
    platform = LocalPlatform(
        PlatformPlan(state_dir=folder, clusters=plan.clusters, pods_per_cluster=plan.pods, lanes_per_app=plan.lanes), log=log
    )
    interruption.on_second = platform.hurry

    def tell(stroke: Stroke) -> None:
        log.say(f"{stroke.kind}: {stroke.target}" + (f", skipped: {stroke.skipped}" if stroke.skipped else ""))

    if pods is not None:
        pods.open()
    try:
        async with watched(platform, pods) as census, platform:
            with log.step("deploying the app of chaos"):
                theatre = await open_theatre(
                    platform,
                    census,
                    record=record,
                    nodes=plan.clusters * plan.pods,
                    work_ms=plan.work_ms,
                    network=pods,
                )
            state = platform.folder.read()
            log.say(f"plan {plan.name}, seed {options.seed}, {plan.load_seconds:g} s or longer")
            found = await strike_under_load(
                theatre,
                plan=plan,
                schedule=draw_schedule(plan, options.seed),
                rate_per_second=options.rate,
                on_stroke=tell,
            )
            processes = family()
            log.say("stopping")
    finally:
        if pods is not None:
            pods.close()
    left = left_over(processes, state.run_id if state is not None else "")
    return Verdict(plan=plan, seed=options.seed, found=found, left_over_processes=left)
