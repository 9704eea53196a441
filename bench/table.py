"""What benches found, for people and for files."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

# heading: the roles that it sums
_CPU_COLUMNS = {"lane": ("lane",), "workers": ("workers",), "Ray": ("ray", "platform"), "broker": ("broker",)}


def print_outcome(outcome: Mapping[str, Any], console: Console | None = None) -> None:
    """Two tables on standard output: what was measured, and the bars."""
    console = console or Console()
    measured = Table(title="Jobs of 1 kB, 8 partitions, one broker; CPU seconds for 1,000 jobs", title_justify="left")
    for heading in ("contestant", "jobs/s", "spread", "lost", "doubled"):
        measured.add_column(heading, justify="left" if heading == "contestant" else "right", no_wrap=True)
    for heading in _CPU_COLUMNS:
        measured.add_column(heading, justify="right")
    for name, figures in _rows(outcome):
        low, high = figures["spread"]
        seconds = figures["cpu_s_per_1000"]
        cpu = [f"{sum(seconds.get(role, 0.0) for role in roles):.4f}" for roles in _CPU_COLUMNS.values()]
        speed = f"{figures['jobs_per_s']:,.0f}"
        measured.add_row(name, speed, f"{low:,.0f}–{high:,.0f}", str(figures["lost"]), str(figures["duplicated"]), *cpu)
    console.print(measured)
    bars = Table(title="Bars", title_justify="left")
    for heading in ("bar", "measured", "must be", ""):
        bars.add_column(heading)
    for bar in outcome["bars"]:
        sign = "≥" if bar["at_least"] else "≤"
        bars.add_row(bar["name"], f"{bar['value']:g}", f"{sign} {bar['bound']:g}", "met" if bar["met"] else "MISSED")
    if outcome["bars"]:
        console.print(bars)


def tell_bars(outcome: Mapping[str, Any], json_file: Path | None) -> int:
    """An outcome as JSON, on standard output and into the file if there is one; the exit code that its `bars` give."""
    text = json.dumps(outcome, indent=2) + "\n"
    if json_file is not None:
        json_file.write_text(text)
    sys.stdout.write(text)
    return 0 if all(bar["met"] for bar in outcome["bars"]) else 1


def _rows(outcome: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    ours = [(f"rayline: {workload}", figures) for workload, figures in outcome["workloads"].items()]
    return [*ours, *outcome["references"].items()]
