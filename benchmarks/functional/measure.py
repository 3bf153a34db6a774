"""CPU seconds and peak memory of one call in a process of its own, which is stopped at a limit."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import re
import resource
import time
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

MOST_BYTES = 10 * 2**30


def peak_memory() -> float:
    """Largest resident memory of this process so far, in MiB.

    Where Linux tells, of this program alone: ``getrusage`` also counts the parent's memory at the fork.
    """
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    kib = int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib / 1024


def forget_peak() -> float:
    """Let the peak start again from what is held now, where the system allows it; the peak then, in MiB.

    What was freed but kept for reuse is first given back, lest it hide what the next step needs.
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError, TypeError):  # not Linux, or not this C library
        pass
    return peak_memory()


class Meter:
    """``with Meter() as meter: ...``: CPU seconds, and memory beyond what was held before, in MiB."""

    def __enter__(self) -> Meter:
        self._held, self._start = forget_peak(), time.process_time()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds = time.process_time() - self._start
        self.peak = peak_memory() - self._held


def in_child(function: Callable[..., Any], *arguments: Any, limit: float) -> tuple[Any, str]:
    """Result of a module's function run in a fresh single-threaded process, or None and why there is none.

    ``limit`` is in CPU seconds.
    """
    here, there = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=_run, args=(there, function, arguments, limit))
    child.start()
    there.close()
    try:
        result, failure = here.recv()
    except EOFError:
        result, failure = None, f"stopped: more than {limit:.0f} CPU s, or killed"
    child.join()
    return result, failure


def _run(there: Connection, function: Callable[..., Any], arguments: tuple, limit: float) -> None:
    most = int(time.process_time() + limit) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (most, most))
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
    warnings.simplefilter("ignore")
    try:
        with threadpool_limits(limits=1):
            there.send((function(*arguments), ""))
    except Exception as error:  # noqa: BLE001 - whatever it was becomes the row
        where = traceback.extract_tb(error.__traceback__)[-1]
        line = f"{type(error).__name__} in {where.name}: {error}".splitlines()[0]
        there.send((None, line[:300]))
