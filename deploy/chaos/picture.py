"""One picture of a run: every job's latency over time, the faults marked on it, who did the work, and the bars."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deploy.chaos.evidence.answers import Answer
from deploy.chaos.plan import Kind
from deploy.chaos.verdict import SLA_MS, Verdict

WIDTH_PX: Final = 1600
LEFT_PX, RIGHT_PX, TOP_PX = 120, 40, 108
LATENCY_PX, ROW_PX, WORK_PX, GAP_PX, BAR_LINE_PX = 420, 26, 150, 56, 26
SHARP: Final = 2  # drawn so many times larger, then made smaller: Pillow's lines have no soft edges
LOWEST_MS: Final = 5.0
BAR_COLUMNS: Final = 2
PAPER, CARD, INK, GREY, FAINT = "#eef1f5", "#ffffff", "#16202c", "#6b7785", "#dde3ea"
GOOD, BAD, P50, P99, DOT = "#1b7f4d", "#b3261e", "#1d6fd1", "#c2570c", "#9db7d6"
OUTCOMES: Final = {"ok": DOT, "deadline_exceeded": "#b3261e", "quarantined": "#7b2fa8", "error": "#d6001c", "invalid": "#d6001c"}
FAULTS: Final = {
    Kind.KILL: "#b3261e",
    Kind.STOP: "#c2570c",
    Kind.NOTICE: "#b8860b",
    Kind.FREEZE: "#1d6fd1",
    Kind.POISON: "#7b2fa8",
}
SHADE: Final = "#f3ecdf"
OTHER_FAULT: Final = "#3a7d7c"
PODS: Final = ("#1d6fd1", "#c2570c", "#1b7f4d", "#7b2fa8", "#b8860b", "#3a7d7c", "#b3261e", "#5b6b7d", "#d46a9f", "#6aa84f")


@dataclass(frozen=True, slots=True)
class Frame:
    """Where time is on the paper: `x` of a moment, in pixels of the drawing."""

    begun_ms: float
    ended_ms: float

    @property
    def seconds(self) -> float:
        return (self.ended_ms - self.begun_ms) / 1000

    def x(self, moment_ms: float) -> float:
        part = (moment_ms - self.begun_ms) / (self.ended_ms - self.begun_ms)
        return LEFT_PX + min(1.0, max(0.0, part)) * (WIDTH_PX - LEFT_PX - RIGHT_PX)


def save_picture(path: Path, verdict: Verdict) -> None:
    """Write it as a PNG, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_picture(verdict).save(path, optimize=True)


def draw_picture(verdict: Verdict) -> Image.Image:
    """Latency above, then a row for each kind of fault, the pods' parts of the work, and the bars."""
    rows = sorted({_row(stroke.kind, stroke.role) for stroke in verdict.done})
    bars = verdict.bars()
    faults_top = TOP_PX + LATENCY_PX + 34
    work_top = faults_top + len(rows) * ROW_PX + GAP_PX
    bars_top = work_top + WORK_PX + GAP_PX
    height = bars_top + math.ceil(len(bars) / BAR_COLUMNS) * BAR_LINE_PX + 30
    paper = Paper(WIDTH_PX, height)
    frame = Frame(verdict.found.begun_ms, max(verdict.found.ended_ms, verdict.found.begun_ms + 1000))
    _headline(paper, verdict)
    paper.box(LEFT_PX, TOP_PX, WIDTH_PX - RIGHT_PX, TOP_PX + LATENCY_PX, fill=CARD)
    _fault_lines(paper, frame, verdict, faults_top + len(rows) * ROW_PX)
    _latency(paper, frame, verdict.answers)
    _fault_rows(paper, frame, verdict, rows, faults_top)
    _work(paper, frame, verdict, work_top)
    _bars(paper, verdict, bars_top)
    return paper.finished()


