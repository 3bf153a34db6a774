"""The Tucker format: a core and one factor per mode."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tenfac.core.arithmetic import as_dtype, unit_scale
from tenfac.core.arrays import byte_guard, device_of, namespace_of, promote, to_number, to_numpy
from tenfac.core.contract import contract
from tenfac.core.door import door
from tenfac.core.entries import tucker_entries
from tenfac.core.errors import DataError, ShapeError
from tenfac.core.format import Format
from tenfac.core.format_state import entries, finite, validated
from tenfac.core.largest import cut_to_values, largest_change, measures_values, orthonormal
from tenfac.core.modes.protocol import Mode
from tenfac.core.points import CoreKernel
from tenfac.core.precision import HALF, dtype_name, half_of, itemsize
from tenfac.core.rank import rank_or_tol
from tenfac.core.report import Report
from tenfac.core.tracing import clock
from tenfac.core.train_cores import from_core
from tenfac.core.truncate import truncate_any, truncation_report

if TYPE_CHECKING:
    from tenfac.core.cp import CP
    from tenfac.core.train import TuckerTrain

_Format = TypeVar("_Format", bound=Format)


@door
@dataclass(frozen=True, eq=False, repr=False)
class Tucker(Format):
    """A tensor in Tucker format, ``X[i, j, ...] = sum_{p, q, ...} G[p, q, ...] A[i, p] B[j, q] ...``.

    Parameters
    ----------
    core : array, shape (R_0, ..., R_{D-1})
    factors : sequence of D arrays, shapes (K_n, R_n)
        Rows are index values. Brought to one dtype with the core; integers become float64. Arrays are not
        copied. Further leading axes, the same for all arrays, are a batch of tensors.
    modes : sequence of Mode, optional
        What each index is; ``Discrete(K_n)`` if not given.
    info : Report, optional
        How the tensor was computed. Algebra drops it.

    Raises
    ------
    ShapeError
        If core, factors and modes do not fit each other.
    TypeError
        If the arrays are not of one library on one device.

    Notes
    -----
    ``+``, ``-`` and multiplication by a number or entry by entry (``*``) stay in the format: ranks of a
    sum add, those of a product multiply, and ``round`` compresses. With a ``CP`` the result is a Tucker, with
    a ``TuckerTrain`` a train. ``t[i, :, j]`` slices. ``core, factors
    = t`` unpacks, so TensorLy functions take it. With ``Chebyshev`` modes it is a function of points:
    ``at``, ``value_and_grad``, ``on_grid``, ``diff``, ``integrate`` and more; factors hold coefficients,
    ``norm`` and ``inner`` are those of L2, ``round`` keeps the values, and ``*`` is a new
    construction. float16 and bfloat16 are kept and computed with in float32.

    For ``jax.jit``, ``jax.vmap`` and ``torch.vmap`` a format is a pytree: core and factors are its leaves,
    the modes are static, the report is dropped. It is registered when a format is first made after the
    library was imported; tenfac imports neither.

    References
    ----------
    .. [1] T. G. Kolda and B. W. Bader, Tensor Decompositions and Applications, SIAM Review 51 (2009), section
       4. doi:10.1137/07070111X

    Examples
    --------
    >>> import numpy as np
    >>> t = Tucker(np.ones((2, 2)), [np.ones((3, 2)), np.ones((4, 2))])
    >>> t
    Tucker(shape=(3, 4), rank=(2, 2), numpy.float64, 18 numbers for 12 entries)
    >>> (t - t / 2).at([0, 2], [1, 3])
    array([2., 2.])
    """

    _CORE = "core"
    _GENERALITY = 1
    _TENSORLY = "tucker_tensor.TuckerTensor"

    core: Any
    factors: tuple[Any, ...]
    modes: tuple[Mode, ...]
    info: Report | None

    def __init__(
        self,
        core: Any,
        factors: Sequence[Any],
        modes: Sequence[Mode] | None = None,
        *,
        info: Report | None = None,
    ) -> None:
        factors = entries(factors, "factors", "Tucker")
        checked = validated("Tucker", [core, *factors], modes, factors)
        want = (*factors[0].shape[:-2], *(factor.shape[-1] for factor in factors))
        if tuple(core.shape) != want:
            raise ShapeError(
                f"Tucker: the core must have shape {want}, the columns of the factors (after the batch); got "
                f"{tuple(core.shape)}."
            )
        arrays = [core, *factors]
        core, *factors = arrays if half_of(*arrays) is not None else promote(*arrays, where="Tucker")
        self._set((core,), factors, checked, info)

    @property
    def rank(self) -> tuple[int, ...]:
        """Multilinear rank of the format, ``(R_0, ..., R_{D-1})``."""
        return tuple(self.core.shape[-self.ndim :])

    def _dense(self, xp: Any) -> Any:
        return contract(self.core, self.factors, xp=xp)

    def _absorb(self, rows: Mapping[int, Any], xp: Any) -> Sequence[Any]:
        core = contract(self.core, [rows.get(n) for n in range(self.ndim)], xp=xp)
        kept = [r for n, r in enumerate(self.rank) if n not in rows]
        return (xp.reshape(core, (*self.batch_shape, *kept)),)

    def _join(self, left: Sequence[Any], right: Sequence[Any], xp: Any) -> Sequence[Any]:
        """Block diagonal: the two cores at opposite corners."""
        (a,), (b,) = left, right
        lead, ndim = a.shape[: -self.ndim], self.ndim
        p, q = a.shape[-ndim:], b.shape[-ndim:]
        for n in range(ndim):
            axis = len(lead) + n
            below = xp.zeros(
                (*a.shape[:axis], q[n], *a.shape[axis + 1 :]), dtype=a.dtype, device=device_of(a)
            )
            above = xp.zeros(
                (*b.shape[:axis], p[n], *b.shape[axis + 1 :]), dtype=b.dtype, device=device_of(b)
            )
            a, b = xp.concat([a, below], axis=axis), xp.concat([above, b], axis=axis)
        return (a + b,)

    def _laplacian(self, modes: Sequence[int]) -> Tucker:
        """Factors of the functions and their second derivatives, the core in one block for each mode."""
        xp = namespace_of(self.core)
        core, changed, lead = self.core, {}, len(self.batch_shape)
        grown = [2 * r if n in modes else r for n, r in enumerate(self.rank)]
        total = None
        for n in modes:
            bent = self.diff(n, order=2)
            short: Any = bent.modes[n]
            second = bent.factors[n]
            both = xp.concat([self.factors[n], short.embed(self.modes[n], second)], axis=-1)
            changed[n] = (self.modes[n], both)
            block = core
            for m in range(self.ndim):
                missing = grown[m] - self.rank[m]
                if missing:
                    axis = lead + m
                    shape = (*block.shape[:axis], missing, *block.shape[axis + 1 :])
                    zeros = xp.zeros(shape, dtype=core.dtype, device=device_of(core))
                    block = xp.concat([zeros, block] if m == n else [block, zeros], axis=axis)
            total = block if total is None else total + block
        factors = [changed[n][1] if n in changed else factor for n, factor in enumerate(self.factors)]
        return Tucker(total, factors, self.modes)

    def _inner(self, left: Any, right: Any, xp: Any) -> Any:
        core, *factors = left
        other_core, *other_factors = right
        pairs = zip(factors, other_factors, strict=True)
        grams = [xp.matmul(xp.matrix_transpose(a), b) for a, b in pairs]
        return xp.sum(core * contract(other_core, grams, xp=xp), axis=tuple(range(-self.ndim, 0)))

    def _at_rows(self, rows: Sequence[Any], xp: Any) -> Any:
        return contract(self.core, rows, paired=range(self.ndim), xp=xp)

    def _gathered(self, indices: Sequence[Any], xp: Any) -> Any:
        return tucker_entries(self.core, self.factors, indices, xp)

    def _kernel(self, xp: Any) -> CoreKernel:
        return CoreKernel(self, xp)

    def norm(self) -> Any:
        """Frobenius norm, L2 over continuous modes, from triangular factors; accurate for small differences.

        Differentiable where the factors have independent columns; ``t.inner(t)`` always is. float32 for half
        precision, whose range is too small.
        """
        wide = self._metric()
        xp = namespace_of(wide.core)
        (core, *factors), root = unit_scale(list(wide._arrays().values()), self.batch_shape, xp)
        core = contract(core, [xp.linalg.qr(factor)[1] for factor in factors], xp=xp)
        return (xp.linalg.vector_norm(core, axis=tuple(range(-self.ndim, 0))) * root) * root

    def round(self, rank: Any = None, *, tol: float | None = None) -> Tucker:
        """Compress to a smaller rank, or to a relative error: Frobenius of tensors, largest of functions.

        Parameters
        ----------
        rank : int or sequence of int, optional
            At most the sizes; a rank the tensor does not have is not invented.
        tol : float, optional
            Relative error to keep. Give either ``rank`` or ``tol``; one tensor with known values (no batch,
            not under ``jax.jit`` or ``vmap``) has a ``tol``.

        Returns
        -------
        Tucker
            With orthonormal factors; ``info.rel_error`` is the relative error of the compression: with
            ``Chebyshev`` modes the largest change of a value that was found, over the largest value, else
            that of the Frobenius norm (of coefficients where modes are continuous).

        Raises
        ------
        RankError
            If both or neither are given, or not valid.
        ShapeError, DataError
            If the tensor has no entries or a rank of 0, or a number in it is NaN or infinite.

        Notes
        -----
        QR of the factors, then ST-HOSVD of the core; the tensor is not formed. Cost: ``sum I_n R_n^2 +
        R^(D+1)``. A function is cut in the norm of its coefficients, the change is looked for at 1,000
        points, at ends and around the largest value among them, and where it is above ``0.7 tol`` less is
        cut: 1 to 3 times the cost, and ``1000 R^D``.
        """
        start = clock(self.core)
        if 0 in (*self.coef_shape, *self.rank):
            raise ShapeError(
                f"round: needs a tensor with entries and a rank of 1 or more in every mode; got {self!r}. "
                "Leave out what is empty."
            )
        ranks, tol = rank_or_tol(rank, tol, self.coef_shape, self.dtype, "round")
        wide = self._wide()
        finite(wide._arrays(), "round")
        if not measures_values(wide):
            made, rel_error = wide._rounded(ranks, tol, self.dtype)
        elif tol is None:
            made = wide._rounded(ranks, None, self.dtype)[0]
            rel_error = largest_change(wide, made)
        else:
            made, rel_error = cut_to_values(wide, lambda part: wide._rounded(None, part, self.dtype)[0], tol)
        return reported(made, rel_error, tol, self.dtype, "round", start)

    def _rounded(self, ranks: Any, tol: float | None, dtype: Any) -> tuple[Tucker, Any]:
        """By the Frobenius norm, and that error; this is not half precision, but ``dtype`` may be."""
        xp = namespace_of(self.core)
        pairs = [orthonormal(*pair, xp) for pair in zip(self.modes, self.factors, strict=True)]
        core = contract(self.core, [upper for _, upper in pairs], xp=xp)
        if ranks is not None:
            ranks = tuple(map(min, ranks, core.shape[-self.ndim :]))
        small, factors, rel_error = truncate_any(core, ranks, tol, self.ndim, dtype, "round")
        factors = [xp.matmul(basis, factor) for (basis, _), factor in zip(pairs, factors, strict=True)]
        return Tucker(small, factors, self.modes), rel_error

    def _heights(self) -> list[Any]:
        """Norm of the coefficients in each row of each factor ``(K_n,)``, if the factors are orthonormal."""
        xp = namespace_of(self.core)
        found = []
        for n, factor in enumerate(self.factors):
            rows = contract(self.core, [factor if m == n else None for m in range(self.ndim)], xp=xp)
            rows = xp.reshape(xp.moveaxis(rows, n, 0), (factor.shape[0], -1))
            found.append(xp.linalg.vector_norm(rows, axis=-1))
        return found

    def to_train(self, *, order: Sequence[int] | None = None) -> TuckerTrain:
        """Convert to a tensor train of the same factors, exactly; ``round`` finds how small it can be.

        Parameters
        ----------
        order : sequence of D int, optional
            The modes along the train, ``0, 1, ..., D-1`` if not given.

        Raises
        ------
        ShapeError
            If ``order`` does not hold every mode once.

        Notes
        -----
        One core is this core, the others are unit matrices: up to D times its numbers before the rounding.
        """
        from tenfac.core.train import TuckerTrain, checked_order

        xp, lead, order = namespace_of(self.core), len(self.batch_shape), checked_order(order, self.ndim)
        turned = xp.permute_dims(self.core, (*range(lead), *(lead + n for n in order)))
        along = from_core(turned, self.ndim, xp)
        cores = [along[order.index(n)] for n in range(self.ndim)]
        return TuckerTrain(cores, self.factors, self.modes, order=order)

    def to_cp(self, *, max_bytes: int | None = None) -> CP:
        """Convert to CP format, exactly: a term for every fiber of the core along its longest mode.

        Parameters
        ----------
        max_bytes : int, optional
            Refuse larger factors.

        Raises
        ------
        DataError
            If the factors would be larger than ``max_bytes``.

        Notes
        -----
        The rank is ``prod(R) / max(R)``; a CP decomposition of the core may need fewer terms.
        """
        from tenfac.core.cp import CP

        xp = namespace_of(self.core)
        longest = max(range(self.ndim), key=lambda n: self.rank[n])
        others = [n for n in range(self.ndim) if n != longest]
        terms = math.prod(self.rank[n] for n in others)
        sizes = (*self.batch_shape, sum(self.coef_shape), terms)
        byte_guard(
            sizes, itemsize(self.dtype), max_bytes, "to_cp", "Round the tensor to a smaller rank first."
        )
        lead = len(self.batch_shape)
        order = (*range(lead), lead + longest, *(lead + n for n in others))
        fibers = xp.reshape(xp.permute_dims(self.core, order), (*self.batch_shape, self.rank[longest], terms))
        factors: list[Any] = [None] * self.ndim
        wide = self._wide()
        factors[longest] = as_dtype(
            xp.matmul(wide.factors[longest], as_dtype(fibers, wide.dtype)), self.dtype
        )
        columns = np.indices([self.rank[n] for n in others]).reshape(len(others), terms)
        for n, index in zip(others, columns, strict=True):
            place = xp.asarray(index, device=device_of(self.core))
            factors[n] = xp.take(self.factors[n], place, axis=lead + 1)
        weights = xp.ones((*self.batch_shape, terms), dtype=self.dtype, device=self.device)
        return CP(weights, factors, self.modes)


def reported(
    wide: _Format, rel_error: Any, tol: float | None, dtype: Any, where: str, start: float
) -> _Format:
    """A format with the report of its truncation, in half precision if ``dtype`` is.

    Raises
    ------
    DataError
        If a number in the cores does not fit in the range of float16.

    Examples
    --------
    >>> import numpy as np
    >>> one = np.ones((1, 1))
    >>> reported(Tucker(one, [one, one]), 0.0, 0.1, one.dtype, "round", 0.0).info.reason
    'tolerance met'
    """
    notes: tuple[str, ...] = ()
    if dtype_name(dtype) not in HALF:
        made = wide._with(wide._arrays().values())
    else:
        with np.errstate(over="ignore"):  # checked below
            made = wide._cast(dtype)
        notes = (f"{where}: computed in float32; the result is rounded to {dtype_name(dtype)}.",)
        if not wide._is_traced:
            rel_error = _half_error(made, wide, rel_error, where)
    object.__setattr__(made, "info", truncation_report(where, rel_error, tol, start, notes))
    return made


def _half_error(made: Format, wide: Format, rel_error: Any, where: str) -> Any:
    """Relative error with that of the rounding to half precision, which is nearly orthogonal to it."""
    xp = wide._xp
    if not all(bool(xp.all(xp.isfinite(core))) for core in made._cores):
        name, largest = dtype_name(made.dtype), max(to_number(xp.max(xp.abs(core))) for core in wide._cores)
        raise DataError(
            f"{where}: the core must fit in {name}, the dtype of the data; its largest entry is "
            f"{largest:.3g}. Convert the data to float32, or divide them by a number."
        )
    plain = [t._rebuilt(t._cores, t.factors) for t in (made._wide(), wide)]
    lost, norm = (to_numpy(t.norm()) for t in (plain[0] - plain[1], plain[1]))
    rounding = np.divide(lost, norm, out=np.zeros_like(norm), where=norm > 0)
    error = np.hypot(np.asarray(rel_error), rounding)
    return error if error.ndim else float(error)
