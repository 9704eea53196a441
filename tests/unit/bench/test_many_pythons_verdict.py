"""The judge of apps in several Pythons sees each kind of wrong."""

from __future__ import annotations

from dataclasses import replace

from bench.many_pythons_verdict import Expected, Reply, Verdict, judge

APPS = [
    Expected("old", "3.10", moved_to="3.13"),
    Expected("new", "3.13"),
    Expected("numpy-1", "3.11", "1.26"),
    Expected("numpy-2", "3.11", "2."),
]


def reply(app: str, python: str, numpy: str = "", *, node: str = "c1/a") -> Reply:
    return Reply(app, "1", node, {"python": f"{python}.7 (main)", "numpy": numpy, "executable": f"/{app}/bin/python3"})


GOOD = [
    reply("old", "3.10"),
    reply("old", "3.13"),
    reply("new", "3.13"),
    reply("numpy-1", "3.11", "1.26.4"),
    reply("numpy-2", "3.11", "2.1.0"),
]
SENT = {"old": 2, "new": 1, "numpy-1": 1, "numpy-2": 1}


def judged(*replies: Reply) -> Verdict:
    return judge(APPS, replies, SENT)


def test_each_from_its_own_python_and_packages_is_good() -> None:
    verdict = judged(*GOOD)
    assert verdict.good, verdict.problems
    assert verdict.apps[0].sys_versions == ("3.10.7 (main)", "3.13.7 (main)")


def test_a_job_that_failed_or_has_no_result_is_a_fault() -> None:
    assert judged(*GOOD[1:]).problems[0] == "old: 2 jobs, 1 answered well"
    assert judged(replace(GOOD[0], feature=None), *GOOD[1:]).problems[0] == "old: 2 jobs, 1 answered well"


def test_another_python_is_a_fault_also_where_a_move_did_not_come() -> None:
    assert any("new: Python 3.12" in one for one in judged(*GOOD[:2], reply("new", "3.12"), *GOOD[3:]).problems)
    assert any("old: Python 3.10 answered" in one for one in judged(GOOD[0], GOOD[0], *GOOD[2:]).problems)


def test_another_numpy_or_one_that_leaked_in_is_a_fault() -> None:
    assert any("numpy-1: numpy 2.1.0" in one for one in judged(*GOOD[:3], reply("numpy-1", "3.11", "2.1.0"), GOOD[4]).problems)
    assert any("new: numpy 2.1.0" in one for one in judged(*GOOD[:2], reply("new", "3.13", "2.1.0"), *GOOD[3:]).problems)


def test_two_versions_of_a_package_must_have_shared_a_node() -> None:
    apart = [*GOOD[:4], reply("numpy-2", "3.11", "2.1.0", node="c1/b")]
    assert judged(*apart).problems == ("no node ran all versions of numpy",)


def test_one_python_alone_shows_nothing() -> None:
    alone = judge([APPS[1]], [GOOD[2]], {"new": 1}, missing=["3.10"])
    assert not alone.good
    assert alone.missing == ("3.10",)
