"""Indices of numpy's basic kind, ``t[i, :, 2:5, ...]``, for formats whose modes may be continuous."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from tenfac.core.arrays import device_of
from tenfac.core.modes.discrete import Discrete
from tenfac.core.modes.protocol import Mode


def parse_index(index: Any, modes: Sequence[Mode]) -> list[int | slice]:
    """Complete an index to one int or slice per mode, ints wrapped and checked.

    Raises
    ------
    IndexError
        If it is not made of integers, slices and one ellipsis, or does not fit the modes.

    Examples
    --------
    >>> parse_index((..., -1), [Discrete(3), Discrete(4)])
    [slice(None, None, None), 3]
    """
    entries = list(index) if isinstance(index, tuple) else [index]
    dots = [n for n, entry in enumerate(entries) if entry is Ellipsis]
    if len(dots) > 1:
        raise IndexError("t[...]: an index can have only one ellipsis ('...').")
    at = dots[0] if dots else len(entries)
    head, tail = entries[:at], entries[at + 1 :]
    if len(head) + len(tail) > len(modes):
        raise IndexError(
            f"t[...]: too many indices; the tensor has {len(modes)} modes and got {len(head) + len(tail)}."
        )
    filling = [slice(None)] * (len(modes) - len(head) - len(tail))
    return [_parse_entry(entry, n, modes[n]) for n, entry in enumerate([*head, *filling, *tail])]


def _parse_entry(entry: Any, n: int, mode: Mode) -> int | slice:
    if isinstance(entry, slice):
        if mode.domain is not None and entry != slice(None):
            raise IndexError(
                f"t[...]: mode {n} is continuous and takes only ':'; got {entry}. Use t.at(...)."
            )
        parts = (entry.start, entry.stop, entry.step)
        if any(part is not None and not hasattr(part, "__index__") for part in parts):
            raise IndexError(
                f"t[...]: a slice must hold integers or nothing; got {entry} for mode {n}. Write t[1:3] "
                "or t[:]."
            )
        if entry.step is not None and operator.index(entry.step) == 0:
            raise IndexError(
                f"t[...]: the step of a slice must not be 0; got {entry} for mode {n}. Leave it out."
            )
        return entry
    wrong = (
        "t[...]: an index must be an integer, a slice or '...' (and only ':' for a continuous mode); got "
        f"{type(entry).__name__} for mode {n}. For points write t.at(i, j, ...)."
    )
    if isinstance(entry, (bool, np.bool_)) or not hasattr(entry, "__index__") or mode.domain is not None:
        raise IndexError(wrong)
    try:
        value = operator.index(entry)
    except TypeError:
        raise IndexError(wrong) from None
    if not -mode.size <= value < mode.size:
        raise IndexError(f"t[...]: index {value} is out of bounds for mode {n} of size {mode.size}.")
    return value % mode.size


def picked(factor: Any, mode: Mode, entry: slice, xp: Any) -> tuple[Any, Mode]:
    """Rows of a factor that a slice keeps, and their mode.

    Examples
    --------
    >>> from tenfac.core.arrays import namespace_of
    >>> factor, mode = picked(np.eye(3), Discrete(3), slice(None, None, -2), namespace_of(np.eye(3)))
    >>> factor, mode
    (array([[0., 0., 1.],
           [1., 0., 0.]]), Discrete(size=2))
    """
    if entry == slice(None):
        return factor, mode
    start, stop, step = entry.indices(mode.size)
    if step > 0:
        factor = factor[..., start:stop:step, :]
    else:
        rows = np.arange(start, stop, step)
        factor = xp.take(factor, xp.asarray(rows, device=device_of(factor)), axis=factor.ndim - 2)
    return factor, Discrete(factor.shape[-2])
