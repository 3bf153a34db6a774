"""One layer at rank 8: each method's step as a ratio to the frozen layer's, peers in the same process."""

from __future__ import annotations

from typing import Any

import torch

from adapters import measure, peers
from adapters.cells import Cell, conv, linear

# Cell, and the most that our step may take of the frozen layer's (None: no target).
ROWS: list[tuple[Cell, float | None]] = [
    (conv(64, 64, 3, (56, 56), 8), 1.6),
    (conv(128, 128, 3, (28, 28), 8), 1.3),
    (conv(256, 256, 3, (14, 14), 8), 1.2),
    (conv(512, 512, 3, (7, 7), 8), 1.2),
    (linear(768, 768, 788, 8), 1.2),
    (linear(768, 768, 8, 8), None),
    (conv(96, 96, 7, (28, 28), 8, groups=96), None),
]


def run(device: str = "cpu", dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Ratios of median steps to the frozen layer's."""
    rows = {}
    for cell, target in ROWS:
        rows[cell.name] = one(cell, target, device, dtype)
        row = rows[cell.name]
        print(f"  {cell.name}: base {row['base ms']:.2f} ms" + (f", target {target}" if target else ""))
        for name, ratio in row["ratio"].items():
            print(f"    {name:58} {ratio:5.2f}   {row['learned numbers'][name]} numbers", flush=True)
    return rows


def one(cell: Cell, target: float | None, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """The methods that can take the layer; those that refuse are named with their reason."""
    torch.manual_seed(0)
    layer, x = cell.layer().to(device, dtype), cell.x().to(device, dtype)
    steps, learned, refused = {}, {}, {}
    for name, method in peers.METHODS.items():
        if name == "tenfac, factored":  # told by section paths
            continue
        try:
            module = method(layer, cell.rank).to(device)
            steps[name] = measure.training_step(module, x)
        except (ValueError, RuntimeError, NotImplementedError) as error:
            refused[name] = str(error).splitlines()[0][:200]
            continue
        learned[name] = sum(p.numel() for p in module.parameters() if p.requires_grad)
    found = measure.seconds(steps, device)
    ratio = {name: value / found["frozen base"] for name, value in found.items()}
    return {
        "base ms": found["frozen base"] * 1e3,
        "target": target,
        "ratio": ratio,
        "tenfac / full fine-tuning": ratio["tenfac"] / ratio["full fine-tuning"],
        "learned numbers": learned,
        "refused": refused,
    }
