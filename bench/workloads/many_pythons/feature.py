"""A feature that tells which interpreter and which packages answer. Plain Python, for every version that an app may choose."""

import importlib
import importlib.util
import os
import sys
from typing import Any

numpy: Any = importlib.import_module("numpy") if importlib.util.find_spec("numpy") else None


def feature(job: dict[str, Any]) -> dict[str, Any]:
    """`scalar` is written another way since numpy 2: it shows which code ran, not what a file says of itself."""
    return {
        "number": job["number"],
        "python": sys.version,
        "executable": sys.executable,
        "pid": os.getpid(),
        "numpy": numpy.__version__ if numpy else "",
        "scalar": repr(numpy.float64(job["number"])) if numpy else "",
    }
