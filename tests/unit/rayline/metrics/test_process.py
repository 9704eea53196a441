"""The small server: what Prometheus reads, what `rayline status` is told, and a loop that stands still."""

from __future__ import annotations

import asyncio
import json
import socket
import time
import urllib.request
from collections.abc import Mapping
from urllib.error import HTTPError

import pytest
from opentelemetry.sdk.metrics import export as sdk
from prometheus_client.parser import text_string_to_metric_families

from rayline.config import ProcessIdentity, Role
from rayline.errors import ConfigError
from rayline.metrics import METRICS, Histogram, Instrument, ProcessMetrics, Sample, declared, process
from rayline.metrics.export import PrometheusPage
from rayline.metrics.process import HOST_VARIABLE, METRICS_VARIABLE, PORT_VARIABLE

IDENTITY = ProcessIdentity(role=Role.LANE, app="ocr", name="0")


def metrics_of(environment: Mapping[str, str] = {}) -> ProcessMetrics:
    return ProcessMetrics(identity=IDENTITY, environment=environment)


async def get(metrics: ProcessMetrics, path: str) -> str:
    def read() -> str:
        with urllib.request.urlopen(f"http://{metrics.address}{path}", timeout=5) as response:
            return response.read().decode()

    return await asyncio.to_thread(read)


async def test_prometheus_reads_counters_gauges_and_whole_histograms() -> None:
    latency = Histogram(declared.LATENCY.bounds)
    latency.add(0.3, 5)
    async with metrics_of() as metrics:
        metrics.board.source(
            lambda _: [
                Sample(declared.LATENCY, latency.snapshot()),
                Sample(declared.RESULTS, 7, {declared.OUTCOME: "ok"}),
                Sample(declared.LAG, 11, {declared.PARTITION: "3"}),
            ]
        )
        metrics.board.gather(time.monotonic())
        families = {family.name: family for family in text_string_to_metric_families(await get(metrics, "/metrics"))}
    (result,) = families["rayline_job_results"].samples
    assert (result.name, result.value) == ("rayline_job_results_total", 7)
    assert result.labels == {
        "rayline_app": "ocr",
        "rayline_outcome": "ok",
        "rayline_process": "lane/ocr/0",
        "rayline_role": "lane",
    }
    assert families["rayline_partition_lag"].samples[0].labels["messaging_destination_partition_id"] == "3"
    buckets = {s.labels["le"]: s.value for s in families["rayline_job_latency_seconds"].samples if s.name.endswith("_bucket")}
    assert (buckets["0.25"], buckets["0.5"], buckets["+Inf"]) == (0, 5, 5)
    assert families["process_memory_usage_bytes"].samples[0].value > 2**20


async def test_health_tells_what_stands_still() -> None:
    async with metrics_of() as metrics:
        assert json.loads(await get(metrics, "/health"))["stalls"] == []
        metrics.board.expect("beats", limit_seconds=1.0, now=time.monotonic() - 5)
        metrics.board.gather(time.monotonic())
        health = json.loads(await get(metrics, "/health"))
    assert health["process"] == "lane/ocr/0"
    assert (health["stalls"][0]["kind"], health["stalls"][0]["subject"]) == ("activity", "beats")


async def test_a_loop_that_does_not_turn_is_told_by_the_thread_beside_it() -> None:
    async with metrics_of() as metrics:
        assert metrics._server is not None
        metrics.board.gather(time.monotonic() - 30)
        health = metrics._server.health()
    assert health["loop_age_seconds"] == pytest.approx(30, abs=1)
    assert (health["stalls"][0]["kind"], health["stalls"][0]["subject"]) == ("loop", "event loop")


async def test_time_that_the_loop_stood_still_is_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process, "GATHER_SECONDS", 0.1)
    monkeypatch.setattr(process, "LOOP_BLOCKED_SECONDS", 0.2)
    async with metrics_of() as metrics:
        await asyncio.sleep(0)
        time.sleep(0.6)  # noqa: ASYNC251 - the fault itself
        await asyncio.wait_for(gathered_again(metrics), 10)
        (sample,) = metrics.board.snapshot.samples[declared.LOOP_BLOCKED]
    assert isinstance(sample.value, float)
    assert 0.2 < sample.value < 5
    assert "stood still" in caplog.text


async def gathered_again(metrics: ProcessMetrics) -> None:
    before = metrics.board.snapshot.at
    while metrics.board.snapshot.at == before:  # noqa: ASYNC110 - one turn of the loop is what is waited for
        await asyncio.sleep(0)


async def test_an_address_that_there_is_not_is_not_found() -> None:
    async with metrics_of() as metrics:
        with pytest.raises(HTTPError) as caught:
            await get(metrics, "/etc/passwd")
        caught.value.close()
    assert caught.value.code == 404


async def test_a_taken_port_is_replaced_by_a_free_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with metrics_of({PORT_VARIABLE: str(port)}) as metrics:
            assert metrics.address is not None
            assert metrics.address != f"127.0.0.1:{port}"
            assert "pid" in await get(metrics, "/health")


async def test_switched_off_nothing_listens() -> None:
    async with metrics_of({METRICS_VARIABLE: "off"}) as metrics:
        assert metrics.address is None


@pytest.mark.parametrize("port", ["x", "-1", "70000", "80.5"])
def test_a_port_that_is_none_is_refused_with_its_variable(port: str) -> None:
    with pytest.raises(ConfigError, match=PORT_VARIABLE):
        metrics_of({PORT_VARIABLE: port})


async def test_a_host_that_is_not_ours_is_refused_with_its_variable() -> None:
    with pytest.raises(ConfigError, match=HOST_VARIABLE):
        async with metrics_of({HOST_VARIABLE: "203.0.113.1"}):
            pass


def test_every_declared_metric_is_described_by_a_sentence() -> None:
    for metric in METRICS.values():
        assert metric.description.endswith("."), metric.name
        assert metric.roles
        assert bool(metric.bounds) == (metric.instrument is Instrument.HISTOGRAM), metric.name
        assert list(metric.bounds) == sorted(set(metric.bounds))


async def test_a_page_can_be_asked_again_and_again() -> None:
    async with metrics_of() as metrics:
        page = PrometheusPage(metrics.board)
        try:
            for count in range(3):
                metrics.board.source(lambda _, count=count: [Sample(declared.LATE, count)])
                metrics.board.gather(time.monotonic())
                assert b"rayline_job_late_total" in page.text()
        finally:
            page.close()


async def test_otlp_gets_the_same_values(monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry.exporter.otlp.proto.http import metric_exporter

    sent: list[sdk.MetricsData] = []

    def keep(_: object, data: sdk.MetricsData, *args: object, **kwargs: object) -> sdk.MetricExportResult:
        sent.append(data)
        return sdk.MetricExportResult.SUCCESS

    monkeypatch.setattr(metric_exporter.OTLPMetricExporter, "export", keep)
    latency = Histogram(declared.LATENCY.bounds)
    latency.add(0.3, 5)
    async with metrics_of({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}) as metrics:
        metrics.board.source(lambda _: [Sample(declared.LATENCY, latency.snapshot()), Sample(declared.LATE, 2)])
        async with asyncio.timeout(10):
            await metrics.exporting.wait()
        metrics.board.gather(time.monotonic())
    found = {metric.name: metric for data in sent for r in data.resource_metrics for s in r.scope_metrics for metric in s.metrics}
    assert found["rayline.job.latency"].data.data_points[0].count == 5
    assert found["rayline.job.late"].data.data_points[0].value == 2
