"""How large an update is: rank, parameter budget or energy, turned into one rank per mode, or refused."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.errors import RankError
from .layout import Layout
from .structure import Structure

# One rank per storage mode; None is a whole mode, without factor.
Ranks = tuple[int | None, ...]
DEFAULT_RANK = 8


def count(layout: Layout, structure: Structure, ranks: Ranks) -> int:
    """Numbers that an update of these ranks learns."""
    core = core_shape(layout, ranks)
    total = core[layout.out] if structure.core == "scaled" else math.prod(core)
    for n, (size, r) in enumerate(zip(layout.shape, ranks, strict=True)):
        kind = structure.kind(layout, n)
        if kind == "dense" and r is not None and structure.train_factors:
            total += size * r
        elif kind == "diagonal":
            total += size
    return total


def core_shape(layout: Layout, ranks: Ranks) -> tuple[int, ...]:
    """Shape of the core: the rank of a mode with factor, the size of a whole one."""
    return tuple(size if r is None else r for size, r in zip(layout.shape, ranks, strict=True))


def resolve(
    layout: Layout,
    structure: Structure,
    weight: Tensor,
    *,
    rank: Any = None,
    budget: Any = None,
    energy: Any = None,
    modes: Iterable[int] | None = None,
    cap: bool = False,
    where: str = "tucker_adapter",
) -> Ranks:
    """One rank per mode from whatever the user gave.

    Parameters
    ----------
    rank : int or sequence of int or None, optional
        An int is the rank of the output and the input mode. A sequence has one entry per storage mode; None
        or the size of the mode leaves it whole.
    budget : int, optional
        The largest int rank with at most so many learned numbers.
    energy : float, optional
        The smallest ranks whose HOSVD of the weight keeps this share of its squared norm.
    modes : iterable of int, optional
        The modes that get factors; the structure's own otherwise.
    cap : bool
        An int rank beyond a mode is lowered to the mode's size instead of refused.

    Raises
    ------
    RankError
        If a rank exceeds its mode, the update is as large as the weight, or the budget is too small.
    """
    given = [
        name for name, value in (("rank", rank), ("budget", budget), ("energy", energy)) if value is not None
    ]
    if len(given) > 1:
        raise RankError(f"{where}: give one of rank, budget and energy; got {' and '.join(given)}.")
    factored = _factored(layout, structure, modes, where)
    if budget is not None:
        ranks = _for_budget(layout, structure, factored, budget, where)
    elif energy is not None:
        ranks = _for_energy(layout, factored, weight, energy, where)
    elif rank is None:
        ranks = _default(layout, structure, factored)
    elif isinstance(rank, numbers.Integral) and not isinstance(rank, bool):
        ranks = _uniform(layout, structure, factored, int(rank), cap, where)
    else:
        ranks = _per_mode(layout, structure, rank, where)
    _check_size(layout, structure, ranks, where)
    return ranks


def _factored(layout: Layout, structure: Structure, modes: Iterable[int] | None, where: str) -> list[int]:
    d = len(layout.shape)
    if modes is None:
        kinds = [structure.kind(layout, n) for n in range(d)]
        return [n for n in range(d) if kinds[n] in ("dense", "selection") and layout.shape[n] > 1]
    chosen = sorted({int(n) for n in modes})
    wrong = [n for n in chosen if not 0 <= n < d]
    if wrong:
        raise RankError(
            f"{where}: `modes` must be storage modes 0..{d - 1} of shape {layout.shape}; got {wrong}."
        )
    return chosen


def _uniform(
    layout: Layout, structure: Structure, factored: Sequence[int], rank: int, cap: bool, where: str
) -> Ranks:
    if rank < 1:
        raise RankError(f"{where}: rank must be 1 or more; got {rank}.")
    ranks: list[int | None] = [None] * len(layout.shape)
    for n in factored:
        size = layout.shape[n]
        limit = size if cap or layout.role(n) == "rest" else rank
        if rank > size and limit == rank:
            fitting = tuple(min(rank, s) if m in factored else s for m, s in enumerate(layout.shape))
            raise RankError(
                f"{where}: the rank of {layout.mode_name(n)} must be at most its size, {size}; got {rank}. "
                f"Give a smaller rank, or one per storage mode: rank={fitting}."
            )
        ranks[n] = _whole_if_full(structure, layout, n, min(rank, size))
    return tuple(ranks)


def _whole_if_full(structure: Structure, layout: Layout, mode: int, rank: int) -> int | None:
    """A square learned factor adds numbers and nothing else, except where a method's own form has one."""
    whole = rank == layout.shape[mode] and structure.init != "flora"
    return None if whole else rank


