"""What all benchmarks do alike: CPU seconds of a call, versions of what ran, one file of results each."""

from __future__ import annotations

import json
import math
import os
import platform
import time
import tracemalloc
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import tenfac

RESULTS = Path(__file__).parent / "results"


def timed(call: Callable[[], Any], runs: int = 1) -> tuple[Any, float]:
    """What a call returns, and the least process CPU seconds of some runs."""
    result, least = None, math.inf
    for _ in range(runs):
        start = time.process_time()
        result = call()
        least = min(least, time.process_time() - start)
    return result, least


def cpu_seconds(call: Callable[[], Any], runs: int = 5) -> float:
    """Least process CPU seconds of some runs."""
    return timed(call, runs)[1]


def peak_bytes(call: Callable[[], Any]) -> int:
    """Most memory that Python and numpy held during a call beyond what stood before it."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def versions(*packages: str, threads: int | str | None = None) -> dict[str, Any]:
    """Of Python, tenfac and installed packages; ``threads`` as set, by default by the environment."""
    found: dict[str, Any] = {"python": platform.python_version(), "tenfac": tenfac.__version__}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None  # a peer that may be absent
    return found | {"threads": threads or os.environ.get("OPENBLAS_NUM_THREADS", "default")}


def read(name: str) -> dict[str, Any]:
    """What ``write`` left under this name; empty where it did not."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write(name: str, results: dict[str, Any]) -> None:
    """To ``results/NAME.json``; numbers and arrays of numpy as Python's."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(results, indent=1, default=lambda value: value.tolist())
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
