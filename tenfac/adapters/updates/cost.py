"""What the forward paths of an update cost: in factors, or one operation with the fused weight.

Judged from shapes alone. What a path costs beyond the frozen layer is linear in the numbers of input and of
output positions; the coefficients are worked out once per update, so that a call is a few multiplications.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from tenfac.adapters.updates.layout import Layout


class Rates(NamedTuple):
    """Picoseconds of the parts of a step.

    Parameters
    ----------
    product : float
        One multiplication of a matrix product or a convolution.
    tap : float
        One number of a convolution's output times one kernel position: work that does not shrink with depth.
    map, row : float
        Touching one number of a feature map of a convolution; of the rows of a Linear or an Embedding.
    weight : float
        Touching one number of a weight.
    call : float
        One operation, whatever its size.
    """

    product: float
    tap: float
    map: float
    row: float
    weight: float
    call: float


# Fitted on the calibration cells of ``benchmarks/adapters`` (one thread, float32).
CPU = Rates(product=26.0, tap=46.0, map=570.0, row=157.0, weight=330.0, call=27e6)
# Not measured: estimated from 20 TFLOP/s in products, 1.6 TB/s of memory and 8 us to launch an operation.
CUDA = Rates(product=0.1, tap=2.5, map=2.5, row=2.5, weight=2.5, call=8e6)


class TermShape(NamedTuple):
    """What a cost depends on: the core's sizes, and which of the two channel modes have factors."""

    rank: tuple[int, ...]
    out: bool
    into: bool


class Cost(NamedTuple):
    """``per_input * input positions + per_output * output positions + fixed``, in picoseconds."""

    per_input: float
    per_output: float
    fixed: float

    def at(self, inputs: int, outputs: int) -> float:
        """The cost for numbers of positions."""
        return self.per_input * inputs + self.per_output * outputs + self.fixed


Kind = tuple[bool, bool]  # on CUDA, with gradients
KINDS: list[Kind] = [(cuda, train) for cuda in (False, True) for train in (False, True)]


def excess_of(terms: Sequence[TermShape], layout: Layout) -> dict[Kind, Cost]:
    """What applying an update in factors costs more than adding it to the weight."""
    found = {}
    for cuda, train in KINDS:
        factored, fused = path_costs(terms, layout, CUDA if cuda else CPU, train)
        found[cuda, train] = Cost(*(f - u for f, u in zip(factored, fused, strict=True)))
    return found


def gradient_cost_of(layout: Layout) -> dict[Kind, Cost]:
    """What a layer costs more when its weight needs a gradient, as the fused weight does."""
    return {(cuda, train): gradient_cost(layout, CUDA if cuda else CPU, train) for cuda, train in KINDS}


def path_costs(terms: Sequence[TermShape], layout: Layout, rates: Rates, train: bool) -> tuple[Cost, Cost]:
    """Applying an update in factors, and adding it to the weight: linear in the rates."""
    factored = [_factored(layout, *term, rates, train) for term in terms]
    fused = [_delta(layout, *term, rates, train) for term in terms]
    return Cost(*map(sum, zip(*factored, strict=True))), Cost(*map(sum, zip(*fused, strict=True)))


def _factored(
    layout: Layout, rank: tuple[int, ...], out: bool, into: bool, rates: Rates, train: bool
) -> tuple[float, float, float]:
    """Input map at input positions, core, output map at output positions, sum."""
    groups, passes = layout.groups, 3 if train else 1
    n_in, n_out = _channels(layout)
    few_in, few_out = (
        (rank[layout.into] * groups if into else n_in),
        (rank[layout.out] * groups if out else n_out),
    )
    at_input = at_output = 0.0
    calls = 1 + into + out
    whole = 0.0 if into or out else rates.weight * layout.numel * (passes + train)  # a core as large as W
    touch = rates.row if layout.kind == "linear" else rates.map
    if layout.kind == "embedding":
        read = few_in if into else few_out  # a row of the factor, or of the core itself
        at_output += passes * rates.row * (read + n_out)
        at_output += passes * rates.product * read * n_out * (into or out)
        return at_input, at_output, whole + passes * (rates.call * calls + rates.weight * layout.shape[0])
    if into:
        at_input += passes * (rates.product * n_in * few_in / groups + touch * (n_in + few_in))
    if out:
        at_output += passes * (rates.product * n_out * few_out / groups + touch * (few_out + n_out))
    at_output += passes * touch * n_out
    if layout.kind == "linear":
        core = 0.0 if into and out else few_in * few_out  # with both factors it is multiplied into one
        return at_input, at_output + passes * rates.product * core, whole + passes * rates.call * calls
    kernel = math.prod(layout.shape[2:])
    core = rates.product * few_in * few_out / groups * kernel + rates.tap * few_out * kernel
    at_input += passes * rates.map * few_in
    at_output += passes * rates.map * few_out
    if layout.kind == "conv":
        at_output += passes * core
    else:
        at_input += passes * core
    return at_input, at_output, whole + passes * rates.call * (calls + 1)


def gradient_cost(layout: Layout, rates: Rates, train: bool) -> Cost:
    """What the gradient of a layer's weight costs; nothing in a forward pass alone."""
    if not train:
        return Cost(0.0, 0.0, 0.0)
    fixed = rates.call + rates.weight * layout.numel
    if layout.kind == "embedding":
        return Cost(0.0, rates.row * layout.shape[1], fixed)
    if layout.kind == "linear":
        return Cost(0.0, rates.product * layout.numel, fixed)
    work = rates.product * layout.numel + rates.tap * _channels(layout)[1] * math.prod(layout.shape[2:])
    return Cost(0.0, work, fixed) if layout.kind == "conv" else Cost(work, 0.0, fixed)


def _delta(
    layout: Layout, rank: tuple[int, ...], out: bool, into: bool, rates: Rates, train: bool
) -> tuple[float, float, float]:
    """Forming the weight: all modes but the first, then the first, into the sum."""
    passes = 3 if train else 1
    work, size = 0, list(rank)
    held = [mode for mode, has in ((layout.out, out), (layout.into, into)) if has and mode is not None]
    for mode in sorted(set(held), reverse=True):
        work += math.prod(size) * layout.shape[mode]
        size[mode] = layout.shape[mode]
    calls = 1 + out + into
    return 0.0, 0.0, passes * (rates.product * work + rates.weight * layout.numel + rates.call * calls)


def _channels(layout: Layout) -> tuple[int, int]:
    """Input and output channels of the layer, all groups."""
    into, out = layout.shape[layout.into], layout.shape[layout.out]
    if layout.kind == "conv":
        return into * layout.groups, out
    return into, out * layout.groups if layout.kind == "conv_transpose" else out
