"""The command: options, a platform of its own, the table at the end, the exit code."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy.chaos.leftovers import family, left_over
from deploy.chaos.plan import Plan, draw_schedule, load_plan, plan_names
from deploy.chaos.run import deploy_echo, strike_under_load
from deploy.chaos.verdict import Stroke, Verdict
from deploy.interruption import Interruption
from deploy.local.platform import LocalPlatform, PlatformPlan
from deploy.local.startup_log import StartupLog
from deploy.run_folder import run_folder

MISSED_BAR_EXIT_CODE: Final = 1
CLUSTERS, PODS = 2, 2


def run(json_path: Path | None, arguments: Sequence[str] = ()) -> int:
    """`rayline chaos [PLAN]`; 0 when nothing was lost, doubled or left behind, 1 otherwise, 130 after Ctrl-C."""
    options = _parse(arguments)
    console = Console()
    if options.list:
        for name in plan_names():
            console.print(f"{name:<16} {load_plan(name).summary}", soft_wrap=True)
        return 0
    plan = load_plan(options.plan)

    async def main(interruption: Interruption) -> int:
        with run_folder("chaos") as folder:
            verdict = await _run_plan(plan, options, folder, interruption)
        console.print(verdict_table(verdict))
        for sentence in verdict.missed_bars():
            console.print(f"[bold red]missed:[/] {sentence}")
        if json_path is not None:
            verdict.write(json_path)
        return MISSED_BAR_EXIT_CODE if verdict.missed_bars() else 0

    return Interruption().run(main)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="rayline chaos", description="Break parts of a local platform under load.")
    parser.add_argument("plan", nargs="?", default="all", help=f"one of {', '.join(plan_names())}, or a YAML file (default: all)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments and targets (default: 1)")
    parser.add_argument("--rate", type=float, default=100.0, help="jobs a second (default: 100)")
    parser.add_argument("--list", action="store_true", help="say what each plan does, and end")
    return parser.parse_args(list(arguments))


async def _run_plan(plan: Plan, options: argparse.Namespace, folder: Path, interruption: Interruption) -> Verdict:
    log = StartupLog()
    platform = LocalPlatform(
        PlatformPlan(state_dir=folder, clusters=CLUSTERS, pods_per_cluster=PODS, lanes_per_app=plan.lanes), log=log
    )
    interruption.on_second = platform.hurry

    def tell(stroke: Stroke) -> None:
        log.say(f"{stroke.kind}: {stroke.target}")

    async with platform:
        with log.step("deploying the echo app"):
            app = await deploy_echo(platform, nodes=CLUSTERS * PODS)
        state = platform.folder.read()
        log.say(f"plan {plan.name}, seed {options.seed}: {options.rate:g} jobs a second for {plan.load_seconds:g} s")
        found = await strike_under_load(
            platform,
            app=app,
            schedule=draw_schedule(plan, options.seed),
            rate_per_second=options.rate,
            load_seconds=plan.load_seconds,
            on_stroke=tell,
        )
        processes = family()
        log.say("stopping")
    return Verdict.of(
        plan=plan.name,
        seed=options.seed,
        report=found.report,
        answers=found.answers,
        strokes=found.strokes,
        begun_ms=found.begun_ms,
        left_over_processes=left_over(processes, state.run_id if state is not None else ""),
    )


def verdict_table(verdict: Verdict) -> Table:
    """One line for each fault, then the numbers that count."""
    table = Table(title=f"chaos {verdict.plan}, seed {verdict.seed}", title_justify="left", title_style="bold")
    for heading in ("at", "fault", "target"):
        table.add_column(heading, no_wrap=True)
    table.add_column("all partitions again after", justify="right")
    table.add_column("last slow job after", justify="right")
    for stroke, recovery in zip(verdict.strokes, verdict.recoveries, strict=True):
        at = f"{(stroke.at_ms - verdict.begun_ms) / 1000:.1f} s"
        settled = f"{recovery.settled_ms / 1000:.2f} s" if recovery.settled_ms else "none was slow"
        table.add_row(at, stroke.kind, stroke.target, f"{recovery.recovery_ms / 1000:.2f} s", settled)
    latency = verdict.latency_ms
    outcomes = ", ".join(f"{name} {count}" for name, count in verdict.outcomes.items())
    times = " / ".join("–" if value is None else f"{value:.0f}" for value in (latency.p50, latency.p99, latency.max))
    table.caption = Text.assemble(
        f"{verdict.jobs} jobs: {outcomes}; lost ",
        _zero(verdict.lost),
        ", duplicated ",
        _zero(verdict.duplicated),
        f"; latency p50 / p99 / max {times} ms; processes left ",
        _zero(verdict.left_over_processes),
    )
    table.caption_justify = "left"
    return table


def _zero(count: int) -> tuple[str, str]:
    return str(count), "bold red" if count else "bold green"
