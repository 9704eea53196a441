"""The actor's part that runs in the app's own Python: everything that `FeatureActor` is, called through a pipe by its host.

Must be importable by every Python that an app may choose (3.10 and later) with nothing but pyarrow and msgpack beside it.
"""

from __future__ import annotations

import json
import os
from typing import Any

from workers.actor import FeatureActor

_STDIN = 0


def main(arguments: list[str]) -> None:
    """`check`: that this could be imported is the answer. `serve FD`: be the actor until standard input ends.

    Calls come as JSON lines, `[method, arguments]`, the first one with what the actor is made from; answers go to FD.
    """
    if arguments[0] == "serve":
        _serve(int(arguments[1]))


def _serve(answers_fd: int) -> None:
    os.set_inheritable(answers_fd, False)
    # What the app reads from its standard input must not be ours.
    calls_fd = os.dup(_STDIN)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, _STDIN)
    os.close(null)
    with open(calls_fd, "rb") as calls, open(answers_fd, "wb") as answers:  # noqa: PTH123 - descriptors
        actor: Any = FeatureActor(**json.loads(calls.readline()))
        for line in calls:
            method, arguments = json.loads(line)
            answers.write(json.dumps(getattr(actor, method)(*arguments)).encode() + b"\n")
            answers.flush()
    # Threads of the app must not keep a process alive whose host is gone.
    os._exit(0)
