"""The CP format: a sum of outer products of vectors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

from tenfac.core.arithmetic import unit_scale
from tenfac.core.arrays import byte_guard, device_of, namespace_of, promote
from tenfac.core.door import door
from tenfac.core.entries import cp_entries
from tenfac.core.errors import ShapeError
from tenfac.core.format import Format
from tenfac.core.format_state import entries, validated
from tenfac.core.modes.protocol import Mode
from tenfac.core.points import WeightsKernel
from tenfac.core.precision import half_of, is_complex, itemsize
from tenfac.core.report import Report
from tenfac.core.train_cores import from_weights
from tenfac.core.tucker import Tucker

if TYPE_CHECKING:
    from tenfac.core.train import TuckerTrain


@door
@dataclass(frozen=True, eq=False, repr=False)
class CP(Format):
    """A tensor in CP format, ``X[i, j, ...] = sum_r w[r] A[i, r] B[j, r] ...``.

    Parameters
    ----------
    weights : array, shape (R,), or None
        None means ones.
    factors : sequence of D arrays, shapes (K_n, R)
        Rows are index values. Brought to one dtype; integers become float64. Arrays are not copied. Further
        leading axes, the same for all arrays, are a batch of tensors.
    modes : sequence of Mode, optional
        What each index is; ``Discrete(K_n)`` if not given.
    info : Report, optional
        How the tensor was computed. Algebra drops it.

    Raises
    ------
    ShapeError
        If weights, factors and modes do not fit each other.
    TypeError
        If the arrays are not of one library on one device.

    Notes
    -----
    ``+``, ``-`` and multiplication by a number or entry by entry (``*``) stay in the format: ranks of a sum
    add, those of a product multiply. With a ``Tucker`` or ``TuckerTrain`` the result is of that format.
    ``t[i, :, j]`` slices. ``weights, factors = t`` unpacks, so TensorLy
    functions take it. Half precision and transformations of JAX and torch: as for ``Tucker``.

    References
    ----------
    .. [1] T. G. Kolda and B. W. Bader, Tensor Decompositions and Applications, SIAM Review 51 (2009), section
       3. doi:10.1137/07070111X

    Examples
    --------
    >>> import numpy as np
    >>> t = CP(None, [np.ones((3, 2)), np.ones((4, 2))])
    >>> t
    CP(shape=(3, 4), rank=2, numpy.float64, 16 numbers for 12 entries)
    >>> (t + t).at([0, 2], [1, 3])
    array([4., 4.])
    """

    _CORE = "weights"
    _GENERALITY = 0
    _TENSORLY = "cp_tensor.CPTensor"

    weights: Any
    factors: tuple[Any, ...]
    modes: tuple[Mode, ...]
    info: Report | None

    def __init__(
        self,
        weights: Any,
        factors: Sequence[Any],
        modes: Sequence[Mode] | None = None,
        *,
        info: Report | None = None,
    ) -> None:
        factors = entries(factors, "factors", "CP")
        given = [] if weights is None else [weights]
        checked = validated("CP", [*given, *factors], modes, factors)
        columns = [factor.shape[-1] for factor in factors]
        if len(set(columns)) > 1:
            raise ShapeError(f"CP: all factors must have the same number of columns; got {columns}.")
        want = (*factors[0].shape[:-2], columns[0])
        if weights is not None and tuple(weights.shape) != want:
            raise ShapeError(
                f"CP: weights must have shape {want}, one per column of the factors (after the batch); got "
                f"{tuple(weights.shape)}."
            )
        arrays = [*factors, *given]
        arrays = arrays if half_of(*arrays) is not None else list(promote(*arrays, where="CP"))
        if weights is None:
            like = arrays[0]
            weights = namespace_of(like).ones(want, dtype=like.dtype, device=device_of(like))
        else:
            *arrays, weights = arrays
        self._set((weights,), arrays, checked, info)

    @property
    def rank(self) -> int:
        """Number of terms R."""
        return self.weights.shape[-1]

    def _dense(self, xp: Any) -> Any:
        """One matrix product of two Khatri-Rao products, split so that both are small."""
        shape = self.coef_shape
        split = min(range(self.ndim), key=lambda n: math.prod(shape[:n]) + math.prod(shape[n:]))
        left = self._columns([*self.factors[:split], self.weights[..., None, :]], xp)
        right = xp.matrix_transpose(self._columns(self.factors[split:], xp))
        return xp.reshape(xp.matmul(left, right), (*self.batch_shape, *shape))

    def _columns(self, factors: Sequence[Any], xp: Any) -> Any:
        """Khatri-Rao product ``(*b, prod(K), R)``."""

        def product(a: Any, b: Any) -> Any:
            sizes = (*self.batch_shape, a.shape[-2] * b.shape[-2], self.rank)
            return xp.reshape(a[..., :, None, :] * b[..., None, :, :], sizes)

        return reduce(product, factors)

    def _absorb(self, rows: Mapping[int, Any], xp: Any) -> Sequence[Any]:
        weights = reduce(lambda w, row: w * row[..., 0, :], rows.values(), self.weights)
        return (xp.sum(weights, axis=-1) if len(rows) == self.ndim else weights,)

    def _join(self, left: Sequence[Any], right: Sequence[Any], xp: Any) -> Sequence[Any]:
        return (xp.concat([left[0], right[0]], axis=-1),)

    def _inner(self, left: Any, right: Any, xp: Any) -> Any:
        weights, *factors = left
        other_weights, *other_factors = right
        pairs = zip(factors, other_factors, strict=True)
        grams = reduce(lambda a, b: a * b, [xp.matmul(xp.matrix_transpose(a), b) for a, b in pairs])
        return xp.sum(weights[..., :, None] * grams * other_weights[..., None, :], axis=(-2, -1))

    def _at_rows(self, rows: Sequence[Any], xp: Any) -> Any:
        return xp.matmul(reduce(lambda a, b: a * b, rows), self.weights[..., None])[..., 0]

    def _gathered(self, indices: Sequence[Any], xp: Any) -> Any:
        return cp_entries(self.weights, self.factors, indices, xp)

    def _kernel(self, xp: Any) -> WeightsKernel:
        return WeightsKernel(self, xp)

    def norm(self) -> Any:
        """Frobenius norm, in the format; L2 norm over the domain in continuous modes.

        From Gram matrices: for a difference of near tensors it has a floor of about ``sqrt(eps)`` of their
        norms; ``t.to_tucker().norm()`` has none. float32 for half precision, whose range is too small.
        """
        wide = self._metric()
        xp = namespace_of(wide.weights)
        scaled, root = unit_scale(list(wide._arrays().values()), self.batch_shape, xp)
        complex_ = is_complex(wide.weights)
        square = wide._inner(map(xp.conj, scaled) if complex_ else scaled, scaled, xp)
        square = xp.real(square) if complex_ else square
        # the root of zero has no gradient: where the square is zero, that of one is taken and dropped
        zero = square <= 0  # not "square > 0": NaN must pass
        length = xp.where(zero, xp.zeros_like(square), xp.sqrt(xp.where(zero, xp.ones_like(square), square)))
        return (length * root) * root

    def to_tucker(self, *, max_bytes: int | None = None) -> Tucker:
        """Convert to Tucker format with a diagonal core of ``R^D`` numbers.

        Parameters
        ----------
        max_bytes : int, optional
            Refuse a larger core.

        Raises
        ------
        DataError
            If the core would be larger than ``max_bytes``.
        """
        xp = namespace_of(self.weights)
        remedy = "Reduce the rank of the CP tensor."
        sizes = (*self.batch_shape, *(self.rank,) * self.ndim)
        byte_guard(sizes, itemsize(self.dtype), max_bytes, "to_tucker", remedy)
        unit = xp.eye(self.rank, dtype=self.dtype, device=self.device)
        unit = xp.broadcast_to(unit, (*self.batch_shape, self.rank, self.rank))
        core = CP(self.weights, (unit,) * self.ndim).to_tensor()
        return Tucker(core, self.factors, self.modes)

    def to_train(self, *, order: Sequence[int] | None = None, max_bytes: int | None = None) -> TuckerTrain:
        """Convert to a tensor train of the same factors, its cores of ``R^3`` numbers diagonal.

        Parameters
        ----------
        order : sequence of D int, optional
            The modes along the train, ``0, 1, ..., D-1`` if not given.
        max_bytes : int, optional
            Refuse larger cores.

        Raises
        ------
        ShapeError
            If ``order`` does not hold every mode once.
        DataError
            If a core would be larger than ``max_bytes``.
        """
        from tenfac.core.train import TuckerTrain, checked_order

        order = checked_order(order, self.ndim)
        sizes = (*self.batch_shape, self.rank, self.rank, self.rank)
        byte_guard(sizes, itemsize(self.dtype), max_bytes, "to_train", "Reduce the rank of the CP tensor.")
        along = from_weights(self.weights, self.ndim, namespace_of(self.weights))
        cores = [along[order.index(n)] for n in range(self.ndim)]
        return TuckerTrain(cores, self.factors, self.modes, order=order)
