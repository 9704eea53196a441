"""Reads the text in a picture. Plain Python: it knows nothing of the platform that runs it."""

from __future__ import annotations

import math
import statistics
from typing import Any

import cv2
import numpy as np
from rapidocr_onnxruntime import RapidOCR

Found = tuple[list[list[float]], str, float]


class TextReader:
    """Loads the detection and recognition models once, then reads one picture a call, on one core."""

    def __init__(self, threads: int = 1, min_score: float = 0.5) -> None:
        cv2.setNumThreads(threads)
        # width_height_ratio=-1: detection also runs on pictures with one wide line; text upside down is not looked for.
        self._model = RapidOCR(
            intra_op_num_threads=threads,
            inter_op_num_threads=threads,
            text_score=min_score,
            width_height_ratio=-1,
            use_cls=False,
        )
        self._warm_up()

    def __call__(self, job: dict[str, Any]) -> dict[str, Any]:
        """`{"image": PNG or JPEG bytes}` → `{"text", "lines": [{"text", "box": four corners in pixels, "score"}]}`.

        `text` has the lines from top to bottom, whatever the tilt of the page. Raises ValueError when it is not a picture.
        """
        picture = cv2.imdecode(np.frombuffer(job["image"], dtype=np.uint8), cv2.IMREAD_COLOR)
        if picture is None:
            raise ValueError("the bytes under 'image' are not a picture that can be decoded")
        found, _ = self._model(picture)
        rows = reading_order([(box, text, float(score)) for box, text, score in found or []])
        lines = [_line(row) for row in rows]
        return {"text": "\n".join(line["text"] for line in lines), "lines": lines}

    def _warm_up(self) -> None:
        """The first picture costs several times as much as the others: let none of the users' be it."""
        page = np.full((240, 400, 3), 255, dtype=np.uint8)
        cv2.putText(page, "warm up", (40, 120), cv2.FONT_HERSHEY_SIMPLEX, 1.5, (0, 0, 0), 2)
        self._model(page)


def reading_order(found: list[Found]) -> list[list[Found]]:
    """Group boxes (corners clockwise from top left) into rows from top to bottom, each from left to right.

    The page's tilt is the median slope of the boxes' upper edges; boxes are compared as if the page stood straight.
    """
    if not found:
        return []
    widest = sorted((box for box, _, _ in found), key=lambda box: box[0][0] - box[1][0])[:5]
    tilt = statistics.median(math.atan2(box[1][1] - box[0][1], box[1][0] - box[0][0]) for box in widest)

    def upright(item: Found) -> tuple[float, float]:
        x, y = (sum(corner[axis] for corner in item[0]) / 4 for axis in (0, 1))
        return y * math.cos(tilt) - x * math.sin(tilt), x * math.cos(tilt) + y * math.sin(tilt)

    height = statistics.median(math.dist(box[0], box[3]) for box, _, _ in found)
    rows: list[list[Found]] = []
    last_y = -math.inf
    for item in sorted(found, key=upright):
        y, _ = upright(item)
        if y - last_y > height / 2:
            rows.append([])
        rows[-1].append(item)
        last_y = y
    return [sorted(row, key=lambda item: upright(item)[1]) for row in rows]


def _line(row: list[Found]) -> dict[str, Any]:
    first, last = row[0][0], row[-1][0]
    corners = [first[0], last[1], last[2], first[3]]
    return {
        "text": " ".join(text for _, text, _ in row),
        "box": [[round(float(x), 1), round(float(y), 1)] for x, y in corners],
        "score": round(min(score for _, _, score in row), 4),
    }
