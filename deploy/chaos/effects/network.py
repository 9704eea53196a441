"""Cut, lossy or slow connections between one pod and everybody else, in a network namespace of the run's own.

All pods of a local platform live on one loopback interface. So each pod's processes are put into a cgroup as they start; packets
get the number of the pod that sends them, and at the receiver both ends are known: a rule drops those between the pod and others,
and leaves those inside the pod alone. Nothing outside of the namespace is touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from deploy.chaos.effects.base import Unavailable

INSIDE_VARIABLE: Final = "RAYLINE_CHAOS_NAMESPACE"
_TABLE: Final = "rayline_chaos"
_ROOTS: Final = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
# SYN-ACKs carry no sender's mark: the SYN that asked for them was judged already.
_SETTLED: Final = "tcp flags & (syn | ack) == (syn | ack) accept"


def missing() -> str | None:
    """Why faults of the network cannot be had here; None when they can."""
    if os.geteuid() != 0:
        return "faults of the network need root (a network namespace and nftables)"
    absent = [tool for tool in ("unshare", "ip", "nft", "mount") if shutil.which(tool) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    if _cgroup_root() is None:
        return "no cgroup version 2 tree to tell pods apart by"
    probe = subprocess.run(
        ["unshare", "--net", "nft", "add", "table", "inet", _TABLE], capture_output=True, text=True, check=False, timeout=20
    )
    return None if probe.returncode == 0 else f"a namespace with nftables: {probe.stderr.strip()}"


def enter_namespace(arguments: Sequence[str]) -> None:
    """Become `rayline *arguments` in a network namespace of its own; does not return unless this process is there already."""
    if os.environ.get(INSIDE_VARIABLE):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=20)
        return
    os.environ[INSIDE_VARIABLE] = "1"
    os.execvp("unshare", ["unshare", "--net", sys.executable, "-P", "-m", "deploy.cli", *arguments])


class Direction(StrEnum):
    """Which packets of a pod suffer."""

    BOTH = "both"
    TO = "to"
    """Those that others send to it: it is heard, and hears nothing."""
    FROM = "from"
    """Those that it sends: it hears, and nobody hears it."""


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What happens to packets between a pod and the rest. `rate_mbit`: what is beyond so much a second
    is lost, after a first second's worth. The last four are
    the kernel's netem, on what the pod sends."""

    loss_percent: int = 0
    rate_mbit: float | None = None
    direction: Direction = Direction.BOTH
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    duplicate_percent: int = 0
    reorder_percent: int = 0
    corrupt_percent: int = 0

    def text(self) -> str:
        if self.delay_ms:
            return f"netem, {' '.join(self.netem())} on what the pod sends"
        which = {Direction.BOTH: "between the pod and others", Direction.TO: "to the pod", Direction.FROM: "from the pod"}
        if self.rate_mbit is not None:
            return f"nftables, packets {which[self.direction]} beyond {self.rate_mbit:g} Mbit/s dropped"
        return f"nftables, {self.loss_percent} % of the packets {which[self.direction]} dropped"

    def netem(self) -> list[str]:
        """As `tc` takes it."""
        shares = {"duplicate": self.duplicate_percent, "reorder": self.reorder_percent, "corrupt": self.corrupt_percent}
        told = ["delay", f"{self.delay_ms:g}ms", f"{self.jitter_ms:g}ms"]
        return told + [word for name, percent in shares.items() if percent for word in (name, f"{percent}%")]

    def match(self) -> str | None:
        """Which packets are dropped, as nftables takes it; None: none."""
        if self.rate_mbit is not None:
            return f"limit rate over {round(self.rate_mbit * 125)} kbytes/second "
        if not self.loss_percent:
            return None
        return "" if self.loss_percent >= 100 else f"numgen random mod 100 < {self.loss_percent} "


