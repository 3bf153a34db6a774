"""Whether the path that is chosen is the better one: factored and fused timed at cells."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from adapters import measure, peers
from adapters.cells import JUDGMENT, Cell
from tenfac.adapters.updates.path import choose_path


def time_paths(cell: Cell, device: str = "cpu", dtype: torch.dtype = torch.float32) -> dict[str, float]:
    """Milliseconds of a step of the frozen base, of both paths and of full fine-tuning."""
    torch.manual_seed(0)
    layer, x = cell.layer().to(device, dtype), cell.x().to(device)
    x = x.to(dtype) if x.is_floating_point() else x
    steps = {}
    for name in ("frozen base", "full fine-tuning", "tenfac, factored", "tenfac, fused"):
        steps[name] = measure.training_step(peers.METHODS[name](layer, cell.rank), x, cell.train)
    found = measure.seconds(steps, device)
    return {name.removeprefix("tenfac, "): value * 1e3 for name, value in found.items()}


def chosen(cell: Cell, device: str = "cpu") -> str:
    """The path that tenfac takes."""
    layer = peers.tenfac("auto")(cell.layer(), cell.rank).to(device)
    updates = [update for update, _ in layer.tenfac.updates("weight")]
    with torch.set_grad_enabled(cell.train):
        return choose_path(layer, cell.x().to(device), updates, "auto")


def judge(cells: Iterable[Cell], device: str = "cpu", dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Each cell's times, its choice, and how much longer than the better path the choice takes."""
    rows = {}
    for cell in cells:
        times = time_paths(cell, device, dtype)
        choice = chosen(cell, device)
        loss = times[choice] / min(times["factored"], times["fused"]) - 1
        rows[cell.name] = {**times, "chosen": choice, "loss": loss}
        print(
            f"  {cell.name:58} base {times['frozen base']:7.3f} ms  factored {times['factored']:7.3f}  "
            f"fused {times['fused']:7.3f}  {choice:8} {loss:+.1%}",
            flush=True,
        )
    return rows


def run(device: str = "cpu", dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """The cells that no constant was fitted on."""
    rows = judge(JUDGMENT, device, dtype)
    within = sum(row["loss"] <= 0.1 for row in rows.values())
    print(f"  within 10 % of the better path: {within} of {len(rows)}")
    depthwise = [
        row[row["chosen"]] / row["full fine-tuning"]
        for cell, row in zip(JUDGMENT, rows.values(), strict=True)
        if cell.options.get("groups") == cell.sizes[0] and cell.train
    ]
    print(f"  depthwise, ratio to full fine-tuning: {', '.join(f'{x:.2f}' for x in depthwise)}")
    return {"cells": rows, "within 10 %": within, "of": len(rows), "depthwise / full fine-tuning": depthwise}
