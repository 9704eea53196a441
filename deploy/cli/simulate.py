"""`simulate`: scheduling policies side by side under virtual time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.exit_codes import ExitCode
from deploy.cli.options import Output
from deploy.cli.output import OutputFormat, note, show, table


def simulate(
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the table as JSON to FILE, too.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only what the default must reach, shorter: seconds.")] = False,
    large: Annotated[bool, typer.Option("--large", help="Fleets of 10,000 and 100,000 nodes as well.")] = False,
    only: Annotated[str | None, typer.Option("--only", metavar="TEXT", help="Only the tables whose name holds this.")] = None,
    processes: Annotated[int, typer.Option("--processes", min=1, help="Simulate so many policies side by side.")] = 1,
    cost: Annotated[
        bool, typer.Option("--cost", help="Only the smallest fleets that attain the SLA, and what they cost.")
    ] = False,
    prices: Annotated[
        tuple[float, float], typer.Option("--prices", min=0.001, help="Of a core-hour, for --cost: on demand, and preemptible.")
    ] = (1.0, 0.3),
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE", help="Draw p99 over load and over lanes as SVG.")
    ] = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Compare scheduling policies in a simulation of the real router, weights and view; the same outcome on every machine.

    Exits with 1 where the default policy misses what it must reach.
    """
    if cost:
        _show_costs(prices, json_file, processes, output)
        return
    from bench.scheduling.pictures import draw
    from bench.scheduling.tables import answers, as_document, bars, questions

    asked = [question for question in questions(quick=quick, large=large) if only is None or only in question.name]
    if not asked:
        known = ", ".join(sorted({question.name for question in questions(large=True)}))
        raise typer.BadParameter(f"no table has {only!r} in its name; there are: {known}", param_hint="--only")
    rows = list(answers(asked, note, processes=processes))
    document = as_document(rows, asked)
    if json_file is not None:
        json_file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if picture is not None:
        draw(rows, picture)
    header = ("question", "load", "lanes", "policy", "p50 s", "p99 s", "deviation", "missed", "failed", "sent again", "refused")
    lines = [
        (
            row.question,
            f"{row.load:g}",
            row.lanes,
            row.policy,
            f"{row.p50_s:.2f}",
            f"{row.p99_s:.2f}",
            f"{row.utilisation_deviation:.3f}",
            f"{row.deadline_missed:.2%}",
            f"{row.failed:.2%}",
            f"{row.sent_again:.2%}",
            f"{row.refused:.2f}",
        )
        for row in rows
    ]
    reached = bars(rows)
    verdicts = [f"{'✓' if bar.met else '✗'} load {bar.load:g}: {bar.name}: {bar.figure:g} (bar {bar.limit:g})" for bar in reached]
    show(output, document, "\n".join([table(header, lines), "", *verdicts]))
    if not all(bar.met for bar in reached):
        raise typer.Exit(ExitCode.NO)


def _show_costs(prices: tuple[float, float], json_file: Path | None, processes: int, output: OutputFormat) -> None:
    from bench.scheduling.cost import as_document, costs, offers

    compared = offers(*prices)
    rows = costs(compared, note, processes=processes)
    document = as_document(rows, compared)
    if json_file is not None:
        json_file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    header = ("machines", "core-hour", "nodes", "cores", "in time", "sent again", "an hour", "ratio")
    lines = [
        (
            row.offer,
            f"{row.price:g}",
            row.nodes,
            row.cores,
            f"{row.attained:.3%}",
            f"{row.sent_again:.2%}",
            f"{row.cost:.1f}",
            f"{row.ratio:.2f}",
        )
        for row in rows
    ]
    show(output, document, table(header, lines))
