"""One step of a module timed against others, interleaved in one process, and the memory it asks for."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

ROUNDS = 15
SECONDS = 0.02  # a round repeats a step until it takes this long


def training_step(module: nn.Module, x: Tensor, train: bool = True) -> Callable[[], None]:
    """Forward and backward of a module that stands in the middle of a net: its input needs a gradient."""
    x = x.detach().clone().requires_grad_(train and x.is_floating_point())
    parameters = [p for p in module.parameters() if p.requires_grad]
    gradient = torch.ones_like(module(x))

    def step() -> None:
        for p in (x, *parameters):
            p.grad = None
        if train and (x.requires_grad or parameters):
            module(x).backward(gradient)
        else:
            with torch.no_grad():
                module(x)

    return step


def seconds(
    steps: Mapping[str, Callable[[], None]], device: str = "cpu", rounds: int = ROUNDS
) -> dict[str, float]:
    """Median seconds of each step: process CPU time, or the device's own clock.

    Each turn begins with a step that is not timed, so that none pays for the memory the one before it let go.
    """
    repeats = {}
    for name, step in steps.items():
        step()
        once = min(_timed(step, 1, device) for _ in range(3))
        repeats[name] = max(1, round(SECONDS / once))
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            step()
            times[name].append(_timed(step, repeats[name], device) / repeats[name])
    return {name: statistics.median(values) for name, values in times.items()}


def _timed(step: Callable[[], None], times: int, device: str) -> float:
    if device == "cpu":
        start = time.process_time()
        for _ in range(times):
            step()
        return time.process_time() - start
    start_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start_event.record()
    for _ in range(times):
        step()
    end_event.record()
    torch.cuda.synchronize()
    return start_event.elapsed_time(end_event) / 1000


def peak_mib(step: Callable[[], None], device: str = "cpu") -> float:
    """Most memory that the allocator held during one step beyond what stood before it, in MiB.

    On the CPU by the profiler's allocation events, summed in order.
    """
    step()
    if device != "cpu":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    held = peak = 0
    for event in sorted(_allocations(recorded), key=lambda pair: pair[0]):
        held += event[1]
        peak = max(peak, held)
    return peak / 2**20


def _allocations(recorded: profile) -> list[tuple[int, int]]:
    """Time and signed size of every allocation and release."""
    events = recorded.profiler.kineto_results.events()
    return [(event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"]
