"""Some milliseconds of CPU for each job; each beginning and end is written down by the user's own code.

A line of the record: `b <job> <epoch ns>` or `e <job> <epoch ns>`; its file's name says which session (pod) and process wrote it.
"""

import hashlib
import os
import signal
import time
from typing import Any

_ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "0"))
_FOLDER = os.environ.get("CHAOS_RECORD")
_BLOCK = bytes(64 * 1024)
_record = (
    None if _FOLDER is None else os.open(f"{_FOLDER}/{os.getsid(0)}-{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
)


def digest(job: dict[str, Any]) -> dict[str, Any]:
    """The digest of the job's text; a job with `poison` kills the process."""
    _note("b", job["n"])
    if job.get("poison"):
        os.kill(os.getpid(), signal.SIGKILL)
    burn = hashlib.sha256()
    for _ in range(_ROUNDS):
        burn.update(_BLOCK)
    _note("e", job["n"])
    return {"n": job["n"], "digest": hashlib.sha256(job["text"].encode()).hexdigest()}


def _note(what: str, number: int) -> None:
    if _record is not None:
        os.write(_record, f"{what} {number} {time.time_ns()}\n".encode())
