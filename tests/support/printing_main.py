"""A worker process without Ray: captures its output for the agent in a folder, then runs batches that it is given on stdin.

`python -m tests.support.printing_main FOLDER`: each line on stdin is a JSON object with `source` (defines `feature`), `payloads`,
`batch`, `ids` and further fields of the app's spec; each is answered on the process's first stdout by a line with the
seconds that the batch took.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from rayline.app_spec import AppSpec, BatchFormat, Call
from rayline.codec import encode_payload
from rayline.jobs import ContentType, Job
from rayline.wire import BatchHead, pack_job_ids
from workers.app_versions import AppVersions, Served
from workers.executor import Executor
from workers.loading import LoadedApp, is_async
from workers.output.capture import OutputCapture, capture_output
from workers.output.frames import Hello
from workers.run import Run


def main(folder: str) -> None:
    replies = os.dup(1)
    capture = capture_output(Path(folder), Hello("app", "v1", "actor", "i1", os.getpid(), ("correct horse",)))
    assert capture is not None
    for line in sys.stdin:
        begun = time.perf_counter()
        run_batch(capture, **json.loads(line))
        os.write(replies, f"{time.perf_counter() - begun}\n".encode())


def run_batch(
    capture: OutputCapture,
    *,
    source: str,
    payloads: list[Any],
    batch: str = "b1",
    ids: list[str] | None = None,
    call: str = "job",
    batch_format: str = "rows",
    trace: str | None = None,
) -> None:
    names: dict[str, Any] = {}
    exec(source, names)
    feature = names["feature"]
    spec = AppSpec("app", "v1", "/", "m:f", call=Call(call), batch_format=BatchFormat(batch_format))
    executor = Executor(
        versions=AppVersions(served=Served(LoadedApp(feature, is_async(feature), None))), spec=spec, output=capture
    )
    given = ids or [None] * len(payloads)
    jobs = [Job("t", 3, n, 0, None, b"", (), name, ContentType.JSON, 0.0, 0.0) for n, name in enumerate(given)]
    head = BatchHead(batch, ContentType.JSON, 20_000, {} if trace is None else {0: trace}, jobs=pack_job_ids(jobs))
    executor.run(Run(head=head, now=time.monotonic()), [encode_payload(payload, ContentType.JSON) for payload in payloads])
    executor.close()


if __name__ == "__main__":
    main(sys.argv[1])
