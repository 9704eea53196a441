"""Which Python and which packages answer: those of the bundle, whatever the platform itself runs on."""

import sys
from typing import Any

import numpy as np


def feature(job: list[float]) -> dict[str, Any]:
    """Mean and deviation of some numbers, and what computed them."""
    numbers = np.asarray(job, dtype=np.float64)
    return {"mean": float(numbers.mean()), "std": float(numbers.std()), "python": sys.version.split()[0], "numpy": np.__version__}
