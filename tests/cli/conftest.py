"""A small table on disk, and the command run in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tenfac.cli import main

Write = Callable[..., str]


@dataclass(frozen=True)
class Run:
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    """Run the command line in this process."""

    def run(*argv: str) -> Run:
        code = main(list(argv))
        captured = capsys.readouterr()
        return Run(code, captured.out, captured.err)

    return run


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write lines to a file of the test's own folder; return its path."""

    def to_file(*lines: str, name: str = "table.csv", encoding: str = "utf-8") -> str:
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding=encoding)
        return str(path)

    return to_file


def grid_lines(days: bool = False) -> list[str]:
    """Three cells by 20 times, with a little noise."""
    rng = np.random.default_rng(0)
    lines = ["cell,time,response"]
    for k, cell in enumerate(["B cell", "NK", "T reg"]):
        for t in range(20):
            time = f"2024-01-{t + 1:02}" if days else f"{t / 2}"
            lines.append(f"{cell},{time},{(1 + k) * np.sin(t / 5) + 0.1 * rng.standard_normal():.4f}")
    return lines


@pytest.fixture
def grid(write: Write) -> str:
    """Path of a CSV table that can be fitted in a second."""
    return write(*grid_lines(), name="grid.csv")