def _per_mode(layout: Layout, structure: Structure, rank: Any, where: str) -> Ranks:
    entries = list(rank) if isinstance(rank, Iterable) and not isinstance(rank, str) else None
    if entries is None or any(
        r is not None and (isinstance(r, bool) or not isinstance(r, numbers.Integral)) for r in entries
    ):
        raise RankError(f"{where}: rank must be an int or one int (or None) per storage mode; got {rank!r}.")
    if len(entries) != len(layout.shape):
        names = ", ".join(layout.names)
        raise RankError(
            f"{where}: rank must have one entry per storage mode ({names}), {len(layout.shape)} for shape "
            f"{layout.shape}; got {len(entries)}: {tuple(entries)}."
        )
    ranks: list[int | None] = []
    for n, (r, size) in enumerate(zip(entries, layout.shape, strict=True)):
        if r is not None and not 1 <= r <= size:
            raise RankError(
                f"{where}: the rank of {layout.mode_name(n)} must be 1..{size}, the mode's size; got {r}."
            )
        ranks.append(None if r is None else _whole_if_full(structure, layout, n, int(r)))
    return tuple(ranks)


def _default(layout: Layout, structure: Structure, factored: Sequence[int]) -> Ranks:
    """The largest rank up to 8 that needs at most half as many numbers as the weight."""
    for rank in range(DEFAULT_RANK, 1, -1):
        ranks = _uniform(layout, structure, factored, rank, True, "tucker_adapter")
        if 2 * count(layout, structure, ranks) <= layout.numel:
            return ranks
    return _uniform(layout, structure, factored, 1, True, "tucker_adapter")


def _for_budget(
    layout: Layout, structure: Structure, factored: Sequence[int], budget: Any, where: str
) -> Ranks:
    if isinstance(budget, bool) or not isinstance(budget, numbers.Integral) or budget < 1:
        raise RankError(
            f"{where}: budget must be a number of parameters, an int of 1 or more; got {budget!r}."
        )
    best = None
    for rank in range(1, max((layout.shape[n] for n in factored), default=1) + 1):
        ranks = _uniform(layout, structure, factored, rank, True, where)
        if count(layout, structure, ranks) <= budget:
            best = ranks
    if best is None:
        least = count(layout, structure, _uniform(layout, structure, factored, 1, True, where))
        raise RankError(
            f"{where}: the budget must be at least {least}, what rank 1 needs for shape {layout.shape}; "
            f"got {budget}."
        )
    return best


def _for_energy(layout: Layout, factored: Sequence[int], weight: Tensor, energy: Any, where: str) -> Ranks:
    if isinstance(energy, bool) or not isinstance(energy, numbers.Real) or not 0 < energy <= 1:
        raise RankError(f"{where}: energy must be a share in (0, 1]; got {energy!r}.")
    ranks: list[int | None] = [None] * len(layout.shape)
    allowed = (1 - float(energy)) / max(len(factored), 1)
    for n in factored:
        squares = mode_energies(weight, n)
        tail = squares.flip(0).cumsum(0).flip(0) / squares.sum().clamp_min(torch.finfo(squares.dtype).tiny)
        needed = max(int((tail > allowed + 1e-12).sum()), 1)
        ranks[n] = None if needed == layout.shape[n] else needed
    return tuple(ranks)


def mode_energies(weight: Tensor, mode: int) -> Tensor:
    """Squared singular values of a mode's unfolding, largest first, in float64."""
    flat = weight.detach().movedim(mode, 0).reshape(weight.shape[mode], -1).to(torch.float64)
    gram = flat @ flat.mT if flat.shape[0] <= flat.shape[1] else flat.mT @ flat
    values = torch.linalg.eigvalsh(gram).flip(0).clamp_min(0)
    return torch.nn.functional.pad(values, (0, flat.shape[0] - len(values)))


def _check_size(layout: Layout, structure: Structure, ranks: Ranks, where: str) -> None:
    learned = count(layout, structure, ranks)
    if learned >= layout.numel:
        shape = core_shape(layout, ranks)
        raise RankError(
            f"{where}: an update must have fewer numbers than the weight; ranks {shape} need {learned}, the "
            f"weight of shape {layout.shape} has {layout.numel}. Lower the rank, or train the layer itself."
        )
