"""What follows the end of a pod or head beyond its replacement: lanes are told at once, people how long it took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from deploy.node_watch import NodeWatch
from rayline.bus import Publisher
from rayline.clusters import ClusterBook
from rayline.events import Event, encode_event
from rayline.reports import NodeState, encode_reports
from rayline.topics import CHANGES_PARTITION, EVENTS, REPORTS


@dataclass(frozen=True, slots=True)
class Recovery:
    """Something serves in the place of what was lost: an event's kind, subject and text."""

    kind: str
    subject: str
    text: str


class Recoveries:
    """Pairs each loss with what took its place. Pure: times are monotonic seconds.

    Owns the losses that are not made good yet, and the pods that have been seen.
    """

    def __init__(self) -> None:
        self._lost: dict[str, float] = {}
        self._seen: set[str] = set()
        self._generations: dict[str, int] = {}

    def lost(self, name: str, now: float) -> None:
        """A pod has ended, or the head of a cluster (by the cluster's name)."""
        self._lost.setdefault(name, now)
        self._seen.discard(name)

    def joined(self, pods: set[str], book: ClusterBook, now: float) -> list[Recovery]:
        """`pods` serve at this moment; what that makes good."""
        found = []
        new = pods - self._seen
        self._seen |= new
        for order in book.orders.values():
            ours = new & order.pods.keys()
            if ours and self._generations.get(order.cluster) != order.generation:
                self._generations[order.cluster] = order.generation
                since = self._lost.pop(order.cluster, None)
                if since is not None:
                    text = f"cluster {order.cluster} serves again {now - since:.1f} s after its head was lost"
                    found.append(Recovery("cluster.recovered", order.cluster, text))
            for pod in sorted(ours):
                before = order.pods[pod].replaces
                since = None if before is None else self._lost.pop(before, None)
                if since is not None:
                    text = f"{pod} serves {now - since:.1f} s after {before} ended"
                    found.append(Recovery("pod.recovered", f"{order.cluster}/{pod}", text))
        return found


class Losses:
    """Tells lanes of each pod that ended (silence would tell them in seconds), and people of each recovery.

    Owns the queue of ends. Does not own the publisher and the watch. Life: `ended` at any time, `run` until cancelled.
    """

    def __init__(self, *, publisher: Publisher, watch: NodeWatch, book: ClusterBook, say: Callable[[str], None]) -> None:
        self._publisher = publisher
        self._watch = watch
        self._book = book
        self._say = say
        self._ended: asyncio.Queue[str] = asyncio.Queue()
        self._recoveries = Recoveries()

    def ended(self, name: str) -> None:
        """A pod has ended, or the head of the cluster of that name."""
        self._recoveries.lost(name, time.monotonic())
        self._ended.put_nowait(name)

    async def run(self) -> None:
        """Until cancelled; raises BusError when Kafka refuses."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._announce(), name="gone pods")
            tasks.create_task(self._follow(), name="recoveries")

    async def _announce(self) -> None:
        while True:
            name = await self._ended.get()
            gone = [
                replace(
                    node.report,
                    state=NodeState.GONE,
                    seq=node.report.seq + 1,
                    actors=None,
                    reason="its process ended",
                    beat=False,
                    age_ms=0,
                    load=None,
                )
                for node in self._watch.nodes()
                if node.report.node == name
            ]
            if gone:
                value = encode_reports(gone)
                await self._publisher.publish(REPORTS, key=gone[0].key.encode(), value=value, partition=CHANGES_PARTITION)

    async def _follow(self) -> None:
        seen: set[str] = set()

        def news() -> bool:
            return self._joined() != seen

        while True:
            await self._watch.wait_until(news)
            seen = self._joined()
            for recovery in self._recoveries.joined(seen, self._book, time.monotonic()):
                self._say(recovery.text)
                event = Event("launcher", recovery.kind, recovery.subject, recovery.text)
                await self._publisher.publish(EVENTS, key=event.key, value=encode_event(event))

    def _joined(self) -> set[str]:
        return {report.node for report in self._watch.joined()}
