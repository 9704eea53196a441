"""Runs an app's feature function over one batch: decode, call, encode, job by job, with faults kept to the job at fault.

Knows nothing of Ray, Flight or Kafka. The conventions are those of Ray Data's `map_batches`; see docs/protocol.md.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Protocol

from rayline.app_spec import AppSpec, BatchFormat, Call
from rayline.codec import decode_payload, encode_payload
from rayline.errors import ContractError, FormatError
from rayline.jobs import ContentType
from rayline.wire import WHOLE_BATCH, JobStatus, Verdict
from workers.app_loop import AppLoop
from workers.app_versions import AppVersions, Served
from workers.columns import common_keys, from_columns, to_columns
from workers.failures import CONTRACT_ERROR, TracebackLog, bounded, describe_error, describe_value
from workers.output.capture import OutputCapture
from workers.run import Run

__all__ = ["Executor", "Run"]

MAX_CONTRACT_MESSAGE_CHARS = 1_000


class Gate(Protocol):
    """Bounds the calls that run at once: None when the caller may go on, otherwise the verdict for the whole batch."""

    def enter(self, timeout_seconds: float, *, alone: bool = False) -> Verdict | None: ...

    def leave(self, *, alone: bool = False, seconds: float | None = None) -> None: ...


class Executor:
    """Owns, for async functions, one event loop thread. Does not own the loaded app, streams or limits of time.

    Life cycle: construct, `run` from any number of threads, `close`.
    """

    def __init__(self, *, versions: AppVersions, spec: AppSpec, output: OutputCapture | None = None) -> None:
        """`output` is told which batch and job runs, and gets the tracebacks."""
        self._versions = versions
        self._spec = spec
        self._output = output
        self._tracebacks = TracebackLog(None if output is None else output.traceback)
        is_async = versions.served.app.is_async
        self._loop = AppLoop() if is_async else None
        # An async function's jobs run side by side, unless they are rows of tables.
        self._one_by_one = spec.call is Call.JOB and (not is_async or spec.batch_format is not BatchFormat.ROWS)

    def close(self) -> None:
        """Stop the event loop thread; calls that still run there are abandoned."""
        if self._loop is not None:
            self._loop.close()

    def run(self, run: Run, payloads: Sequence[bytes], gate: Gate | None = None) -> Verdict:
        """Answer every job of the batch into `run.answers`; anything but DONE says why some jobs have no answer.

        The gate is held during the calls only, so that the next batch is decoded while this one runs.
        """
        decoded = self._decode(run, payloads)
        if not decoded:
            return Verdict.DONE
        alone = run.head.alone
        if gate is not None:
            refusal = gate.enter(max(0.0, run.deadline - time.monotonic()), alone=alone)
            if refusal is not None:
                return refusal
        run.entered = time.monotonic()
        if self._output is not None:
            self._output.begin(run)
        try:
            if run.around is None:
                return self._call(run, decoded)
            with run.around as note:
                verdict = self._call(run, decoded)
                note(verdict)
                return verdict
        finally:
            run.call_started = None
            run.execute_seconds = time.monotonic() - run.entered
            if self._output is not None:
                self._output.end(run)
            if gate is not None:
                gate.leave(alone=alone, seconds=run.execute_seconds)

    def _call(self, run: Run, decoded: Sequence[tuple[int, Any]]) -> Verdict:
        if run.announce is not None and not self._one_by_one:
            run.announce(WHOLE_BATCH)
        if self._spec.call is Call.JOB and self._spec.batch_format is BatchFormat.ROWS:
            return self._run_jobs(run, decoded) if self._loop is None else self._run_jobs_async(self._loop, run, decoded)
        return self._run_batches(run, decoded)

    def _take_version(self, run: Run) -> Served | None:
        """What the call that begins now runs on; answers of another version are handed out first, so that each names its own.

        None: the node went on to models that are not here, or not yet.
        """
        served = self._versions.take()
        if served is not None and run.model_version != served.label:
            if len(run.answers) and run.hand_out is not None:
                run.hand_out()
            run.model_version = served.label
        return served

    def _decode(self, run: Run, payloads: Sequence[bytes]) -> list[tuple[int, Any]]:
        content_type = run.head.content_type
        decoded = []
        for index, payload in enumerate(payloads):
            try:
                decoded.append((index, decode_payload(payload, content_type)))
            except FormatError as error:
                run.answers.fail(index, JobStatus.INVALID, "rayline.FormatError", bounded(str(error), MAX_CONTRACT_MESSAGE_CHARS))
        return decoded

    def _run_jobs(self, run: Run, decoded: Sequence[tuple[int, Any]]) -> Verdict:
        versions, content_type, announce = self._versions, run.head.content_type, run.announce
        turn, generation, function = versions.turn, -1, versions.served.app.function
        max_bytes, ok, clock, deadline = self._spec.limits.max_result_bytes, run.answers.ok, time.monotonic, run.deadline
        for index, payload in decoded:
            if run.draining:
                return Verdict.DRAINING
            if turn[0] != generation:
                served = self._take_version(run)
                if served is None:
                    return Verdict.BUSY
                generation, function = served.generation, served.app.function
            if announce is not None:
                announce(index)
            run.position = index
            run.call_started = now = clock()
            if now > deadline:
                return Verdict.TIMEOUT
            try:
                feature = function(payload)
            except BaseException as error:  # noqa: BLE001 - SystemExit of one job must not end its neighbours
                self._fail(run, index, error)
                continue
            if feature is not None:
                try:
                    value = encode_payload(feature, content_type)
                    if len(value) <= max_bytes:
                        ok(index, value)
                        continue
                except Exception:  # noqa: BLE001 - the slow path below encodes once more and names the contract
                    pass
            self._answer(run, index, feature, content_type)
        return Verdict.DONE

    def _answer(self, run: Run, index: int, feature: Any, content_type: ContentType) -> None:
        """Encode one feature, or say in which way it breaks the contract."""
        if isinstance(feature, BaseException):
            self._fail(run, index, feature)
            return
        if feature is None:
            self._break(run, index, "a feature function returns a value for each job; it returned None")
            return
        try:
            value = encode_payload(feature, content_type)
        except BaseException as error:  # noqa: BLE001 - encoding may call the user's objects
            why = str(error) if isinstance(error, FormatError) else ": ".join(describe_error(error))
            if isinstance(feature, Awaitable) and hasattr(feature, "close"):
                feature.close()
            self._break(
                run,
                index,
                f"a feature is plain data that {content_type.value} can hold; it returned {describe_value(feature)}: {why}",
            )
            return
        limit = self._spec.limits.max_result_bytes
        if len(value) > limit:
            self._break(
                run, index, f"a feature has at most {limit} bytes (limits.max_result_bytes); it returned {len(value)} bytes"
            )
            return
        run.answers.ok(index, value)

    def _fail(self, run: Run, index: int, error: BaseException) -> None:
        if isinstance(error, ContractError):
            self._break(run, index, str(error))
            return
        run.position = index
        self._tracebacks.print(error)
        run.answers.fail(index, JobStatus.ERROR, *describe_error(error))

    def _break(self, run: Run, index: int, message: str) -> None:
        run.answers.fail(index, JobStatus.ERROR, CONTRACT_ERROR, bounded(message, MAX_CONTRACT_MESSAGE_CHARS))

    def _run_jobs_async(self, loop: AppLoop, run: Run, decoded: Sequence[tuple[int, Any]]) -> Verdict:
        served = self._take_version(run)
        if served is None:
            return Verdict.BUSY
        calls = [(index, partial(served.app.function, payload)) for index, payload in decoded]
        enter = None if self._output is None else partial(self._output.enter, run)
        return loop.run(run, calls, self._answer_or_fail, limit_seconds=self._spec.limits.execute_seconds, enter=enter)

    def _answer_or_fail(self, run: Run, index: int, feature: Any) -> None:
        run.position = index
        self._answer(run, index, feature, run.head.content_type)

    def _run_batches(self, run: Run, decoded: Sequence[tuple[int, Any]]) -> Verdict:
        """Call with the whole batch; what raises is split in halves until the job at fault stands alone."""
        pending = [self._with_common_keys(run, decoded)]
        if self._spec.call is Call.JOB:
            pending = [[job] for job in reversed(pending[0])]
        while pending:
            jobs = pending.pop()
            if not jobs:
                continue
            if run.draining:
                return Verdict.DRAINING
            if run.announce is not None and self._one_by_one:
                run.announce(jobs[0][0])
            run.position = jobs[0][0] if len(jobs) == 1 else None
            run.call_started = now = time.monotonic()
            if now > run.deadline:
                return Verdict.TIMEOUT
            served = self._take_version(run)
            if served is None:
                return Verdict.BUSY
            try:
                features = self._call_batch(run, served.app.function, [payload for _, payload in jobs])
            except ContractError as error:
                for index, _ in jobs:
                    self._break(run, index, str(error))
            except BaseException as error:  # noqa: BLE001 - SystemExit of one job must not end its neighbours
                if len(jobs) == 1:
                    self._fail(run, jobs[0][0], error)
                else:
                    half = len(jobs) // 2
                    pending += [jobs[half:], jobs[:half]]
            else:
                if features is None:
                    return Verdict.TIMEOUT
                for (index, _), feature in zip(jobs, features, strict=True):
                    self._answer(run, index, feature, run.head.content_type)
        return Verdict.DONE

    def _call_batch(self, run: Run, function: Callable[..., Any], payloads: list[Any]) -> Sequence[Any] | None:
        """One call; None when an async call was still running at its limit. Raises what the function raises, or ContractError."""
        batch_format = self._spec.batch_format
        argument = payloads if batch_format is BatchFormat.ROWS else to_columns(payloads, batch_format)
        if self._loop is None:
            returned = function(argument)
        else:
            returned, verdict = self._await_batch(self._loop, run, partial(function, argument))
            if verdict is not Verdict.DONE:
                return None
        if batch_format is BatchFormat.ROWS and not isinstance(returned, (list, tuple)):
            raise ContractError(
                f"a batch function gets a list and returns a list of the same length ({len(payloads)}); "
                f"it returned {describe_value(returned)}"
            )
        return from_columns(returned, len(payloads))

    def _await_batch(self, loop: AppLoop, run: Run, call: Callable[[], Any]) -> tuple[Any, Verdict]:
        results: list[Any] = []
        output, position = self._output, run.position
        verdict = loop.run(
            run,
            [(0, call)],
            lambda _run, _index, returned: results.append(returned),
            limit_seconds=self._spec.limits.execute_seconds,
            interruptible=False,
            enter=None if output is None else lambda _: output.enter(run, position),
        )
        if results and isinstance(results[0], BaseException):
            raise results[0]
        return (results[0], Verdict.DONE) if results else (None, verdict)

    def _with_common_keys(self, run: Run, decoded: Sequence[tuple[int, Any]]) -> list[tuple[int, Any]]:
        """The jobs that can be rows of one table; the others are answered here."""
        if self._spec.batch_format is BatchFormat.ROWS:
            return list(decoded)
        keys = common_keys([payload for _, payload in decoded])
        fitting = []
        for index, payload in decoded:
            if keys and isinstance(payload, dict) and payload.keys() == keys:
                fitting.append((index, payload))
                continue
            found = f"the keys {sorted(map(str, payload))[:20]}" if isinstance(payload, dict) else describe_value(payload)
            wanted = f"maps with the same keys {sorted(map(str, keys))[:20]}" if keys else "maps with at least one key"
            self._break(run, index, f"batch_format {self._spec.batch_format.value} needs payloads that are {wanted}; got {found}")
        return fitting
