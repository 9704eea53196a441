"""What starts yields the processor, all of it and its children, and gets it back when it serves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from workers.priority import POD_START_NICE, may_yield, yield_no_more

# A session of a parent with a second thread, and a child that is nicer by 5 than what starts it.
STARTING = """
import os, subprocess, sys, threading
from workers.priority import POD_START_NICE, yield_while_starting
yield_while_starting(POD_START_NICE)
threading.Thread(target=threading.Event().wait, daemon=True).start()
code = "print(1, flush=True); input()"
child = subprocess.Popen(["nice", "-n", "5", sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
input()
"""


def niceness(pid: int) -> set[int]:
    return {os.getpriority(os.PRIO_PROCESS, int(task.name)) for task in Path(f"/proc/{pid}/task").iterdir()}


@pytest.mark.skipif(not may_yield(), reason="this user could not take the priority back")
def test_all_threads_and_children_of_what_starts_yield_until_it_serves() -> None:
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    command = [sys.executable, "-c", STARTING]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as root:
        assert root.stdout is not None
        try:
            child = int(root.stdout.readline())
            assert niceness(root.pid) == {min(19, ours + POD_START_NICE)}
            assert niceness(child) == {min(19, ours + POD_START_NICE + 5)}
            yield_no_more(root.pid, root.pid)
            assert niceness(root.pid) == {ours}
            assert niceness(child) == {min(19, ours + POD_START_NICE + 5) - min(19 - ours, POD_START_NICE)}
            yield_no_more(root.pid, root.pid)
            assert niceness(root.pid) == {ours}, "raised twice"
        finally:
            root.kill()


def test_who_could_not_take_it_back_does_not_yield() -> None:
    code = """
import os, resource
from workers import priority
priority._has_capability = lambda number: False
resource.setrlimit(resource.RLIMIT_NICE, (0, 0))
before = os.getpriority(os.PRIO_PROCESS, 0)
priority.yield_while_starting(10)
assert os.getpriority(os.PRIO_PROCESS, 0) == before
"""
    subprocess.run([sys.executable, "-c", code], check=True)
