"""Left-over processes are found by family and by the run's id."""

from __future__ import annotations

import os
import subprocess

from deploy.chaos.leftovers import family, left_over
from deploy.local.child import RUN_ID_VARIABLE


def test_a_child_that_lives_on_is_counted_once_and_a_dead_one_is_not() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, env={**os.environ, RUN_ID_VARIABLE: "left-over-test"}) as child:
        below = [process for process in family() if process.pid == child.pid]
        assert len(below) == 1
        assert left_over(below, "left-over-test") == 1
        assert left_over([], "left-over-test") == 1
        assert left_over(below, "another") == 1
        assert left_over([], "another") == 0
        child.communicate()
    assert left_over(below, "left-over-test") == 0
