"""A whole ResNet-18, sixteen 3x3 convolutions adapted at rank 8: step time, peak memory, learned numbers."""

from __future__ import annotations

from typing import Any

import torch

from adapters import measure, nets


def run(device: str = "cpu", dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Each method's step and peak as ratios to full fine-tuning's; batch 4, 96 x 96.

    The peak is what the allocator holds at most during one forward and backward pass beyond what stood before
    it: saved maps, temporaries and gradients; not parameters, not the optimizer's state.
    """
    torch.manual_seed(0)
    base = nets.ResNet18().to(device, dtype)
    x, target = torch.randn(4, 3, 96, 96).to(device, dtype), torch.randint(0, 10, (4,)).to(device)
    made = {name: method(base) for name, method in nets.METHODS.items()}
    steps = {name: nets.step_of(net, x, target) for name, net in made.items()}
    seconds = measure.seconds(steps, device)
    rows = {}
    for name, step in steps.items():
        rows[name] = {
            "ms": seconds[name] * 1e3,
            "step": seconds[name] / seconds["full fine-tuning"],
            "peak MiB": measure.peak_mib(step, device),
            "learned numbers": nets.trainable(made[name]),
        }
        rows[name]["peak"] = rows[name]["peak MiB"] / rows["full fine-tuning"]["peak MiB"]
        row = rows[name]
        print(
            f"  {name:26} step {row['step']:5.2f}  peak {row['peak MiB']:6.1f} MiB = {row['peak']:.2f}  "
            f"{row['learned numbers']} numbers",
            flush=True,
        )
    return rows
