"""Models swapped under load: ``python -m bench.model_swap --seconds 300 --every 20``.

Starts a platform of its own, publishes a new version of a model every ``--every`` seconds and puts it in force by the command
line (each fifth time it rolls back instead), while jobs come at a steady rate. Judged by all results: none failed, lost or
double; each says the version that its function really used; on no node did a call begin with an older generation than one before.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.model_swap_verdict import Answer, Swap, Verdict, judge
from bench.platform_command import rayline
from deploy.app_registry import publish_app
from deploy.checker import check
from deploy.cli.output import note
from deploy.local.platform import LocalPlatform, PlatformPlan
from deploy.local.startup_log import StartupLog
from deploy.process_environment import TRUST_VARIABLE
from rayline.app_spec import ModelSwap
from rayline.bus import KafkaSettings
from rayline.client import Client, NewJob
from rayline.manifest import load_manifest
from rayline.results import Outcome
from runtime_env.signing import SigningKey

APP_FOLDER = Path(__file__).parent / "workloads" / "model_swap"
APP = "bench-model-swap"
MODEL = "weights"
ROLLBACK_EACH = 5
SETTLE_SECONDS = 15.0
READY_SECONDS = 180.0


class SwapBench:
    """One run. Owns the platform's folder's keys and what is published; does not own the platform's processes."""

    def __init__(self, *, platform: LocalPlatform, state_dir: Path, model_mib: float) -> None:
        self._platform = platform
        self._state_dir = state_dir
        self._model_bytes = int(model_mib * 2**20)
        self._published = 0
        self.swaps: list[Swap] = []
        self.sent = 0

    async def swap(self) -> Swap:
        """Publish and use a new version, or go back to the one before. Raises RaylineError when a command says no."""
        exported_ms = None
        if self.swaps and len(self.swaps) % ROLLBACK_EACH == ROLLBACK_EACH - 1:
            what, said = "rollback", await self._command("rollback", APP, MODEL, "--wait")
        else:
            self._published += 1
            source = self._state_dir / "weights.bin"
            source.write_bytes(f"{self._published:<16}".encode() + secrets.token_bytes(self._model_bytes))
            exported_ms = int(time.time() * 1000)
            await self._command("publish", APP, MODEL, str(source))
            source.unlink()
            what, said = f"{MODEL}@{self._published}", await self._command("use", APP, f"{MODEL}@{self._published}", "--wait")
        made = Swap(said["generation"], what, said["at_ms"], exported_ms)
        self.swaps.append(made)
        return made

    async def load(self, client: Client, rate_per_s: float, until: float) -> None:
        """Jobs at a steady rate, whatever becomes of them."""

        async def jobs() -> AsyncIterator[NewJob]:
            began = time.monotonic()
            while time.monotonic() < until:
                yield NewJob({"number": self.sent})
                self.sent += 1
                ahead = began + self.sent / rate_per_s - time.monotonic()
                if ahead > 0:
                    await asyncio.sleep(ahead)

        await client.submit_many(APP, jobs())

    async def verdict(self, client: Client) -> tuple[Verdict, list[float]]:
        """By everything that stands in the results topic; also the latencies (ms)."""
        answers, failed, latencies = [], 0, []
        async for result in client.results(APP, from_beginning=True, follow=False):
            if result.outcome is not Outcome.OK:
                failed += 1
                continue
            feature = result.feature()
            node = f"{result.cluster}/{result.node}"
            answers.append(Answer(node, result.model_version, feature["publication"], feature["began_ns"], result.timestamp_ms))
            latencies.append(sum(result.timing_ms.values()))
        servers = self._platform.settings.bootstrap_servers
        report = await asyncio.to_thread(check, servers, app=APP)
        return judge(answers, self.swaps, failed=failed, lost=report.lost, duplicated=report.duplicated), latencies

    async def _command(self, *words: str) -> dict[str, Any]:
        """`rayline model …`, as an operator would; its answer, and when the command began (epoch ms)."""
        began_ms = int(time.time() * 1000)
        said = await rayline("model", *words, "-o", "json", "--state-dir", str(self._state_dir))
        return {"at_ms": began_ms, **json.loads(said)}


