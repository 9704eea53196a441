"""The one place where libtorrent's session is made: its settings, with the reasons, and the priority of its threads."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, cast

import libtorrent

# Serving goes first. Threads that libtorrent starts later inherit it, and the kernel derives their disk priority from it.
NICE: Final = 10
_ALLOWED: Final = 0
_REFUSED: Final = 1
_NO_CUTOFF: Final = 2**31 - 1

_SETTINGS: Final[dict[str, Any]] = {
    "user_agent": "rayline",
    "peer_fingerprint": "-RL0100-",
    "alert_mask": int(
        libtorrent.alert_category.error
        | libtorrent.alert_category.peer
        | libtorrent.alert_category.storage
        | libtorrent.alert_category.status
        | libtorrent.alert_category.performance_warning
    ),
    # Membership comes from the platform: nothing else may tell of peers, or tell others of us.
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "webtorrent_stun_server": "",
    # uTP yields to other traffic and costs several times the processor time; limits do that here.
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    # libtorrent shuts out whoever sends a wrong piece by address, unless several may share one (`share_addresses`).
    "allow_multiple_connections_per_ip": False,
    # Otherwise private addresses, which is what members have, are not limited at all.
    "ignore_limits_on_local_network": False,
    "rate_limit_ip_overhead": False,
    # How often limits are shared out, ms; by itself twice a second, in jumps of that size.
    "tick_interval": 100,
    # A node that waits for others' pieces looks finished to libtorrent.
    "close_redundant_connections": False,
    # One for each blob under way and peer; of many peers each blob meets `swarm.MAX_CONNECTIONS`.
    "connections_limit": 1000,
    "connection_speed": 100,
    "min_reconnect_time": 1,
    "max_failcount": 100,
    "peer_connect_timeout": 5,
    "handshake_timeout": 5,
    "peer_timeout": 20,
    "piece_timeout": 5,
    "request_timeout": 10,
    # Two that have nothing to give each other make room; whoever wants something calls again.
    "inactivity_timeout": 10,
    # Nothing is queued by libtorrent: who may run is decided by whoever calls.
    "active_downloads": -1,
    "active_seeds": -1,
    "active_limit": -1,
    "auto_sequential": False,
    # Members trust each other: nobody has to earn anything, and a new one must not wait 15 s for its turn.
    "unchoke_slots_limit": 40,
    "unchoke_interval": 1,
    "optimistic_unchoke_interval": 2,
    "seed_choking_algorithm": int(libtorrent.seed_choking_algorithm_t.round_robin),
    # Read and written by calls, not mapped: mapped files would count as the agent's memory.
    "mmap_file_size_cutoff": _NO_CUTOFF,
    "aio_threads": 2,
    "hashing_threads": 1,
    "max_queued_disk_bytes": 4 * 2**20,
    "send_buffer_watermark": 512 * 2**10,
    # In blocks of 16 KiB. What is asked of a peer that lies is wasted, and what comes faster than it is written is memory.
    "max_out_request_queue": 128,
    "alert_queue_size": 2000,
}
_PLAIN: Final = {
    "out_enc_policy": int(libtorrent.enc_policy.disabled),
    "in_enc_policy": int(libtorrent.enc_policy.disabled),
}
_ENCRYPTED: Final = {
    "out_enc_policy": int(libtorrent.enc_policy.forced),
    "in_enc_policy": int(libtorrent.enc_policy.forced),
    "allowed_enc_level": int(libtorrent.enc_level.rc4),
    "prefer_rc4": True,
}


def low_priority_threads(count: int, name: str) -> ThreadPoolExecutor:
    """Threads that leave the processor and the disk to others, as do all threads that are started by them."""
    return ThreadPoolExecutor(max_workers=count, thread_name_prefix=name, initializer=_step_back)


def open_session(*, host: str, port: int, encrypted: bool) -> libtorrent.session:
    """A session that listens on `host` (an address of this machine) and knows nobody. Call it in a low-priority thread."""
    settings = _SETTINGS | (_ENCRYPTED if encrypted else _PLAIN) | {"listen_interfaces": f"{_bracketed(host)}:{port}"}
    if host not in ("0.0.0.0", "::"):
        settings["outgoing_interfaces"] = host
    session = libtorrent.session(libtorrent.session_params(_pack(settings)))
    session.set_ip_filter(filter_of(()))
    return session


def apply_limits(session: libtorrent.session, download: int | None, upload: int | None) -> None:
    """Rates in bytes per second, from now on; None is no limit."""
    session.apply_settings(_pack({"download_rate_limit": download or 0, "upload_rate_limit": upload or 0}))


def share_addresses(session: libtorrent.session, shared: bool) -> None:
    """Whether members may share an address, as behind a translated network."""
    session.apply_settings(_pack({"allow_multiple_connections_per_ip": shared}))


def filter_of(hosts: Iterable[str]) -> libtorrent.ip_filter:
    """Lets these addresses in and out, and no other."""
    made = libtorrent.ip_filter()
    made.add_rule("0.0.0.0", "255.255.255.255", _REFUSED)
    made.add_rule("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", _REFUSED)
    for host in hosts:
        made.add_rule(host, host, _ALLOWED)
    return made


def _pack(settings: dict[str, Any]) -> libtorrent.settings_pack:
    return cast("libtorrent.settings_pack", settings)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _step_back() -> None:
    """On Linux a nice value belongs to a thread; one that is lower already (a nice process) stays."""
    me = 0
    os.setpriority(os.PRIO_PROCESS, me, max(NICE, os.getpriority(os.PRIO_PROCESS, me)))
