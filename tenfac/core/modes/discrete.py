"""The discrete mode: an index is a row number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from tenfac.core.arrays import device_of, namespace_of, points_like
from tenfac.core.errors import DataError, ShapeError
from tenfac.core.precision import astype
from tenfac.core.tracing import is_traced


@dataclass(frozen=True)
class Discrete:
    """An index that is a row number ``0..size-1``.

    Parameters
    ----------
    size : int
        Number of index values, 0 or more.

    Raises
    ------
    ShapeError
        If ``size`` is not such an integer.

    Examples
    --------
    >>> import numpy as np
    >>> Discrete(3).rows(np.eye(3), [2, 0])
    array([[0., 0., 1.],
           [1., 0., 0.]])
    """

    size: int

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not hasattr(self.size, "__index__") or self.size.__index__() < 0:
            raise ShapeError(f"Discrete: `size` must be an integer of 0 or more; got {self.size!r}.")
        object.__setattr__(self, "size", self.size.__index__())

    @property
    def domain(self) -> None:
        """None: the index is not continuous."""
        return None

    def rows(self, factor: Any, x: Any, *, xp: Any = None) -> Any:
        """Gather rows of a factor.

        Parameters
        ----------
        factor : array, shape (*b, size, R)
        x : int, sequence or array of int, shape (N,)
        xp : module, optional
            Array namespace of ``factor``; found if not given.

        Returns
        -------
        array, shape (*b, N, R)
            ``(*b, R)`` for a single integer.

        Raises
        ------
        DataError
            If an index is not an integer or lies outside ``0..size-1``. Negative values are refused, because
            -1 marks a missing label in most label encoders. Under ``jax.jit`` an index outside gives NaN.
        """
        xp = namespace_of(factor) if xp is None else xp
        index = self.index(x, factor, xp)
        axis = factor.ndim - 2
        if index.ndim == 0:
            return xp.take(factor, xp.reshape(index, (1,)), axis=axis)[..., 0, :]
        return xp.take(factor, index, axis=axis)

    def index(self, x: Any, factor: Any, xp: Any) -> Any:
        """Row numbers in the library of ``factor``, checked unless their values cannot be read."""
        index = points_like(x, factor, "Discrete.rows")
        if not xp.isdtype(index.dtype, "integral"):
            raise DataError(
                f"Discrete: an index of this mode must be an integer from 0 to {self.size - 1}; got dtype "
                f"{index.dtype}. Map labels or coordinates to row numbers first."
            )
        if not is_traced(index):
            self._check_range(index, xp)
        return index if xp.__name__.startswith("jax") else astype(index, xp.int64, xp)

    def _check_range(self, index: Any, xp: Any) -> None:
        if 0 in index.shape:
            return
        lowest, highest = int(xp.min(index)), int(xp.max(index))
        if lowest < 0 or highest >= self.size:
            raise DataError(
                f"Discrete: an index must be from 0 to {self.size - 1}; got "
                f"{lowest if lowest < 0 else highest}. Negative indices are not wrapped (in slices t[-1] "
                "they are)."
            )

    # --- what continuous modes also have ------------------------------------------------------------------

    def gram(self, like: Any) -> None:  # noqa: ARG002 - protocol
        """None, the identity: inner products are sums over the index."""
        return None

    def integral(self, like: Any) -> NoReturn:  # noqa: ARG002 - protocol
        """Refuse: an index that counts is summed over, not integrated."""
        raise TypeError("Discrete: there is no integral over a discrete index. Sum over it: t.sum(mode).")

    def diff(self, factor: Any) -> NoReturn:  # noqa: ARG002 - protocol
        """Refuse: there is no derivative along an index that counts."""
        raise TypeError(
            "Discrete: there is no derivative along a discrete index. Differentiate a continuous mode, or "
            "take "
            "differences of rows with t.mode_product(matrix, mode)."
        )

    def antiderivative(self, factor: Any) -> tuple[Discrete, Any]:
        """The mode and factor of the cumulative sum."""
        return self, namespace_of(factor).cumulative_sum(factor, axis=-2)

    def constant(self, like: Any) -> Any:
        """Factor of ones, shape (size, 1)."""
        xp = namespace_of(like)
        return xp.ones((self.size, 1), dtype=like.dtype, device=device_of(like))

    def common(self, other: Any) -> Discrete:
        """The mode itself; ShapeError if the other is not equal."""
        if other != self:
            raise ShapeError(f"Discrete: modes of one size can be joined; got {self} and {other}.")
        return self

    def embed(self, target: Discrete, factor: Any) -> Any:  # noqa: ARG002 - protocol
        """The factor as it is."""
        return factor

    def spec(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Describe the mode by a JSON-able dict and named arrays."""
        return {"type": "Discrete", "size": self.size}, {}

    @classmethod
    def from_spec(cls, header: dict[str, Any], arrays: dict[str, Any]) -> Discrete:  # noqa: ARG003 - protocol
        """Build the mode that ``spec`` described."""
        return cls(header["size"])
