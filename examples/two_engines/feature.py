"""One model, any engine: which one, and what it computes on, is told by variables. Knows nothing of Rayline."""

import importlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np

Run = Callable[[Any], Any]


class Scorer:
    """Four scores for eight values, a whole batch in one call of the engine."""

    def __init__(self) -> None:
        self._run = open_model(os.environ["RAYLINE_MODEL_SCORER"])

    def __call__(self, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        scores = self._run(np.asarray([job["values"] for job in jobs], dtype=np.float32))
        told = {"engine": os.environ["RAYLINE_ENGINE"], "provider": os.environ["RAYLINE_PROVIDER"]}
        return [{"scores": row.tolist(), **told} for row in scores]


def open_model(path: str) -> Run:
    """The model by the engine that was chosen, on the provider that this node has for it."""
    engine = importlib.import_module(os.environ["RAYLINE_ENGINE"])
    if engine.__name__ != "onnxruntime":
        own: Run = engine.open_model(path)
        return own
    session = engine.InferenceSession(path, providers=[os.environ["RAYLINE_PROVIDER"]])
    name = session.get_inputs()[0].name
    return lambda rows: session.run(None, {name: rows})[0]
