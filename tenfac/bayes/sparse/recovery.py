"""What the baselines give back: a support of every mode, and the values on its box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tenfac.bayes.sparse.coefficients import format_of
from tenfac.bayes.sparse.inputs import give_back
from tenfac.core.arrays import byte_guard, to_numpy
from tenfac.core.cp import CP
from tenfac.core.modes.protocol import Mode
from tenfac.core.report import Report
from tenfac.core.tucker import Tucker


@dataclass(frozen=True, eq=False)
class Recovery:
    """Sparse coefficients: zero outside the columns ``support[0] x support[1] x ...``.

    Parameters
    ----------
    support : tuple of arrays of int, shapes (k_i,)
        Columns of every mode, ascending; in the library of ``coef``.
    coef : array, shape (k_1, ..., k_I) or (k_1, ..., k_I, T)
        Values there.
    shape : tuple of int
        Columns of the dictionaries, ``(N_1, ..., N_I)``.
    info : Report

    Examples
    --------
    >>> support = np.array([1]), np.array([0, 2])
    >>> found = Recovery(support, np.array([[5.0, 6.0]]), (2, 3), Report(True, "toy"))
    >>> found
    Recovery(shape=(2, 3), columns=1x2, toy)
    >>> found.coef_tensor()
    array([[0., 0., 0.],
           [5., 0., 6.]])
    """

    support: tuple[Any, ...]
    coef: Any
    shape: tuple[int, ...]
    info: Report

    def coef_tensor(self, *, max_bytes: int | None = 10**9) -> Any:
        """Return all coefficients as a dense array, shape (N_1, ..., N_I) or (N_1, ..., N_I, T).

        Raises
        ------
        DataError
            If it needs more than ``max_bytes``.
        """
        values = to_numpy(self.coef)
        shape = (*self.shape, *values.shape[len(self.shape) :])
        remedy = "Use `coef` and `support`, or raise max_bytes."
        byte_guard(shape, values.dtype.itemsize, max_bytes, "Recovery.coef_tensor", remedy)
        dense = np.zeros(shape, dtype=values.dtype)
        dense[np.ix_(*(to_numpy(columns) for columns in self.support))] = values
        return give_back(dense, self.coef)

    def coef_format(self, modes: Sequence[Mode | None] | None = None) -> Tucker | CP:
        """All coefficients as a Tucker that holds those of the support; see ``KroneckerSBL.coef_format``.

        Raises
        ------
        ShapeError
            If the modes do not have the sizes of the coefficients.
        """
        where = "Recovery.coef_format"
        return format_of(self.coef, self.support, self.shape, modes, False, self.info, where)

    def __repr__(self) -> str:
        columns = "x".join(str(len(rows)) for rows in self.support)
        return f"Recovery(shape={self.shape}, columns={columns}, {self.info.reason})"


def recovery_like(
    like: Any, support: Sequence[Any], coef: Any, shape: tuple[int, ...], info: Report
) -> Recovery:
    """Columns and values found in numpy, in the library, device and precision of the measurements ``like``.

    Examples
    --------
    >>> toy = Report(True, "toy")
    >>> recovery_like(np.ones(3, dtype=np.float32), [np.array([1])], np.array([5.0]), (2,), toy).coef
    array([5.], dtype=float32)
    """
    columns = tuple(give_back(one, like) for one in support)
    return Recovery(columns, give_back(coef, like), shape, info)
