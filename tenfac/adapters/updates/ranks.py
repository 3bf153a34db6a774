"""How large an update is: rank, parameter budget or energy, turned into one rank per mode, or refused."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from tenfac.adapters.updates.layout import Layout
from tenfac.adapters.updates.structure import Structure
from tenfac.adapters.updates.subspaces import unfolded
from tenfac.core.errors import DataError, RankError

# One rank per storage mode; None is a whole mode, without factor. A Kronecker core: sizes of its left block.
Ranks = tuple[int | None, ...]
DEFAULT_RANK = 8


def core_shape(layout: Layout, ranks: Ranks) -> tuple[int, ...]:
    """Shape of the core: the rank of a mode with factor, the size of a whole one."""
    return tuple(size if r is None else r for size, r in zip(layout.shape, ranks, strict=True))


def n_terms(layout: Layout, structure: Structure, ranks: Ranks) -> int:
    """Terms of an update: one, or as many as reach full rank."""
    if not structure.full_rank:
        return 1
    size = layout.shape[layout.out]
    return math.ceil(min(size, layout.numel // size) / core_shape(layout, ranks)[layout.out])


def count(layout: Layout, structure: Structure, ranks: Ranks) -> int:
    """Numbers that an update of these ranks learns."""
    core = core_shape(layout, ranks)
    if structure.core == "kronecker":
        return math.prod(core) + layout.numel // math.prod(core)
    total = core[layout.out] if structure.core == "scaled" else math.prod(core)
    for size, r, kind in zip(layout.shape, core, structure.kinds(layout, ranks), strict=True):
        if kind == "diagonal":
            total += size
        elif kind == "dense" and structure.train_factors:
            total += size * r
    return total * n_terms(layout, structure, ranks)


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
        An int is the rank of every mode with a factor; kernel and stack modes take at most their size. A
        sequence has one entry per storage mode; None or the size of the mode leaves it whole. Of a Kronecker
        core: sizes of the left block, which divide the modes'; an int is the largest divisor up to it.
    budget : int, optional
        The int rank with the most learned numbers, at most so many.
    energy : float, optional
        The smallest ranks whose HOSVD of the weight keeps this share of its squared norm. What may be lost is
        shared evenly by the modes with factors.
    modes : iterable of int, optional
        The modes that get factors; the structure's own otherwise.
    cap : bool
        An int rank beyond a mode is lowered to the mode's size instead of refused.

    Raises
    ------
    RankError
        If a rank exceeds its mode, the update is as large as the weight, or the budget is too small.

    Notes
    -----
    With none of rank, budget and energy: the largest rank up to 8 that needs at most half as many numbers as
    the weight, else 1.
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
        ranks = _for_energy(layout, structure, factored, weight, energy, where)
    elif rank is None:
        ranks = _default(layout, structure, factored, where)
    elif isinstance(rank, numbers.Integral) and not isinstance(rank, bool):
        ranks = _uniform(layout, structure, factored, int(rank), cap, where)
    elif modes is not None:
        raise RankError(
            f"{where}: `modes` must come with an int rank, a budget or an energy; got rank={rank!r}. Write "
            "None in `rank` for the modes to be left whole."
        )
    else:
        ranks = _per_mode(layout, structure, rank, where)
    _check_size(layout, structure, ranks, where)
    return ranks


def _factored(layout: Layout, structure: Structure, modes: Any, where: str) -> list[int]:
    """Modes that an int rank, a budget or an energy acts on."""
    d = len(layout.shape)
    if modes is not None:
        return _asked(layout, structure, modes, where)
    if structure.core == "kronecker":
        return [n for n in range(d) if layout.role(n) != "rest"]
    kinds = [structure.kind(layout, n) for n in range(d)]
    return [n for n in range(d) if kinds[n] in ("dense", "selection") and layout.shape[n] > 1]


def _asked(layout: Layout, structure: Structure, modes: Any, where: str) -> list[int]:
    d = len(layout.shape)
    chosen: list[Any] = [modes] if isinstance(modes, (str, numbers.Number)) else list(modes)
    right = isinstance(modes, Iterable) and not isinstance(modes, str)
    if not right or any(isinstance(n, bool) or not isinstance(n, numbers.Integral) for n in chosen):
        raise RankError(f"{where}: `modes` must be a sequence of ints, storage modes; got {modes!r}.")
    if wrong := sorted({int(n) for n in chosen if not 0 <= n < d}):
        names = ", ".join(layout.mode_name(n) for n in range(d))
        raise RankError(
            f"{where}: `modes` must be storage modes of shape {layout.shape}: {names}; got {wrong}."
        )
    chosen = sorted({int(n) for n in chosen})
    diagonal = [n for n in chosen if structure.kind(layout, n) == "diagonal"]
    if diagonal:
        raise RankError(
            f"{where}: `modes` must be without {layout.mode_name(diagonal[0])}: the structure has a diagonal "
            f"factor there; got {chosen}."
        )
    return chosen


def _uniform(
    layout: Layout, structure: Structure, factored: Sequence[int], rank: int, cap: bool, where: str
) -> Ranks:
    if rank < 1:
        raise RankError(f"{where}: rank must be 1 or more; got {rank}. Give 8, or a budget of parameters.")
    if structure.core == "kronecker":
        left = [1] * len(layout.shape)
        for n in factored:
            left[n] = max(r for r in range(1, min(rank, layout.shape[n]) + 1) if layout.shape[n] % r == 0)
        return tuple(left)
    ranks: list[int | None] = [None] * len(layout.shape)
    for n in factored:
        limit = _limit(layout, structure, n)
        if rank > limit and not cap and layout.role(n) != "rest":
            fitting = tuple(
                min(rank, _limit(layout, structure, m)) if m in factored else None
                for m in range(len(layout.shape))
            )
            raise RankError(
                f"{where}: the rank of {_has(layout, n, limit)} must be at most {limit}; got {rank}. "
                f"Give a smaller rank, or one per storage mode: rank={fitting}."
            )
        ranks[n] = min(rank, limit)
    return _finished(layout, structure, ranks)


def _limit(layout: Layout, structure: Structure, mode: int) -> int:
    """Largest rank of a mode: its size, and of a scaled core not beyond the rank of the matrix it cuts."""
    size = layout.shape[mode]
    return min(size, layout.numel // size) if structure.core == "scaled" and mode == layout.out else size


def _has(layout: Layout, mode: int, limit: int) -> str:
    size = layout.shape[mode]
    others = "" if limit == size else f" and all others {layout.numel // size}"
    return f"{layout.mode_name(mode)}, which has size {size}{others},"


def _finished(layout: Layout, structure: Structure, ranks: Sequence[int | None]) -> Ranks:
    """Leave modes of full rank whole: a square learned factor adds numbers and nothing else.

    Not where a method's own form has square factors, nor where factors are frozen; and the output mode of a
    scaled core always has a factor, between its learned numbers and the weight.
    """
    square = structure.init == "flora" or not structure.train_factors
    done = [None if r == size and not square else r for r, size in zip(ranks, layout.shape, strict=True)]
    if structure.core == "scaled" and done[layout.out] is None:
        done[layout.out] = _limit(layout, structure, layout.out)
    return tuple(done)


def _per_mode(layout: Layout, structure: Structure, rank: Any, where: str) -> Ranks:
    entries = list(rank) if isinstance(rank, Iterable) and not isinstance(rank, (str, bytes)) else None
    if entries is None or any(
        r is not None and (isinstance(r, bool) or not isinstance(r, numbers.Integral)) for r in entries
    ):
        real = isinstance(rank, numbers.Real) and not isinstance(rank, bool)
        hint = f" For a share of the weight's squared norm write energy={rank!r}." if real else ""
        raise RankError(
            f"{where}: rank must be an int or one int (or None) per storage mode; got {rank!r}.{hint}"
        )
    if len(entries) != len(layout.shape):
        names = ", ".join(layout.names)
        raise RankError(
            f"{where}: rank must have one entry per storage mode ({names}), {len(layout.shape)} for shape "
            f"{layout.shape}; got {len(entries)}: {tuple(entries)}."
        )
    for n, r in enumerate(entries):
        if r is not None:
            _check_entry(layout, structure, n, r, where)
    ranks = [None if r is None else int(r) for r in entries]
    if structure.core == "kronecker":
        return tuple(1 if r is None else r for r in ranks)
    return _finished(layout, structure, ranks)


def _check_entry(layout: Layout, structure: Structure, mode: int, r: int, where: str) -> None:
    if structure.kind(layout, mode) == "diagonal":
        raise RankError(
            f"{where}: the rank of {layout.mode_name(mode)} must be None: the structure has a diagonal "
            f"factor there; got {r}."
        )
    limit = _limit(layout, structure, mode)
    if not 1 <= r <= limit:
        raise RankError(
            f"{where}: the rank of {_has(layout, mode, limit)} must be 1..{limit}; got {r}. Give a rank in "
            "that range, or None to leave the mode whole."
        )
    if structure.core == "kronecker" and layout.shape[mode] % r:
        size = layout.shape[mode]
        divisors = ", ".join(str(d) for d in range(1, size + 1) if size % d == 0)
        raise RankError(
            f"{where}: the left block's size in {layout.mode_name(mode)} must divide {size}; got {r}. Give "
            f"one of {divisors}."
        )


def _default(layout: Layout, structure: Structure, factored: Sequence[int], where: str) -> Ranks:
    """The largest rank up to 8 that needs at most half as many numbers as the weight."""
    for rank in range(DEFAULT_RANK, 1, -1):
        ranks = _uniform(layout, structure, factored, rank, True, where)
        if 2 * count(layout, structure, ranks) <= layout.numel:
            return ranks
    return _uniform(layout, structure, factored, 1, True, where)


def _for_budget(
    layout: Layout, structure: Structure, factored: Sequence[int], budget: Any, where: str
) -> Ranks:
    if isinstance(budget, bool) or not isinstance(budget, numbers.Integral) or budget < 1:
        raise RankError(
            f"{where}: budget must be a number of parameters, an int of 1 or more; got {budget!r}."
        )
    best, most, least = None, 0, math.inf
    for rank in _candidates(layout, structure, factored, int(budget)):
        ranks = _uniform(layout, structure, factored, rank, True, where)
        learned = count(layout, structure, ranks)
        least = min(least, learned)
        if most <= learned <= int(budget) and learned < layout.numel:
            best, most = ranks, learned
    if best is None:
        raise RankError(
            f"{where}: the budget must be at least {least}, the least that an update of shape {layout.shape} "
            f"needs, and below the weight's {layout.numel}; got {budget}."
        )
    return best


def _candidates(layout: Layout, structure: Structure, factored: Sequence[int], budget: int) -> Iterable[int]:
    """Int ranks worth counting for a budget."""
    sizes = [_limit(layout, structure, n) for n in factored]
    largest = max(sizes, default=1)
    if structure.core == "full" and structure.train_factors:  # each rank costs a column of the longest factor
        largest = min(largest, budget // largest + 1)
    elif structure.core == "kronecker":
        return sorted({r for size in sizes for r in range(1, size + 1) if size % r == 0})
    return range(1, largest + 1)


def _for_energy(
    layout: Layout, structure: Structure, factored: Sequence[int], weight: Tensor, energy: Any, where: str
) -> Ranks:
    if isinstance(energy, bool) or not isinstance(energy, numbers.Real) or not 0 < float(energy) <= 1:
        raise RankError(f"{where}: energy must be a share in (0, 1]; got {energy!r}.")
    if structure.core == "kronecker" or structure.full_rank:
        kind = "Kronecker core" if structure.core == "kronecker" else "sum of full rank"
        raise RankError(
            f"{where}: energy must come with a structure whose rank cuts the weight; got a {kind}. Give "
            "rank or budget."
        )
    if weight.is_meta or not bool(torch.isfinite(weight).all()):
        state = "no values (meta device)" if weight.is_meta else "NaN or infinite values"
        raise DataError(f"{where}: energy needs a finite weight to measure; got one with {state}. Give rank.")
    ranks: list[int | None] = [None] * len(layout.shape)
    allowed = (1 - float(energy)) / max(len(factored), 1)
    for n in factored:
        picks = structure.kind(layout, n) == "selection"
        squares = slice_energies(weight, n) if picks else mode_energies(weight, n)
        tail = squares.flip(0).cumsum(0).flip(0) / squares.sum().clamp_min(torch.finfo(squares.dtype).tiny)
        ranks[n] = min(max(int((tail > allowed + 1e-12).sum()), 1), _limit(layout, structure, n))
    return _finished(layout, structure, ranks)


def mode_energies(weight: Tensor, mode: int) -> Tensor:
    """Squared singular values of a mode's unfolding, largest first, in float64, to a common factor.

    Cost: an eigendecomposition of a matrix as large as the smaller side of the unfolding.
    """
    flat = _scaled(weight, mode)
    gram = flat @ flat.mT if flat.shape[0] <= flat.shape[1] else flat.mT @ flat
    values = torch.linalg.eigvalsh(gram).flip(0).clamp_min(0)
    return torch.nn.functional.pad(values, (0, flat.shape[0] - len(values)))


def slice_energies(weight: Tensor, mode: int) -> Tensor:
    """Squared norms of the slices along a mode, largest first, in float64, to a common factor."""
    return _scaled(weight, mode).square().sum(1).sort(descending=True).values


def _scaled(weight: Tensor, mode: int) -> Tensor:
    flat = unfolded(weight, mode).to(torch.float64)
    largest = flat.abs().amax()
    return flat / largest if largest > 0 else flat


def _check_size(layout: Layout, structure: Structure, ranks: Ranks, where: str) -> None:
    shape = core_shape(layout, ranks)
    size = shape[layout.out]
    if structure.core == "scaled" and size * size > math.prod(shape):
        raise RankError(
            f"{where}: the rank of {layout.mode_name(layout.out)} must be at most the product of the other "
            f"ranks, {math.prod(shape) // size}; got {size}."
        )
    learned = count(layout, structure, ranks)
    if learned >= layout.numel:
        raise RankError(
            f"{where}: an update must have fewer numbers than the weight; ranks {shape} need {learned}, the "
            f"weight of shape {layout.shape} has {layout.numel}. Lower the rank, or train the layer itself."
        )
