"""What long work tells people on its way: a bar on a terminal's stderr, a line for each step elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deploy.cli.output import note

if TYPE_CHECKING:
    from runtime_env.build.builder import Progress
    from runtime_env.transfer import Transfer


@contextmanager
def build_bar() -> Iterator[Callable[[Progress], None]]:
    """The steps of a build."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda step: note(f"[{step.done}/{step.total}] {step.what}")
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda step: bar.update(task, completed=step.done, total=step.total, description=step.what)


@contextmanager
def bytes_bar() -> Iterator[Callable[[Transfer], None]]:
    """Bytes that are read, packed or stored, one thing after the other."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    before = ""
    if not console.is_terminal:

        def tell(transfer: Transfer) -> None:
            nonlocal before
            if transfer.what != before:
                note(transfer.what)
            before = transfer.what

        yield tell
        return
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)

        def draw(transfer: Transfer) -> None:
            nonlocal before
            if transfer.what != before:
                bar.reset(task, total=transfer.total_bytes, description=transfer.what)
            before = transfer.what
            bar.update(task, completed=transfer.done_bytes)

        yield draw