class Paper:
    """A drawing in plain pixels that is drawn larger inside. Owns the image."""

    def __init__(self, width: int, height: int) -> None:
        self._image = Image.new("RGB", (width * SHARP, height * SHARP), PAPER)
        self._pen = ImageDraw.Draw(self._image)

    def finished(self) -> Image.Image:
        return self._image.resize((self._image.width // SHARP, self._image.height // SHARP), Image.Resampling.LANCZOS)

    def box(self, left: float, top: float, right: float, bottom: float, *, fill: str, outline: str | None = None) -> None:
        corners = (left * SHARP, top * SHARP, max(left + 0.5, right) * SHARP, bottom * SHARP)
        self._pen.rectangle(corners, fill=fill, outline=outline)

    def line(self, points: Sequence[tuple[float, float]], *, fill: str, width: float = 1.0) -> None:
        if len(points) > 1:
            scaled = [(x * SHARP, y * SHARP) for x, y in points]
            self._pen.line(scaled, fill=fill, width=max(1, round(width * SHARP)), joint="curve")

    def polygon(self, points: Sequence[tuple[float, float]], *, fill: str) -> None:
        if len(points) > 2:
            self._pen.polygon([(x * SHARP, y * SHARP) for x, y in points], fill=fill)

    def dot(self, x: float, y: float, radius: float, *, fill: str) -> None:
        self._pen.ellipse([(v * SHARP) for v in (x - radius, y - radius, x + radius, y + radius)], fill=fill)

    def text(self, x: float, y: float, words: str, *, size: int = 14, fill: str = INK, anchor: str = "la") -> None:
        self._pen.text((x * SHARP, y * SHARP), words, font=ImageFont.load_default(size * SHARP), fill=fill, anchor=anchor)


def _headline(paper: Paper, verdict: Verdict) -> None:
    latency, load = verdict.latency_ms, verdict.found
    missed = len(verdict.missed_bars())
    paper.text(LEFT_PX, 18, f"chaos: {verdict.plan.name}", size=28)
    paper.text(
        WIDTH_PX - RIGHT_PX,
        22,
        "every bar met" if not missed else f"{missed} bar{'s' * (missed > 1)} missed",
        size=22,
        fill=BAD if missed else GOOD,
        anchor="ra",
    )
    outcomes = ", ".join(f"{name} {count:,}" for name, count in verdict.outcomes.items())
    paper.text(
        LEFT_PX,
        56,
        f"{verdict.jobs:,} jobs at {load.rate_per_second:.0f}/s, seed {verdict.seed} · {outcomes} · lost {verdict.lost}, "
        f"duplicated {verdict.duplicated} · latency p50 / p99 / max {_ms(latency.p50)} / {_ms(latency.p99)} / {_ms(latency.max)}",
        size=15,
        fill=GREY,
    )
    x = float(LEFT_PX)
    for words, colour in (("job", DOT), ("p50 of a second", P50), ("p99 of a second", P99)):
        paper.dot(x + 5, 92, 4, fill=colour)
        paper.text(x + 14, 84, words, size=13, fill=GREY)
        x += 150
    others = [name for name in verdict.outcomes if name != "ok"]
    for name in others:
        paper.dot(x + 5, 92, 4, fill=OUTCOMES.get(name, BAD))
        paper.text(x + 14, 84, name, size=13, fill=GREY)
        x += 180
    paper.text(
        WIDTH_PX - RIGHT_PX, 84, "latency: from when the job was due to its result in Kafka", size=13, fill=GREY, anchor="ra"
    )


def _latency(paper: Paper, frame: Frame, answers: Sequence[Answer]) -> None:
    highest = max([SLA_MS * 1.3, *(answer.latency_ms * 1.2 for answer in answers)])
    bottom = TOP_PX + LATENCY_PX

    def y(latency_ms: float) -> float:
        part = math.log(max(LOWEST_MS, latency_ms) / LOWEST_MS) / math.log(highest / LOWEST_MS)
        return bottom - part * LATENCY_PX

    for tick in (5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 60_000, 120_000):
        if LOWEST_MS <= tick <= highest:
            paper.line([(LEFT_PX, y(tick)), (WIDTH_PX - RIGHT_PX, y(tick))], fill=FAINT, width=0.5)
            paper.text(LEFT_PX - 8, y(tick), _ms(tick), size=12, fill=GREY, anchor="rm")
    _seconds_axis(paper, frame, bottom)
    for answer in sorted(answers, key=lambda answer: answer.outcome != "ok"):
        usual = answer.outcome == "ok"
        colour = OUTCOMES.get(answer.outcome, BAD)
        paper.dot(frame.x(answer.due_ms), y(answer.latency_ms), 1.0 if usual else 3.0, fill=colour)
    step_ms = max(1000.0, (frame.ended_ms - frame.begun_ms) / 400)
    spans: dict[int, list[float]] = defaultdict(list)
    for answer in answers:
        spans[int((answer.due_ms - frame.begun_ms) // step_ms)].append(answer.latency_ms)
    for percentile, colour in ((50, P50), (99, P99)):
        points = [
            (frame.x(frame.begun_ms + (number + 0.5) * step_ms), y(float(np.percentile(spans[number], percentile))))
            for number in sorted(spans)
        ]
        paper.line(points, fill=colour, width=1.6)
    for start in range(LEFT_PX, WIDTH_PX - RIGHT_PX, 14):
        paper.line([(start, y(SLA_MS)), (start + 7, y(SLA_MS))], fill=BAD, width=1.2)
    paper.text(WIDTH_PX - RIGHT_PX - 6, y(SLA_MS) - 3, "SLA 10 s", size=12, fill=BAD, anchor="rb")


def _seconds_axis(paper: Paper, frame: Frame, bottom: float) -> None:
    step = next((s for s in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600) if frame.seconds / s <= 16), 1200)
    for second in range(0, int(frame.seconds) + 1, step):
        x = frame.x(frame.begun_ms + second * 1000)
        paper.line([(x, bottom), (x, bottom + 4)], fill=GREY)
        paper.text(x, bottom + 7, f"{second} s", size=12, fill=GREY, anchor="ma")


def _fault_lines(paper: Paper, frame: Frame, verdict: Verdict, bottom: float) -> None:
    """Behind everything else: a shade while a fault or a burst lasts, and a thin line where it struck."""
    lasting = [(s.at_ms, s.until_ms) for s in verdict.done if s.until_ms is not None and s.kind is not Kind.NOTICE]
    for from_ms, until_ms in [*verdict.bursts, *lasting]:
        paper.box(frame.x(from_ms), TOP_PX, frame.x(until_ms), TOP_PX + LATENCY_PX, fill=SHADE)
    many = len(verdict.done) > 60
    for stroke in verdict.done:
        x = frame.x(stroke.at_ms)
        paper.line([(x, TOP_PX), (x, bottom)], fill=FAINT if many else "#e3b9b4", width=0.5 if many else 1.0)


def _fault_rows(paper: Paper, frame: Frame, verdict: Verdict, rows: Sequence[str], top: float) -> None:
    names_fit = len(verdict.done) <= 24
    for number, row in enumerate(rows):
        y = top + number * ROW_PX
        paper.text(LEFT_PX - 8, y + ROW_PX / 2, row, size=13, anchor="rm")
        paper.line([(LEFT_PX, y + ROW_PX / 2), (WIDTH_PX - RIGHT_PX, y + ROW_PX / 2)], fill=FAINT, width=0.5)
        free_from = 0.0
        for stroke in verdict.done:
            if _row(stroke.kind, stroke.role) != row:
                continue
            colour = FAULTS.get(stroke.kind, OTHER_FAULT)
            x = frame.x(stroke.at_ms)
            until = frame.x(stroke.until_ms) if stroke.until_ms is not None else x
            paper.box(x - 1.5, y + 5, max(until, x + 1.5), y + ROW_PX - 5, fill=colour)
            if names_fit and x > free_from:
                right = max(until, x) + 6
                paper.text(right, y + ROW_PX / 2, stroke.target, size=12, fill=GREY, anchor="lm")
                free_from = right + 7 * len(stroke.target)


def _work(paper: Paper, frame: Frame, verdict: Verdict, top: float) -> None:
    """Jobs begun a second, by pod, as layers: a pod that leaves, fades or comes is seen as its layer."""
    paper.text(LEFT_PX, top - 8, "jobs begun a second, by pod (the function's own record)", size=13, fill=GREY, anchor="lb")
    paper.box(LEFT_PX, top, WIDTH_PX - RIGHT_PX, top + WORK_PX, fill=CARD)
    step_ms = max(1000.0, (frame.ended_ms - frame.begun_ms) / 200)
    steps = max(1, math.ceil((frame.ended_ms - frame.begun_ms) / step_ms))
    counts: dict[int, Counter[int]] = defaultdict(Counter)
    for execution in verdict.found.evidence.executions:
        counts[execution.session][min(steps - 1, int((execution.began_ms - frame.begun_ms) // step_ms))] += 1
    sessions = sorted(counts)
    highest = max((sum(counts[s][step] for s in sessions) for step in range(steps)), default=0) or 1
    floor = [0] * steps

    def edge(heights: Sequence[int]) -> list[tuple[float, float]]:
        return [
            (frame.x(frame.begun_ms + (step + 0.5) * step_ms), top + WORK_PX - WORK_PX * height / highest / 1.05)
            for step, height in enumerate(heights)
        ]

    for number, session in enumerate(sessions):
        ceiling = [below + counts[session][step] for step, below in enumerate(floor)]
        paper.polygon([*edge(ceiling), *reversed(edge(floor))], fill=PODS[number % len(PODS)])
        floor = ceiling
    paper.text(LEFT_PX - 8, top + WORK_PX, "0", size=12, fill=GREY, anchor="rb")
    paper.text(LEFT_PX - 8, top + 8, f"{highest / step_ms * 1000:.0f}/s", size=12, fill=GREY, anchor="rm")
    _seconds_axis(paper, frame, top + WORK_PX)


def _bars(paper: Paper, verdict: Verdict, top: float) -> None:
    width = (WIDTH_PX - LEFT_PX - RIGHT_PX) / BAR_COLUMNS
    for number, bar in enumerate(verdict.bars()):
        x = LEFT_PX + (number % BAR_COLUMNS) * width
        y = top + (number // BAR_COLUMNS) * BAR_LINE_PX
        paper.dot(x + 7, y + 9, 5, fill=GOOD if bar.met else BAD)
        paper.text(x + 22, y, f"{bar.name}: {bar.text()}", size=15, fill=INK if bar.met else BAD)
        paper.text(x + width - 40, y, bar.wanted, size=13, fill=GREY, anchor="ra")


def _row(kind: Kind, role: str) -> str:
    return f"{role}: {kind}"


def _ms(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:g} s" if value % 1000 == 0 else f"{value / 1000:.2f} s"
