"""What the C library keeps of memory that libtorrent's threads gave back: little."""

from __future__ import annotations

import ctypes
from typing import Final

# <malloc.h>
_M_TRIM_THRESHOLD: Final = -1
_M_ARENA_MAX: Final = -8
ARENAS: Final = 2
KEPT_BYTES: Final = 128 * 2**10


def give_memory_back() -> bool:
    """For this process, from now on; call it before threads are started. False where the C library is not glibc.

    By itself glibc has eight heaps a core, each of which keeps what its threads freed: a node that fetched 512 MiB from seven
    others took 163 MiB, and 115 to 123 so (`python -m bench.distribution`).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_ARENA_MAX, ARENAS)) and bool(mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES))
