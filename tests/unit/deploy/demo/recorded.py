"""Results as a demo sees them, made by hand."""

from __future__ import annotations

from rayline.codec import encode_payload
from rayline.jobs import ContentType
from rayline.results import Outcome, Result


def read(job_id: str, *, text: str = "text", node: str = "c1-pod-1", batch: str = "1/2", attempts: int = 1) -> Result:
    return Result(
        job_id=job_id,
        outcome=Outcome.OK,
        source=f"ocr.requests/0/{job_id}",
        key=None,
        value=encode_payload({"text": text, "lines": []}, ContentType.MSGPACK),
        content_type=ContentType.MSGPACK,
        headers=(),
        timestamp_ms=0,
        node=node,
        cluster=node.split("-")[0],
        attempts=attempts,
        batch=batch,
        timing_ms={"execute": 300.0},
    )
