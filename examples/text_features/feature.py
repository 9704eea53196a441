"""Features of short texts with numpy: a hashed bag of character trigrams, and a few plain counts. Knows nothing of Rayline."""

from __future__ import annotations

from typing import Any

import numpy as np

_FNV_OFFSET = np.uint32(2166136261)
_FNV_PRIME = np.uint32(16777619)


class TextFeatures:
    """Built once for each actor, then called with the payloads of a batch: `{"text": "…"}` each."""

    def __init__(self, dimensions: int = 16) -> None:
        self._dimensions = dimensions

    def __call__(self, batch: list[dict[str, Any]]) -> list[Any]:
        """One feature for each payload, in order; an exception instance in a place is that job's error."""
        return [self._feature(payload) for payload in batch]

    def _feature(self, payload: dict[str, Any]) -> Any:
        text = payload.get("text") if isinstance(payload, dict) else None
        if not isinstance(text, str):
            return ValueError('a payload is {"text": "…"}')
        words = text.split()
        return {
            "chars": len(text),
            "words": len(words),
            "mean_word": round(sum(map(len, words)) / len(words), 3) if words else 0.0,
            "vector": np.round(self.embed(text), 4),
        }

    def embed(self, text: str) -> np.ndarray:
        """Trigram counts hashed (FNV-1a) into `dimensions` places, scaled to length 1; zeros for texts under 3 characters."""
        codes = np.frombuffer(text.lower().encode("utf-32-le"), dtype=np.uint32)
        vector = np.zeros(self._dimensions, dtype=np.float64)
        if len(codes) < 3:
            return vector
        hashes = np.full(len(codes) - 2, _FNV_OFFSET, dtype=np.uint32)
        for place in range(3):
            hashes = (hashes ^ codes[place : len(codes) - 2 + place]) * _FNV_PRIME
        np.add.at(vector, hashes % self._dimensions, 1.0)
        return vector / np.linalg.norm(vector)
