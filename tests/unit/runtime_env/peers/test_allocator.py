"""A process whose threads take and free memory has few heaps, once it was told so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runtime_env.peers.allocator import ARENAS

_PROGRAM = """
import ctypes, sys, threading
from runtime_env.peers.allocator import give_memory_back

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.fopen.restype = ctypes.c_void_p
if sys.argv[1] == "told":
    assert give_memory_back()
threads, all_hold = [], threading.Barrier(9)

def hold():
    assert libc.malloc(ctypes.c_size_t(50_000))
    all_hold.wait()

for _ in range(8):
    threads.append(threading.Thread(target=hold))
    threads[-1].start()
all_hold.wait()
file = ctypes.c_void_p(libc.fopen(sys.argv[2].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
for thread in threads:
    thread.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="another C library")
def test_threads_share_two_heaps(tmp_path: Path) -> None:
    heaps = {}
    for told in ("told", "not told"):
        subprocess.run([sys.executable, "-c", _PROGRAM, told, str(tmp_path / told)], check=True)
        heaps[told] = (tmp_path / told).read_text().count("<heap nr=")
    assert heaps["told"] <= ARENAS < heaps["not told"]
