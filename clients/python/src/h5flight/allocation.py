"""What glibc does with freed memory while we read.

A batch passes gRPC and pyarrow in buffers of a few megabytes. As glibc is set they are given back to the system and
taken anew batch by batch, each time page by page: of one CPU second that a client spent on a gigabyte that was more
than a half. pyarrow has no setting for these buffers, glibc has.
"""

from __future__ import annotations

import ctypes
import os
import sys

KEPT_BYTES = 64 << 20
"""Freed memory at the end of a heap that is kept: some batches as gRPC has them in pieces, and put together."""

MAPPED_BYTES_MIN = 32 << 20
"""Blocks from here on are taken from the system one by one and given back at once. It is what glibc comes to by itself,
unless its other setting is made."""

SWITCH = "H5FLIGHT_MALLOC"
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h


def keep_freed_memory() -> bool:
    """Have glibc keep up to 64 MiB of freed memory at the end of each heap; blocks of 32 MiB and more are not kept.

    The setting is of the whole process. It is left alone where ``H5FLIGHT_MALLOC=0`` or one of glibc's own variables is
    in the environment, and does nothing with another C library or allocator.

    Returns
    -------
    bool
        Whether it was made.
    """
    chosen = os.environ.get(SWITCH) == "0" or any(
        name.startswith("MALLOC_") or (name == "GLIBC_TUNABLES" and "glibc.malloc" in value)
        for name, value in os.environ.items()
    )
    if chosen or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    return bool(mallopt(_MMAP_THRESHOLD, MAPPED_BYTES_MIN)) and bool(mallopt(_TRIM_THRESHOLD, KEPT_BYTES))
