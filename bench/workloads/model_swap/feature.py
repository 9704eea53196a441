"""A feature that tells which model it used, when, and in which process. Plain Python: it knows nothing of Rayline."""

import os
import time
from pathlib import Path
from typing import Any


class Feature:
    """Reads the whole model when it is built, as an engine would; its first word is its number."""

    def __init__(self, call_ms: float) -> None:
        self._seconds = call_ms / 1000
        weights = Path(os.environ["RAYLINE_MODEL_WEIGHTS"]).read_bytes()
        self._publication = int(weights[:16].split()[0])

    def __call__(self, job: dict[str, Any]) -> dict[str, Any]:
        began_ns = time.time_ns()
        time.sleep(self._seconds)
        return {"number": job["number"], "publication": self._publication, "began_ns": began_ns, "pid": os.getpid()}
