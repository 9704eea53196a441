"""Pods and gateway start beside their head: they wait until it listens, and no longer than they may."""

from __future__ import annotations

import socket
import threading
import time

from workers.cluster import wait_for_head


def test_a_head_that_comes_up_late_is_waited_for() -> None:
    with socket.socket() as head:
        head.bind(("127.0.0.1", 0))
        port = head.getsockname()[1]
        waiting = threading.Thread(target=wait_for_head, args=(f"127.0.0.1:{port}", 60.0))
        waiting.start()
        # Bound and not listening: refused.
        waiting.join(0.2)
        assert waiting.is_alive()
        head.listen()
        waiting.join(30)
        assert not waiting.is_alive()


def test_a_head_that_never_comes_is_given_up_without_a_word() -> None:
    with socket.socket() as head:
        head.bind(("127.0.0.1", 0))
        started = time.monotonic()
        wait_for_head(f"127.0.0.1:{head.getsockname()[1]}", 0.2)
        assert 0.2 <= time.monotonic() - started < 30
