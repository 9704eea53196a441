"""`ray start` as a child of Rayline: ends with its parent, and without the Ray Client server.

    python -m workers.ray_node PARENT_PID start --block …

Ray 2.60 starts the Ray Client server on every head whenever grpcio is installed, without an option against it; it is a door
to run code that nobody here uses.
"""

from __future__ import annotations

import sys
from typing import Final

from ray.scripts import scripts

from workers.cluster import wait_for_head
from workers.sessions import end_session_with

_ADDRESS: Final = "--address="


def main(arguments: list[str]) -> None:
    """Run Ray's command line in this process."""
    end_session_with(int(arguments[0]))
    for argument in arguments:
        if argument.startswith(_ADDRESS):
            wait_for_head(argument.removeprefix(_ADDRESS))
    scripts.get_ray_client_dependency_error = lambda: ImportError("switched off by Rayline")
    sys.argv = ["ray", *arguments[1:]]
    scripts.main()


if __name__ == "__main__":
    main(sys.argv[1:])