class PodNetwork:
    """Owns one cgroup for each pod (they are told apart by it) and the table of rules.

    Life: `open` -> `enter` for each pod as it starts -> `disturbed` -> `close`.
    """

    def __init__(self, run: str) -> None:
        root = _cgroup_root()
        if root is None:
            raise Unavailable("no cgroup version 2 tree to tell pods apart by")
        self._root = root
        self._parent = root / f"rayline-chaos-{run}"
        self._marks: dict[int, int] = {}
        self._active: dict[int, Disturbance] = {}
        self._delaying = False

    def open(self) -> None:
        """Raises Unavailable where the kernel refuses."""
        self._parent.mkdir()
        self._nft(
            f"add table inet {_TABLE}\n"
            f"add chain inet {_TABLE} sent {{ type filter hook output priority 0; }}\n"
            f"add chain inet {_TABLE} received {{ type filter hook input priority 0; }}\n"
        )

    def enter(self, session: int, pids: Sequence[int]) -> None:
        """A pod's first processes, before they have any connection: what they fork follows them."""
        group = self._parent / f"pod-{session}"
        group.mkdir()
        for pid in pids:
            with suppress(OSError):
                (group / "cgroup.procs").write_text(str(pid))
        mark = self._marks[session] = len(self._marks) + 1
        self._nft(f"add rule inet {_TABLE} sent {self._socket_of(session)} meta mark set {mark}\n")

    @asynccontextmanager
    async def disturbed(self, session: int, disturbance: Disturbance) -> AsyncIterator[str]:
        """While it is open, the pod's packets from and to others suffer (of a delay: those that it sends)."""
        if session not in self._marks:
            raise Unavailable(f"session {session} was not entered as it started")
        if disturbance.delay_ms and (reason := netem_missing()):
            raise Unavailable(reason)
        self._active[session] = disturbance
        self._apply()
        try:
            yield disturbance.text()
        finally:
            del self._active[session]
            self._apply()

    def close(self) -> None:
        """Remove the groups; the namespace ends with its last process."""
        for group in self._parent.glob("pod-*"):
            for pid in (group / "cgroup.procs").read_text().split():
                with suppress(OSError):
                    (self._root / "cgroup.procs").write_text(pid)
            with suppress(OSError):
                group.rmdir()
        with suppress(OSError):
            self._parent.rmdir()

    def _apply(self) -> None:
        """The rules of all that is active now, in one step."""
        rules = [f"flush chain inet {_TABLE} received", f"add rule inet {_TABLE} received {_SETTLED}"]
        for session, disturbance in self._active.items():
            mark, socket = self._marks[session], self._socket_of(session)
            match = disturbance.match()
            if match is not None:
                rules += [
                    # The ACK that ends a handshake meets no socket yet: what began inside the pod is known by its connection.
                    f"add rule inet {_TABLE} received ct mark {mark} accept",
                    f"add rule inet {_TABLE} received meta mark {mark} {socket} ct mark set {mark} accept",
                ]
                if disturbance.direction is not Direction.TO:
                    rules.append(f"add rule inet {_TABLE} received meta mark {mark} {match}drop")
                if disturbance.direction is not Direction.FROM:
                    rules.append(f"add rule inet {_TABLE} received meta mark != {mark} {socket} {match}drop")
        self._nft("\n".join(rules) + "\n")
        self._apply_delays()

    def _apply_delays(self) -> None:
        delays = {self._marks[session]: active for session, active in self._active.items() if active.delay_ms}
        if delays or self._delaying:
            _tc("qdisc", "del", "dev", "lo", "root", check=False)
        self._delaying = bool(delays)
        if delays:
            _tc("qdisc", "add", "dev", "lo", "root", "handle", "1:", "prio", "bands", str(3 + len(delays)))
        for band, (mark, active) in enumerate(delays.items(), start=4):
            _tc("qdisc", "add", "dev", "lo", "parent", f"1:{band}", "netem", *active.netem())
            _tc("filter", "add", "dev", "lo", "parent", "1:", "handle", str(mark), "fw", "flowid", f"1:{band}")

    def _socket_of(self, session: int) -> str:
        return f'socket cgroupv2 level 2 "{self._parent.name}/pod-{session}"'

    def _nft(self, rules: str) -> None:
        """nft looks for cgroups below /sys/fs/cgroup only: where version 2 is mounted elsewhere, it sees it there."""
        command = ["nft", "-f", "-"]
        if self._root != _ROOTS[0]:
            command = ["unshare", "--mount", "sh", "-c", f"mount --bind {self._root} {_ROOTS[0]} && exec nft -f -"]
        done = subprocess.run(command, input=rules, capture_output=True, text=True, check=False, timeout=20)
        if done.returncode != 0:
            raise Unavailable(f"nftables refuses: {done.stderr.strip()}")


def netem_missing() -> str | None:
    """Why packets cannot be delayed; None when the kernel has netem."""
    probe = subprocess.run(
        ["unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    return None if probe.returncode == 0 else f"this kernel has no netem ({probe.stderr.strip()})"


def _tc(*arguments: str, check: bool = True) -> None:
    done = subprocess.run(["tc", *arguments], capture_output=True, text=True, check=False, timeout=20)
    if check and done.returncode != 0:
        raise Unavailable(f"tc {' '.join(arguments)}: {done.stderr.strip()}")


def _cgroup_root() -> Path | None:
    return next((root for root in _ROOTS if (root / "cgroup.controllers").exists()), None)
