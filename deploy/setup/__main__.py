"""`python3 -m deploy.setup [setup | lock]`, called by the Makefile."""

from __future__ import annotations

import sys
from pathlib import Path

from deploy.setup.environment import Environment
from deploy.setup.machine import SetupFailed, java_is_missing, require_packages


def main(arguments: list[str]) -> int:
    environment = Environment(root=Path(__file__).resolve().parents[2])
    try:
        if arguments == ["lock"]:
            environment.ensure_tools()
            environment.lock()
        elif arguments in ([], ["setup"]):
            require_packages({"mvn": "maven"}, why="to fetch Apache Kafka from Maven Central")
            environment.ensure_tools()
            environment.install(with_java=java_is_missing())
            environment.fetch_kafka()
            require_packages({"kcat": "kcat"}, why="for one conformance test, which is skipped without it", needed=False)
            environment.mark_done()
        else:
            raise SetupFailed(f"unknown argument {' '.join(arguments)!r}: say setup or lock")
    except SetupFailed as failure:
        sys.stderr.write(f"setup: {failure}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
