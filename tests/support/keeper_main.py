"""A keeper as a child process that can stop itself (SIGSTOP) inside a transaction.

`python -m tests.support.keeper_main NAME GROUP STOP_PHASE STOP_AT`: stops at STOP_PHASE of its transaction number STOP_AT (0:
never); GROUP keeps the keepers of one test apart from those of another.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from deploy.keeper.lease import LeaseOptions
from deploy.keeper.process import run
from rayline.bus import Phase


async def _run(name: str, group: str, stop_phase: Phase, stop_at: int) -> int:
    begun = 0

    def on_phase(phase: Phase) -> None:
        nonlocal begun
        begun += phase is Phase.BEGUN
        if (phase, begun) == (stop_phase, stop_at):
            os.kill(os.getpid(), signal.SIGSTOP)

    options = LeaseOptions(group=group, transactional_id=group, session_timeout_ms=2_000, on_phase=on_phase)
    return await run(name=name, lease=options)


def main() -> None:
    name, group, phase, stop_at = sys.argv[1:]
    logging.basicConfig(level=logging.INFO)
    sys.exit(asyncio.run(_run(name, group, Phase(phase), int(stop_at))))


if __name__ == "__main__":
    main()
