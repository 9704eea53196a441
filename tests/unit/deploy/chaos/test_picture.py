"""The picture can be drawn of any run, and shows what it should."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageColor

from deploy.chaos.picture import GOOD, OUTCOMES, SHADE, draw_picture, save_picture
from deploy.chaos.plan import Kind, LoadPhase, LoadSpec
from tests.unit.deploy.chaos.staged import FAULT_MS, answer, evidence, execution, stroke, verdict


def colours(image: Image.Image) -> set[object]:
    return {colour for _, colour in image.getcolors(maxcolors=1 << 24) or ()}


def test_a_run_without_answers_or_faults_can_be_drawn() -> None:
    assert draw_picture(verdict(strokes=[], seen=evidence())).width > 1000


def test_a_late_job_is_marked_in_the_colour_of_its_outcome(tmp_path: Path) -> None:
    late = [answer(number, due=number * 10, took=10_100, outcome="deadline_exceeded") for number in range(50)]
    seen = evidence(late, [execution(1, 101, 0, 5)])
    save_picture(tmp_path / "out" / "run.png", verdict(seen=seen, strokes=[stroke(Kind.FREEZE, until_ms=FAULT_MS + 9_000)]))
    picture = Image.open(tmp_path / "out" / "run.png").convert("RGB")
    assert ImageColor.getrgb(OUTCOMES["deadline_exceeded"]) in colours(picture)
    assert ImageColor.getrgb(GOOD) in colours(picture)


def test_the_ground_is_shaded_while_a_burst_lasts() -> None:
    load = LoadSpec(phases=(LoadPhase(seconds=10, times=1), LoadPhase(seconds=20, times=6)))
    shade = ImageColor.getrgb(SHADE)
    assert shade in colours(draw_picture(verdict(strokes=[], load=load)))
    assert shade not in colours(draw_picture(verdict(strokes=[])))


def test_many_faults_need_no_more_room_than_one() -> None:
    many = [stroke(at_ms=FAULT_MS + number * 100) for number in range(200)]
    assert draw_picture(verdict(strokes=many)).height == draw_picture(verdict()).height
