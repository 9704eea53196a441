"""What a reader takes from the topics: beats from nodes until a resource speaks, news always, its own group alone, true ages."""

from __future__ import annotations

import math
import time

import pytest

from rayline.bus import LogRecord
from rayline.reports import NodeReport, NodeState, encode_reports
from rayline.topics import BEATS_PARTITION, CHANGES_PARTITION, REPORTS, VIEW
from rayline.view_record import ViewKey, encode_chunks
from scheduler.listener import Direct, Listener
from scheduler.view import STALE_AFTER_SECONDS


def report(cluster: str = "c") -> NodeReport:
    return NodeReport(cluster, "n", 1, 1, NodeState.READY, beat=True)


def said(partition: int, cluster: str = "c", *, age_seconds: float = 0.0) -> LogRecord:
    at_ms = round((time.time() - age_seconds) * 1000)
    return LogRecord(partition, 0, at_ms, b"k", encode_reports([report(cluster)]))


def told(group: str = "default", cluster: str = "c", *, age_seconds: float = 0.0, ears_age_ms: int = 0) -> LogRecord:
    at_ms = round((time.time() - age_seconds) * 1000)
    (value,) = encode_chunks([report(cluster)], ears_age_ms=ears_age_ms)
    return LogRecord(0, 0, at_ms, ViewKey(group, "r1", "0").encode(), value)


def test_beats_are_taken_from_nodes_until_a_resource_speaks_and_news_always() -> None:
    listener, now = Listener(), time.monotonic()
    assert listener.hear(REPORTS, said(BEATS_PARTITION), now) is not None
    old = listener.hear(VIEW, told(age_seconds=STALE_AFTER_SECONDS + 60), now)
    assert old is not None
    assert old.at < now - 60
    assert listener.takes_beats, "what an earlier resource left behind does not mean that one is there"
    assert listener.hear(VIEW, told(), now) is not None
    assert not listener.takes_beats
    assert listener.hear(REPORTS, said(BEATS_PARTITION), now) is None
    news = listener.hear(REPORTS, said(CHANGES_PARTITION), now)
    assert news is not None
    assert news.ears == -math.inf, "a piece of news says nothing about the silence of others"


@pytest.mark.parametrize(("direct", "beats"), [(Direct.ALWAYS, True), (Direct.NEVER, False)])
def test_a_resource_hears_nodes_or_other_resources_whoever_else_speaks(direct: Direct, beats: bool) -> None:
    listener, now = Listener(groups=("default", "below"), direct=direct), time.monotonic()
    assert listener.hear(VIEW, told("below"), now) is not None
    assert (listener.hear(REPORTS, said(BEATS_PARTITION), now) is not None) is beats


def test_two_groups_do_not_see_each_others_nodes() -> None:
    listener, now = Listener(groups=("shop",)), time.monotonic()
    assert listener.hear(VIEW, told("ads", "ads-1"), now) is None
    assert listener.hear(VIEW, told("shop", "shop-1"), now) is not None
    for cluster, count in (("ads-1", 0), ("shop-1", 1)):
        news = listener.hear(REPORTS, said(CHANGES_PARTITION, cluster), now)
        assert news is not None
        assert len(news.reports) == count


def test_a_record_counts_from_when_it_was_written_and_a_resource_from_when_it_heard() -> None:
    listener, now = Listener(), time.monotonic()
    listener.hear(VIEW, told(), now)
    heard = listener.hear(VIEW, told(age_seconds=4.0, ears_age_ms=1500), now)
    assert heard is not None
    assert heard.at == pytest.approx(now - 4.0, abs=0.2)
    assert heard.ears == pytest.approx(now - 5.5, abs=0.2)


def test_a_wrong_wall_clock_is_corrected_by_what_is_read_live() -> None:
    """The broker's clock is a minute behind ours: records that come while we wait are fresh all the same."""
    listener, now = Listener(), time.monotonic()
    heard = listener.hear(VIEW, told(age_seconds=60.0), now, now - 0.1)
    assert heard is not None
    assert now - heard.at < 1.0


@pytest.mark.parametrize("value", [b"", b"garbage", encode_reports([report()])[:-3], None])
def test_what_cannot_be_read_is_left_out(value: bytes | None) -> None:
    listener, now = Listener(), time.monotonic()
    for topic, key in ((VIEW, ViewKey("default", "r", "0").encode()), (REPORTS, b"k"), (VIEW, b"lanes/app/lane")):
        assert listener.hear(topic, LogRecord(0, 0, round(time.time() * 1000), key, value), now) is None
