"""Whatever a process says stands still there, status, top and console tell it in the same words."""

from __future__ import annotations

import pytest

from deploy.config_board import LastWord
from deploy.console.frame import condition, troubles
from deploy.progress import process_stalls
from deploy.status import StatusReport
from deploy.top.plain import plain
from deploy.top.summary import alarms
from rayline.config import Presence, ProcessIdentity, Role
from rayline.stalls import Stall, StallKind
from tests.support.staged_platform import NOW_MS, StagedPlatform, record

LANE = ProcessIdentity(role=Role.LANE, app="ocr", name="0")
# The others are told by who looks on.
SAID_BY_PROCESSES = list(StallKind)[: list(StallKind).index(StallKind.LANE)]
PROCESSES = [
    LANE,
    ProcessIdentity(role=Role.AGENT, cluster="c1", node="c1-pod-1"),
    ProcessIdentity(role=Role.GATEWAY, cluster="c1"),
    ProcessIdentity(role=Role.RESOURCE, name="0"),
    ProcessIdentity(role=Role.KEEPER, name="0"),
]


def tell(identity: ProcessIdentity, stall: Stall) -> dict[str, str]:
    """What each of the three shows of a process that says so."""
    presence = Presence(identity, stalls=(stall,))
    stalls = process_stalls(LastWord(presence, 0.0), presence.stalls, now_ms=NOW_MS) or []
    status = StatusReport(None, False, "127.0.0.1:9092", [], [], {}, None, None, stalls)
    stage = StagedPlatform()
    stage.model.take_applied(record(presence.record_key.decode(), presence.encode()))
    now = stage.snapshot()
    assert condition(now, now.at_ms) == ("bad", "stalled")
    assert [line for line in alarms(now) if stall.why in line.plain]
    return {
        "status": status.text(),
        "top": plain(now),
        "console": "\n".join(text for _, text, tone in troubles(now, now.at_ms) if tone == "bad"),
    }


@pytest.mark.parametrize("kind", SAID_BY_PROCESSES)
def test_each_kind_is_told_by_all_of_them(kind: StallKind) -> None:
    shown = tell(LANE, Stall(kind, "ocr.requests/3", 20.0, f"why and the remedy of {kind}"))
    said = f"lane/ocr/0: no progress of ocr.requests/3: why and the remedy of {kind}"
    assert {where for where, text in shown.items() if said in text} == {"status", "top", "console"}


@pytest.mark.parametrize("identity", PROCESSES, ids=lambda identity: identity.role.value)
def test_each_kind_of_process_is_named(identity: ProcessIdentity) -> None:
    shown = tell(identity, Stall(StallKind.ACTIVITY, "rounds", 20.0, "why"))
    said = f"{identity.process}: no progress of rounds: why"
    assert {where for where, text in shown.items() if said in text} == {"status", "top", "console"}
