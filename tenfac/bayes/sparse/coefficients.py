"""Sparse coefficients as a format: those of the support, and unit vectors that put them in their places."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tenfac.core.arrays import device_of, namespace_of
from tenfac.core.cp import CP
from tenfac.core.errors import ShapeError
from tenfac.core.modes.discrete import Discrete
from tenfac.core.modes.protocol import Mode
from tenfac.core.report import Report
from tenfac.core.tucker import Tucker


def format_of(
    coef: Any,
    support: Sequence[Any],
    sizes: Sequence[int],
    modes: Sequence[Mode | None] | None,
    scattered: bool,
    info: Report,
    where: str,
) -> Tucker | CP:
    """Coefficients on a box, a Tucker, or at scattered places, a CP; a further axis of snapshots is a mode.

    Parameters
    ----------
    coef : array, shape (k_0, ..., k_{I-1}), scattered (k,), with snapshots and (T,)
    support : sequence of I arrays of int, shapes (k_i,), scattered (k,)
    sizes : sequence of I int
    modes : sequence of I Mode or None, optional
    scattered : bool
    info : Report
    where : str
        Name of the caller, for messages.

    Raises
    ------
    ShapeError
        If the modes do not have these sizes.

    Examples
    --------
    >>> import numpy as np
    >>> t = format_of(np.array([[5.0, 6.0]]), [[1], [0, 2]], (2, 3), None, False, Report(True, "toy"), "toy")
    >>> t.to_tensor().tolist(), t.rank
    ([[0.0, 0.0, 0.0], [5.0, 0.0, 6.0]], (1, 2))
    """
    xp = namespace_of(coef)
    like = {"dtype": coef.dtype, "device": device_of(coef)}
    kinds = _kinds(modes, sizes, where)
    if 0 in coef.shape:  # the empty model: one term that is zero
        units = [xp.zeros((size, 1), **like) for size in sizes]
        coef = xp.zeros(tuple(max(size, 1) for size in coef.shape), **like)
    else:
        units = [_units(at, size, like, xp) for at, size in zip(support, sizes, strict=True)]
    if coef.ndim > (1 if scattered else len(sizes)):
        kinds.append(Discrete(coef.shape[-1]))
        units.append(xp.matrix_transpose(coef) if scattered else xp.eye(coef.shape[-1], **like))
        coef = xp.ones(coef.shape[0], **like) if scattered else coef
    return (CP if scattered else Tucker)(coef, units, kinds, info=info)


def _units(places: Any, size: int, like: dict[str, Any], xp: Any) -> Any:
    """Unit vectors of some places, (N, k)."""
    made = xp.zeros((size, len(places)), **like)
    made[xp.asarray(places), xp.arange(len(places))] = 1
    return made


def _kinds(modes: Sequence[Mode | None] | None, sizes: Sequence[int], where: str) -> list[Mode]:
    """A mode for each factor; row numbers where none is given."""
    given = [None] * len(sizes) if modes is None else list(modes) if isinstance(modes, Iterable) else []
    found = [Discrete(size) if mode is None else mode for mode, size in zip(given, sizes, strict=False)]
    if len(given) != len(sizes) or any(
        getattr(mode, "size", None) != size for mode, size in zip(found, sizes, strict=True)
    ):
        raise ShapeError(
            f"{where}: `modes` must be {len(sizes)} modes of sizes {tuple(sizes)}, the columns of the "
            f"factors; got {modes!r}. Pass the modes that made the dictionaries."
        )
    return found
