"""Two networks behind translating routers and one between them, each a namespace of the kernel; needs root, ip and iptables."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Final, TypeVar

_CLONE_NEWNET: Final = 0x40000000
WAN: Final = "203.0.113"
T = TypeVar("T")


def available() -> bool:
    """Whether such networks can be made here."""
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("iptables"):
        return False
    name = f"rl{os.getpid()}x"
    made = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True)
    if made.returncode == 0:
        subprocess.run(["ip", "netns", "del", name], check=True)
    return made.returncode == 0


class TwoNetworks:
    """Owns five namespaces: `a` and `b` (one host each: 10.1.0.2, 10.2.0.2), their routers (203.0.113.2 and .3), and `wan`
    (203.0.113.1). Routers translate what goes out, and let in only answers, and what is forwarded."""

    def __init__(self) -> None:
        self._prefix = f"rl{os.getpid()}"
        self._names = ("wan", "ra", "rb", "a", "b")

    def __enter__(self) -> TwoNetworks:
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _build(self) -> None:
        for name in self._names:
            self._host("ip", "netns", "add", self._name(name))
            self.run(name, "ip", "link", "set", "lo", "up")
        self.run("wan", "ip", "link", "add", "br0", "type", "bridge")
        self.run("wan", "ip", "address", "add", f"{WAN}.1/24", "dev", "br0")
        self.run("wan", "ip", "link", "set", "br0", "up")
        for number, (router, host) in enumerate((("ra", "a"), ("rb", "b")), start=1):
            self._wire("wan", f"to-{router}", router, "out")
            self.run("wan", "ip", "link", "set", f"to-{router}", "master", "br0")
            self._wire(router, "in", host, "eth")
            for place, device, address in (
                (router, "out", f"{WAN}.{number + 1}/24"),
                (router, "in", f"10.{number}.0.1/24"),
                (host, "eth", f"10.{number}.0.2/24"),
            ):
                self.run(place, "ip", "address", "add", address, "dev", device)
            self.run(host, "ip", "route", "add", "default", "via", f"10.{number}.0.1")
            self.run(router, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
            self.run(router, "iptables", "-t", "nat", "-A", "POSTROUTING", "-o", "out", "-j", "MASQUERADE")
            answers = ("-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED,DNAT")
            self.run(router, "iptables", "-A", "FORWARD", "-i", "out", *answers, "-j", "ACCEPT")
            self.run(router, "iptables", "-A", "FORWARD", "-i", "out", "-j", "DROP")

    def __exit__(self, *_: object) -> None:
        for name in self._names:
            subprocess.run(["ip", "netns", "del", self._name(name)], check=False, capture_output=True)

    def forward(self, router: str, port: int, to: str) -> None:
        """What comes from outside for `port` goes to the host behind."""
        rule = ("-t", "nat", "-A", "PREROUTING", "-i", "out", "-p", "tcp", "--dport", str(port), "-j", "DNAT", "--to", to)
        self.run(router, "iptables", *rule)

    def shape(self, router: str, bytes_per_second: int) -> None:
        """What goes to the host behind, as over a link of that speed; needs tc and the kernel's token bucket filter."""
        rate = f"{8 * bytes_per_second}bit"
        self.run(router, "tc", "qdisc", "replace", "dev", "in", "root", "tbf", "rate", rate, "burst", "64kb", "latency", "50ms")

    def within(self, place: str, call: Callable[[], T]) -> T:
        """Make the call in a thread of that namespace; threads and sockets that it makes stay there."""
        outcome: Future[T] = Future()

        def work() -> None:
            try:
                with Path(f"/run/netns/{self._name(place)}").open() as entry:
                    if ctypes.CDLL(None, use_errno=True).setns(entry.fileno(), _CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), f"no way into {place}")
                outcome.set_result(call())
            except BaseException as error:  # noqa: BLE001 - carried over to who called
                outcome.set_exception(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return outcome.result()

    def run(self, place: str, *command: str) -> None:
        self._host("ip", "netns", "exec", self._name(place), *command)

    def _wire(self, place: str, device: str, other: str, other_device: str) -> None:
        peer = ("type", "veth", "peer", "name", other_device, "netns", self._name(other))
        self._host("ip", "-n", self._name(place), "link", "add", device, *peer)
        self.run(place, "ip", "link", "set", device, "up")
        self.run(other, "ip", "link", "set", other_device, "up")

    def _name(self, place: str) -> str:
        return f"{self._prefix}{place}"

    def _host(self, *command: str) -> None:
        subprocess.run(command, check=True, capture_output=True)
