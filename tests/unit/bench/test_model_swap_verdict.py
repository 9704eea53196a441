"""The judge of swapped models sees each kind of wrong."""

from __future__ import annotations

from dataclasses import replace

from bench.model_swap_verdict import Answer, Swap, judge


def answer(generation: int, began_ms: int, *, node: str = "c1/a", publication: int | None = None) -> Answer:
    label = f"{generation}:weights@{generation}" if generation else None
    return Answer(node, label, generation if publication is None else publication, began_ms * 10**6, began_ms + 20)


GOOD = [answer(0, 10), answer(0, 11, node="c1/b"), answer(3, 20), answer(3, 35, node="c1/b"), answer(3, 40)]
SWAPS = [Swap(3, "weights@3", 15)]


def test_a_run_without_a_wrong_is_good_and_tells_how_long_a_swap_took() -> None:
    verdict = judge(GOOD, SWAPS, failed=0, lost=0, duplicated=0)
    assert verdict.good
    assert (verdict.results, verdict.generations, verdict.taken_up_ms) == (5, 2, [20])
    assert verdict.nodes == {"c1/a": 3, "c1/b": 2}


def test_an_older_generation_after_a_newer_one_counts_on_its_node_alone() -> None:
    verdict = judge([*GOOD, answer(0, 34, node="c1/b")], SWAPS, failed=0, lost=0, duplicated=0)
    assert verdict.good
    verdict = judge([*GOOD, answer(0, 36, node="c1/b")], SWAPS, failed=0, lost=0, duplicated=0)
    assert (verdict.backwards, verdict.good) == (1, False)


def test_results_that_overtake_each_other_on_their_way_are_told_and_no_fault() -> None:
    overtaken = replace(answer(0, 19), published_ms=99)
    verdict = judge([*GOOD, overtaken], SWAPS, failed=0, lost=0, duplicated=0)
    assert (verdict.backwards, verdict.backwards_published, verdict.good) == (0, 1, True)


def test_the_way_of_a_model_is_told_from_its_export_to_its_first_result_in_kafka() -> None:
    exported = [Swap(3, "weights@3", 15, exported_ms=5), Swap(3, "rollback", 16), Swap(9, "weights@9", 90, exported_ms=80)]
    assert judge(GOOD, exported, failed=0, lost=0, duplicated=0).first_result_ms == [35, None]


def test_a_wrong_label_a_failed_lost_or_double_job_and_a_node_left_behind_are_each_a_fault() -> None:
    assert judge([*GOOD, answer(3, 50, publication=2)], SWAPS, failed=0, lost=0, duplicated=0).mislabelled == 1
    for wrong in ({"failed": 1}, {"lost": 1}, {"duplicated": 1}):
        assert not judge(GOOD, SWAPS, **{"failed": 0, "lost": 0, "duplicated": 0, **wrong}).good
    assert judge(GOOD, [*SWAPS, Swap(9, "rollback", 60)], failed=0, lost=0, duplicated=0).taken_up_ms == [20, None]
    assert not judge(GOOD, [], failed=0, lost=0, duplicated=0).good


def test_the_bundles_own_model_is_publication_nought() -> None:
    back = Answer("c1/a", "5:bundle", 0, 1, 1)
    assert back.is_labelled_right
    assert back.generation == 5
    assert not replace(back, publication=1).is_labelled_right
