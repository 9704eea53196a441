"""The command: options, the run, what is printed and written at the end, the exit code."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from deploy.demo.contact_sheet import ReadPage, save_contact_sheet
from deploy.demo.journey import Demo, DemoPlan
from deploy.demo.outcome import Outcome
from deploy.demo.view import node_summary, outcome_table
from deploy.interruption import Interruption
from deploy.run_folder import run_folder

MISSED_BAR_EXIT_CODE: Final = 1
SHEET_PAGES: Final = 9


def run(json_path: Path | None, arguments: Sequence[str] = ()) -> int:
    """`rayline demo`; 0 when every bar is reached, 1 when one is missed (it says which), 130 after Ctrl-C."""
    options = _parse(arguments)
    plan = DemoPlan(jobs=options.jobs, rate_per_second=options.rate, seed=options.seed, grace_seconds=options.grace)
    console = Console()

    async def main(interruption: Interruption) -> int:
        with run_folder("demo") as folder:
            demo = Demo(plan=plan, state_dir=folder, console=console)
            outcome = await demo.run(interruption)
        _show(console, demo, outcome, options.picture)
        if json_path is not None:
            outcome.write(json_path)
        return MISSED_BAR_EXIT_CODE if outcome.missed_bars() else 0

    return Interruption().run(main)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="rayline demo", description="Read pictures on a local platform, with an eviction.")
    parser.add_argument("--jobs", type=int, help="how many pictures (default: half a minute's worth, 48 to 120)")
    parser.add_argument("--rate", type=float, help="pictures a second (default: a share of what this machine was seen to do)")
    parser.add_argument("--seed", type=int, default=1, help="of the pictures (default: 1)")
    parser.add_argument("--grace", type=float, default=5.0, help="seconds that the evicted pod gets (default: 5)")
    parser.add_argument("--picture", type=Path, default=Path("out/demo.png"), help="contact sheet (default: out/demo.png)")
    return parser.parse_args(list(arguments))


def _show(console: Console, demo: Demo, outcome: Outcome, picture: Path) -> None:
    console.print()
    console.print(outcome_table(outcome))
    console.print()
    console.print(node_summary(demo.tally.nodes, demo.evicted))
    subtitle = (
        f"{outcome.jobs} jobs, {outcome.lost} lost, {outcome.duplicated} duplicated, {outcome.evictions} pod evicted · "
        f"accuracy {outcome.accuracy:.2%} · slowest {outcome.max_ms / 1000:.1f} s"
    )
    save_contact_sheet(picture, _pages(demo), title="Rayline: read by pods that may vanish", subtitle=subtitle)
    console.print(f"\nSome of the pages, with what was read: {picture}")
    missed = outcome.missed_bars()
    for sentence in missed:
        console.print(f"[bold red]missed:[/] {sentence}")
    if not missed:
        console.print("[bold green]All bars reached.[/]")


def _pages(demo: Demo) -> list[ReadPage]:
    """The pages on the sheet: the two read worst, up to three that were retried, the others spread over the run."""
    answered = [picture for picture in demo.pictures if picture.name in demo.tally.answers]
    pages = {picture.name: _page(demo, picture.name) for picture in answered}
    worst = sorted(pages, key=lambda name: pages[name].accuracy)[:2]
    retried = [name for name in pages if demo.tally.answers[name].result.attempts > 1][:3]
    spread = list(pages)[:: max(1, len(pages) // SHEET_PAGES)]
    chosen = list(dict.fromkeys([*worst, *retried, *spread]))[:SHEET_PAGES]
    return [pages[name] for name in sorted(chosen)]


def _page(demo: Demo, name: str) -> ReadPage:
    picture = next(picture for picture in demo.pictures if picture.name == name)
    answer = demo.tally.answers[name]
    retried = f", attempt {answer.result.attempts}" if answer.result.attempts > 1 else ""
    where = f"{answer.result.node or 'nowhere'}, {answer.latency_ms / 1000:.2f} s{retried}"
    feature = answer.result.feature() or {}
    return ReadPage(png=picture.png, truth=picture.text, feature=feature, style=picture.style, where=where)