async def run(
    *,
    seconds: float,
    every: float,
    rate: float,
    pods: int,
    model_mib: float,
    actors: bool,
    state_dir: Path,
    kafka: KafkaSettings | None,
) -> Verdict:
    """One run from start to verdict. Raises RaylineError when the platform fails, or a command says no."""
    key = SigningKey.generate(state_dir / "signing-key")
    (state_dir / "trust").write_text(f"ed25519 {key.public} bench\n")
    os.environ |= {TRUST_VARIABLE: str(state_dir / "trust"), "RAYLINE_ENV_KEY": str(state_dir / "signing-key")}
    os.environ["XDG_CACHE_HOME"] = str(state_dir / "cache")
    plan = PlatformPlan(state_dir=state_dir, clusters=1, pods_per_cluster=pods, kafka=kafka)
    platform = LocalPlatform(plan, log=StartupLog())
    spec = load_manifest(APP_FOLDER)
    if actors:
        spec = replace(spec, model_swap=ModelSwap.ACTOR)
    async with platform, Client(platform.settings) as client:
        await publish_app(platform.settings, spec)
        await platform.wait_app_ready(APP, version=spec.version, nodes=pods, timeout_seconds=READY_SECONDS)
        bench = SwapBench(platform=platform, state_dir=state_dir, model_mib=model_mib)
        began = time.monotonic()
        loading = asyncio.create_task(bench.load(client, rate, began + seconds))
        while (next_at := began + every * (len(bench.swaps) + 0.5)) < began + seconds:
            await asyncio.sleep(max(0.0, next_at - time.monotonic()))
            made = await bench.swap()
            note(f"{time.monotonic() - began:6.1f} s  {made.what:<14} generation {made.generation}, {bench.sent} jobs sent")
        await loading
        await asyncio.sleep(SETTLE_SECONDS)
        verdict, latencies = await bench.verdict(client)
    _tell(verdict, latencies, sent=bench.sent)
    return verdict


def _tell(verdict: Verdict, latencies: list[float], *, sent: int) -> None:
    quantiles = statistics.quantiles(latencies, n=1000) if len(latencies) > 1 else [0.0] * 999
    found = {
        **verdict.as_dict(),
        "sent": sent,
        "latency_ms": {"p50": round(quantiles[499]), "p99": round(quantiles[989]), "max": round(max(latencies, default=0))},
        "taken_up_ms": _median_and_max(verdict.taken_up_ms),
        "first_result_ms": _median_and_max(verdict.first_result_ms),
    }
    typer.echo(json.dumps(found, indent=2))


def _median_and_max(found: Sequence[int | None]) -> dict[str, float | None]:
    known = [one for one in found if one is not None]
    return {"median": statistics.median(known) if known else None, "max": max(known, default=None)}


def main(
    seconds: Annotated[float, typer.Option(min=10, help="How long jobs come.")] = 300,
    every: Annotated[float, typer.Option(min=2, help="Seconds from one swap to the next.")] = 20,
    rate: Annotated[float, typer.Option(min=1, help="Jobs a second.")] = 60,
    pods: Annotated[int, typer.Option(min=1, help="Pods of the one cluster.")] = 2,
    model_mib: Annotated[float, typer.Option(min=0, help="Size of each version.")] = 8,
    actors: Annotated[bool, typer.Option("--actors", help="`model_swap: actor` instead of `instance`.")] = False,
    state_dir: Annotated[Path | None, typer.Option(help="Where the platform lives; default: a folder that goes away.")] = None,
    bootstrap_servers: Annotated[str | None, typer.Option(help="Kafka; default: one of its own.")] = None,
) -> None:
    """Swap models under load and judge every result."""
    with tempfile.TemporaryDirectory(prefix="rayline-model-swap-") as folder:
        place = state_dir or Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        verdict = asyncio.run(
            run(
                seconds=seconds,
                every=every,
                rate=rate,
                pods=pods,
                model_mib=model_mib,
                actors=actors,
                state_dir=place,
                kafka=None if bootstrap_servers is None else KafkaSettings(bootstrap_servers=bootstrap_servers),
            )
        )
    raise typer.Exit(0 if verdict.good else 1)


if __name__ == "__main__":
    typer.run(main)
