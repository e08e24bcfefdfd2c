"""Progress of long reads and uploads, by tqdm where it is installed; nothing is shown of what is fast."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

Wish = bool | Callable[[int, int], object] | None
"""None shows a bar where somebody looks, True always, False never; a function is told the bytes so far and in all."""

DELAY_S = 1.0
"""Seconds before a bar appears."""


class Progress:
    """Shows how far something is.

    Parameters
    ----------
    total_bytes : int
        Bytes in all.
    what : str
        What it is, shown before the bar.
    wish : bool, callable or None
        See `Wish`.
    """

    def __init__(self, total_bytes: int, what: str, wish: Wish = None) -> None:
        self._total, self._what = total_bytes, what
        self._told = wish if callable(wish) else None
        self._shown = wish if isinstance(wish, bool) else wish is None and _somebody_looks()
        self._start, self._done, self._bar = time.monotonic(), 0, None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def reach(self, done_bytes: int) -> None:
        """Tell how far it is now."""
        if self._told is not None:
            self._told(done_bytes, self._total)
        if self._shown and self._bar is None and time.monotonic() - self._start >= DELAY_S:
            self._bar = _bar(self._total, self._what)
            self._shown = self._bar is not None
        if self._bar is not None:
            self._bar.update(done_bytes - self._bar.n)


def _somebody_looks() -> bool:
    """Whether what is shown is seen: in a terminal or a notebook."""
    if os.environ.get("H5FLIGHT_PROGRESS") == "0":
        return False
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell" or sys.stderr.isatty()


def _bar(total_bytes: int, what: str) -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm(total=total_bytes, desc=what, unit="B", unit_scale=True, unit_divisor=1024, leave=False)
