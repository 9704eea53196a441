"""`rayline keeper`: the process around `scheduler.keeper`, one active at a time."""

from __future__ import annotations
