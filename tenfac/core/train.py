"""The tensor train of Tucker form: one small core per mode in the place of one core for all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tenfac.core import train_cores as chain
from tenfac.core.arithmetic import unit_scale
from tenfac.core.arrays import byte_guard, eps, promote, spans, tensorly_backend, to_number
from tenfac.core.door import door
from tenfac.core.errors import RankError, ShapeError
from tenfac.core.format import Format
from tenfac.core.format_state import entries, finite, validated
from tenfac.core.largest import cut_to_values, largest_change, measures_values, orthonormal
from tenfac.core.modes.protocol import Mode
from tenfac.core.points import points_in_block
from tenfac.core.precision import half_of, itemsize, wide
from tenfac.core.rank import at_most, rank_or_tol
from tenfac.core.report import Report
from tenfac.core.tracing import clock
from tenfac.core.truncate import kept_share
from tenfac.core.tucker import Tucker, reported

# Below this many roundings of the dtype the error of a rounding is measured: rounded numbers add to it.
_ROUNDING = 100


@door
@dataclass(frozen=True, eq=False, repr=False)
class TuckerTrain(Format):
    """A Tucker tensor whose core is a tensor train, for many modes: its size grows with D, not as ``R^D``.

    ``X[i, j, k, ...] = sum G_0[0, p, a] A[i, p] G_1[a, q, b] B[j, q] G_2[b, r, c] C[k, r] ...``

    Parameters
    ----------
    cores : sequence of D arrays, shapes (S_{n-1}, R_n, S_n)
        Neighbors share a bond ``S_n``; the ends ``S_{-1}`` and ``S_{D-1}`` are 1.
    factors : sequence of D arrays, shapes (K_n, R_n)
        Rows are index values. Brought to one dtype with the cores; integers become float64. Arrays are not
        copied. Further leading axes, the same for all arrays, are a batch of tensors.
    modes : sequence of Mode, optional
        What each index is; ``Discrete(K_n)`` if not given.
    order : sequence of D int, optional
        The modes along the train, ``0, 1, ..., D-1`` if not given. ``cores[n]`` belongs to mode n; its bonds
        are those to its neighbors in this order.
    info : Report, optional
        How the tensor was computed. Algebra drops it.

    Raises
    ------
    ShapeError
        If cores, factors and modes do not fit each other.
    TypeError
        If the arrays are not of one library on one device.

    Notes
    -----
    Everything a ``Tucker`` can do, with the same meaning: ``at``, slices, ``+ - *``, ``norm``, ``inner``,
    ``round``, and with ``Chebyshev`` modes ``value_and_grad``, ``on_grid``, ``diff``, ``integrate`` and the
    rest. ``rank`` is the multilinear rank, the columns of the factors; ``train_rank`` the bonds. Both add in
    a sum and multiply in a product entry by entry, and ``round`` compresses both. ``cores, factors = t``
    unpacks. Half precision and transformations of JAX and torch: as for ``Tucker``.

    It stores ``sum S_{n-1} R_n S_n + K_n R_n`` numbers, and a value costs twice that in operations, nearly
    all in matrix products over blocks of points; value and gradient together twice as much again. The order
    along the train matters: neighbors should be those that depend on each other. ``t + u`` takes that of
    ``t``, or of the train where one is no train; ``reordered`` gives another.

    Also known as TT-Tucker or extended tensor train [1]_, with functional modes as extended functional tensor
    train [2]_.

    References
    ----------
    .. [1] S. Dolgov and B. Khoromskij, Two-level QTT-Tucker format for optimized tensor calculus, SIAM J.
       Matrix Anal. Appl. 34 (2013), section 2. doi:10.1137/120882597
    .. [2] C. Strössner, B. Sun and D. Kressner, Approximation in the extended functional tensor train format
       (2022). arXiv:2211.11338

    Examples
    --------
    >>> import numpy as np
    >>> cores = [np.ones((1, 2, 3)), np.ones((3, 2, 3)), np.ones((3, 2, 1))]
    >>> t = TuckerTrain(cores, [np.ones((4, 2)), np.ones((5, 2)), np.ones((6, 2))])
    >>> t
    TuckerTrain(shape=(4, 5, 6), rank=(2, 2, 2), train_rank=(3, 3), numpy.float64, 60 numbers for 120 entries)
    >>> (t - t / 2).at([0, 2], 1, 3)
    array([36., 36.])
    >>> t.round(tol=1e-10)
    TuckerTrain(shape=(4, 5, 6), rank=(1, 1, 1), train_rank=(1, 1), numpy.float64, 18 numbers for 120 entries)
    """

    _CORE = "cores"
    _GENERALITY = 2

    cores: tuple[Any, ...]
    factors: tuple[Any, ...]
    modes: tuple[Mode, ...]
    order: tuple[int, ...]
    info: Report | None

    def __init__(
        self,
        cores: Sequence[Any],
        factors: Sequence[Any],
        modes: Sequence[Mode] | None = None,
        *,
        order: Sequence[int] | None = None,
        info: Report | None = None,
    ) -> None:
        factors, cores = entries(factors, "factors", "TuckerTrain"), entries(cores, "cores", "TuckerTrain")
        checked = validated("TuckerTrain", [*cores, *factors], modes, factors)
        object.__setattr__(self, "order", checked_order(order, len(factors)))
        _check_cores(cores, factors, self.order)
        arrays = [*cores, *factors]
        arrays = arrays if half_of(*arrays) is not None else list(promote(*arrays, where="TuckerTrain"))
        self._set(arrays[: len(factors)], arrays[len(factors) :], checked, info)

    # --- facts --------------------------------------------------------------------------------------------

    @property
    def rank(self) -> tuple[int, ...]:
        """Multilinear rank of the format, ``(R_0, ..., R_{D-1})``: the columns of the factors."""
        return tuple(factor.shape[-1] for factor in self.factors)

    @property
    def train_rank(self) -> tuple[int, ...]:
        """Rank of the train, ``(S_0, ..., S_{D-2})``: the bonds between neighbors along the train."""
        return tuple(core.shape[-1] for core in self._chain(self.cores)[:-1])

    def _rank_part(self) -> str:
        natural = self.order == tuple(range(self.ndim))
        return f"rank={self.rank}, train_rank={self.train_rank}" + (
            "" if natural else f", order={self.order}"
        )

    def _chain(self, by_mode: Sequence[Any]) -> list[Any]:
        """What belongs to the modes, along the train."""
        return [by_mode[n] for n in self.order]

    def _by_mode(self, along: Sequence[Any]) -> list[Any]:
        """What stands along the train, by mode."""
        return [along[self.order.index(n)] for n in range(len(along))]

    # --- how the cores join the factors -------------------------------------------------------------------

    @property
    def _cores(self) -> tuple[Any, ...]:
        return tuple(self.cores)

    @classmethod
    def _core_names(cls, ndim: int) -> tuple[str, ...]:
        return tuple(f"cores.{n}" for n in range(ndim))

    @classmethod
    def _build(
        cls, cores: Sequence[Any], factors: Sequence[Any], modes: Sequence[Mode] | None = None
    ) -> TuckerTrain:
        return cls(tuple(cores), factors, modes)

    def _rebuilt(
        self,
        cores: Sequence[Any],
        factors: Sequence[Any],
        modes: Sequence[Mode] | None = None,
        closed: Iterable[int] = (),
    ) -> TuckerTrain:
        return TuckerTrain(tuple(cores), factors, modes, order=chain.order_without(self.order, closed))

    @classmethod
    def _stored(
        cls, cores: Sequence[Any], factors: Sequence[Any], modes: Sequence[Mode], header: Mapping[str, Any]
    ) -> TuckerTrain:
        return cls(tuple(cores), factors, modes, order=header["order"])

    def _to_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        state, arrays = super()._to_state()
        return {**state, "order": list(self.order)}, arrays

    @property
    def _static(self) -> Any:
        return self.modes, self.order

    @classmethod
    def _unflatten(cls, leaves: Any, static: Any) -> TuckerTrain:
        modes, order = static
        made = super()._unflatten(leaves, modes)
        object.__setattr__(made, "order", order)
        return made

    def _pairs(self, other: TuckerTrain, where: str) -> list[tuple[Any, Any]]:
        return super()._pairs(other.reordered(self.order), where)

    def _set_cores(self, cores: Sequence[Any]) -> None:
        object.__setattr__(self, "cores", tuple(cores))

    def __iter__(self) -> Iterator[Any]:
        yield list(self.cores)
        yield list(self.factors)

    def _whole(self, xp: Any) -> list[Any]:
        """Cores times factors: those of a plain tensor train, ``(*b, S_{n-1}, K_n, S_n)``."""
        return [chain.times(core, factor, xp) for core, factor in zip(self.cores, self.factors, strict=True)]

    def _dense(self, xp: Any) -> Any:
        return self._turned(chain.dense(self._chain(self._whole(xp)), xp), xp)

    def _turned(self, dense: Any, xp: Any) -> Any:
        """A tensor with its axes along the train, by mode."""
        lead = dense.ndim - self.ndim
        return xp.permute_dims(dense, (*range(lead), *(lead + self.order.index(n) for n in range(self.ndim))))

    def _absorb(self, rows: Mapping[int, Any], xp: Any) -> Sequence[Any]:
        along = {self.order.index(n): row for n, row in rows.items()}
        kept = chain.absorbed(self._chain(self.cores), along, xp)
        order = chain.order_without(self.order, rows)
        return [kept[order.index(n)] for n in range(len(order))] if order else kept

    def _join(self, left: Sequence[Any], right: Sequence[Any], xp: Any) -> Sequence[Any]:
        return self._by_mode(chain.joined(self._chain(left), self._chain(right), xp))

    def _kernel(self, xp: Any) -> chain.TrainKernel:
        return chain.TrainKernel(self, xp)

    def _at_rows(self, rows: Sequence[Any], xp: Any) -> Any:
        kernel = self._kernel(xp)
        step = points_in_block(kernel.width * math.prod(self.batch_shape))
        parts = []
        for span in spans(rows[0].shape[-2], step):
            columns = [xp.matrix_transpose(row[..., span, :]) for row in self._chain(rows)]
            parts.append(kernel.value(columns, None))
        return xp.concat(parts, axis=-1)

    def _laplacian(self, modes: Sequence[int]) -> TuckerTrain:
        xp = self._xp
        factors = list(self.factors)
        for n in modes:
            second = self.diff(n, order=2)
            short: Any = second.modes[n]
            bent = short.embed(self.modes[n], second.factors[n])
            factors[n] = xp.concat([self.factors[n], bent], axis=-1)
        spots = [self.order.index(n) for n in modes]
        cores = self._by_mode(chain.summed_over_modes(self._chain(self.cores), spots, xp))
        return self._rebuilt(cores, factors, self.modes)

    # --- norms --------------------------------------------------------------------------------------------

    def _inner(self, left: Any, right: Any, xp: Any) -> Any:
        left, right = list(left), list(right)
        pairs = zip(left[self.ndim :], right[self.ndim :], strict=True)
        grams = [xp.matmul(xp.matrix_transpose(a), b) for a, b in pairs]
        first, second = left[: self.ndim], right[: self.ndim]
        return chain.product(self._chain(first), self._chain(second), self._chain(grams), xp)

    def norm(self) -> Any:
        """Frobenius norm, L2 over continuous modes, from triangular factors; accurate for small differences.

        Differentiable where factors and unfolded cores have independent columns; ``t.inner(t)`` always is.
        float32 for half precision, whose range is too small.
        """
        plain = self._metric()
        xp = plain._xp
        arrays, root = unit_scale(list(plain._arrays().values()), self.batch_shape, xp)
        pairs = zip(arrays[: self.ndim], arrays[self.ndim :], strict=True)
        cores = [chain.times(core, xp.linalg.qr(factor)[1], xp) for core, factor in pairs]
        return (xp.linalg.vector_norm(chain.triangle(self._chain(cores), xp), axis=-1) * root) * root

    def round(
        self, rank: Any = None, *, tol: float | None = None, train_rank: int | Sequence[int] | None = None
    ) -> TuckerTrain:
        """Compress to a smaller rank, or to a relative error: Frobenius of tensors, largest of functions.

        Parameters
        ----------
        rank : int or sequence of int, optional
            Multilinear rank, at most the sizes; a rank the tensor does not have is not invented.
        tol : float, optional
            Relative error to keep. Give either ranks or ``tol``; one tensor with known values (no batch, not
            under ``jax.jit`` or ``vmap``) has a ``tol``.
        train_rank : int or sequence of D - 1 int, optional
            Rank of the train, at most; with ``rank`` or alone.

        Returns
        -------
        TuckerTrain
            With orthonormal factors, and cores whose norm is all in the last; ``info.rel_error`` is the
            relative error of the compression, in the norms of ``Tucker.round``.

        Raises
        ------
        RankError
            If ranks and ``tol`` are given or none of them, or they are not valid.
        ShapeError, DataError
            If the tensor has no entries or a rank of 0, or a number in it is NaN or infinite.

        Notes
        -----
        QR of the factors, QR of the cores from right to left, then SVD of each mode and each bond from left
        to right, all ``2 D - 1`` errors orthogonal to each other: what one does not use of ``tol`` is passed
        on to the next. In float64. Functions as in ``Tucker.round``.
        Cost: ``sum K_n R_n^2 + S_{n-1} R_n S_n (S_{n-1} + R_n + S_n)``.

        References
        ----------
        .. [1] I. Oseledets, Tensor-train decomposition, SIAM J. Sci. Comput. 33 (2011), algorithm 2.
           doi:10.1137/090752286
        """
        start = clock(self._like)
        if 0 in (*self.coef_shape, *self.rank, *self.train_rank):
            raise ShapeError(
                f"round: needs a tensor with entries and a rank of 1 or more in every mode; got {self!r}. "
                "Leave out what is empty."
            )
        ranks, bonds, tol = self._ranks_or_tol(rank, tol, train_rank)
        finite(self._wide()._arrays(), "round")
        part, wide = kept_share(self.dtype), self._wide()
        if not measures_values(wide):
            made, rel_error = wide._rounded(ranks, bonds, None if tol is None else part * tol)
        elif tol is None:
            made = wide._rounded(ranks, bonds, None)[0]
            rel_error = largest_change(wide, made)
        else:
            made, rel_error = cut_to_values(wide, lambda cut: wide._rounded(None, None, cut)[0], part * tol)
        return reported(made, rel_error, tol, self.dtype, "round", start)

    def _ranks_or_tol(self, rank: Any, tol: Any, train_rank: Any) -> tuple[Any, Any, float | None]:
        if train_rank is None:
            ranks, tol = rank_or_tol(rank, tol, self.coef_shape, self.dtype, "round")
            return ranks, None, tol
        if tol is not None:
            raise RankError(
                "round: give either ranks or tol (a relative error), not both; got "
                f"train_rank={train_rank!r} and tol={tol!r}. Leave one out."
            )
        bonds = at_most(train_rank, self.ndim - 1, "round", "train_rank", "one per bond between neighbors")
        ranks = (
            self.rank if rank is None else rank_or_tol(rank, None, self.coef_shape, self.dtype, "round")[0]
        )
        return ranks, bonds, None

    def _rounded(self, ranks: Any, bonds: Any, tol: float | None) -> tuple[TuckerTrain, Any]:
        """In the dtype of the format, which is not half precision, and the relative error."""
        xp, d = self._xp, self.ndim
        if tol is not None and (self.batch_shape or self._is_traced):
            what = "a batch" if self.batch_shape else "values not known yet (jit, vmap, grad)"
            raise RankError(
                "round: tol chooses the ranks from the values, so it needs one tensor with known values; got "
                f"tol={tol:g} and {what}. Give rank and train_rank instead, or call round outside."
            )
        arrays = [wide(array, xp) for array in self._arrays().values()]
        arrays, root = unit_scale(arrays, self.batch_shape, xp)
        pairs = [orthonormal(*pair, xp) for pair in zip(self.modes, arrays[d:], strict=True)]
        cores = [chain.times(core, pair[1], xp) for core, pair in zip(arrays[:d], pairs, strict=True)]
        cores = chain.orthogonal(self._chain(cores), xp)
        norm2 = xp.sum(xp.abs(cores[0]) ** 2, axis=(-3, -2, -1))
        sweep = chain.Sweep(cores, None if tol is None else tol**2 * to_number(norm2), xp)
        cores, turns = sweep.run(None if ranks is None else self._chain(ranks), bonds)
        root = root[..., None, None, None]
        cores[-1] = (cores[-1] * root) * root
        cores, turns = self._by_mode(cores), self._by_mode(turns)
        factors = [xp.matmul(basis, turn) for (basis, _), turn in zip(pairs, turns, strict=True)]
        made = self._rebuilt(cores, factors, self.modes)._cast(self.dtype)
        share = sweep.lost2 / xp.where(norm2 == 0, xp.ones_like(norm2), norm2)
        if self.batch_shape or self._is_traced:
            return made, xp.sqrt(share)
        rel_error = math.sqrt(to_number(share))
        if rel_error < _ROUNDING * eps(self.dtype):
            rel_error = made._distance(self)
        return made, rel_error

    def _distance(self, other: TuckerTrain) -> float:
        """Relative error of the stored numbers as an approximation of another train, in double precision."""
        xp = self._xp
        plain = [
            t._rebuilt([wide(core, xp) for core in t.cores], [wide(factor, xp) for factor in t.factors])
            for t in (self, other)
        ]
        norm = to_number(plain[1].norm())
        return to_number((plain[0] - plain[1]).norm()) / norm if norm else 0.0

    def _heights(self) -> list[Any]:
        """Norm of the coefficients in each row of each factor ``(K_n,)``, if the factors are orthonormal."""
        xp = self._xp
        found = []
        centers = self._by_mode(chain.centers(self._chain(self.cores), xp))
        for core, factor in zip(centers, self.factors, strict=True):
            rows = xp.reshape(xp.moveaxis(chain.times(core, factor, xp), 1, 0), (factor.shape[0], -1))
            found.append(xp.linalg.vector_norm(rows, axis=-1))
        return found

    # --- other formats ------------------------------------------------------------------------------------

    def reordered(self, order: Sequence[int]) -> TuckerTrain:
        """The same tensor with its modes in another order along the train.

        Parameters
        ----------
        order : sequence of D int

        Raises
        ------
        ShapeError
            If ``order`` does not hold every mode once.

        Notes
        -----
        Neighbors are swapped one pair at a time, each by an SVD, and the bonds become those of the new order:
        they may be much larger. One tensor with known values loses what is below rounding errors; a batch,
        and values not known yet, keep all that the sizes allow.
        """
        order = checked_order(order, self.ndim)
        if order == self.order:
            return self
        xp = self._xp
        spots = [order.index(n) for n in self.order]
        known = not (self.batch_shape or self._is_traced)
        cores = chain.swapped(self._chain(self._wide().cores), spots, known, xp)
        made = TuckerTrain(
            [cores[order.index(n)] for n in range(self.ndim)], self._wide().factors, self.modes, order=order
        )
        return made._cast(self.dtype)

    def to_tucker(self, *, max_bytes: int | None = None) -> Tucker:
        """Convert to Tucker format: the train becomes one core of ``prod(R)`` numbers.

        Parameters
        ----------
        max_bytes : int, optional
            Refuse a larger core.

        Raises
        ------
        DataError
            If the core would be larger than ``max_bytes``.
        """
        sizes = (*self.batch_shape, *self.rank)
        byte_guard(sizes, itemsize(self.dtype), max_bytes, "to_tucker", "Round the tensor first.")
        xp = self._xp
        core = self._turned(chain.dense(self._chain(self._wide().cores), xp), xp)
        return Tucker(core, self._wide().factors, self.modes)._cast(self.dtype)

    def to_tensorly(self) -> Any:
        """Convert to ``tensorly.TTTensor``, cores and factors multiplied together.

        Raises
        ------
        ShapeError
            If a mode is continuous, or there is a batch.
        """
        self._check_discrete("to_tensorly")
        self._check_single("to_tensorly")
        with tensorly_backend(self._like):
            from tensorly.tt_tensor import TTTensor

            return TTTensor(self.reordered(range(self.ndim))._whole(self._xp))


def checked_order(order: Any, ndim: int) -> tuple[int, ...]:
    """Order of the modes along a train, ``0, 1, ..., D-1`` if None.

    Raises
    ------
    ShapeError
        If it does not hold every mode once.

    Examples
    --------
    >>> checked_order(None, 3), checked_order([1, 0], 2)
    ((0, 1, 2), (1, 0))
    """
    order = tuple(range(ndim) if order is None else order)
    if sorted(order) != list(range(ndim)):
        raise ShapeError(f"TuckerTrain: `order` must hold every mode 0 to {ndim - 1} once; got {order}.")
    return order


def _check_cores(cores: Sequence[Any], factors: Sequence[Any], order: Sequence[int]) -> None:
    """Refuse cores that do not fit the factors or each other."""
    where, lead = "TuckerTrain", tuple(factors[0].shape[:-2])
    if len(cores) != len(factors):
        raise ShapeError(
            f"{where}: needs one core per factor, {len(factors)}; got {len(cores)}. A single core for all "
            "modes makes a Tucker."
        )
    bond = 1
    for n in order:
        core, factor = cores[n], factors[n]
        want = (*lead, bond, factor.shape[-1])
        last = n == order[-1]
        shape = tuple(core.shape)
        if shape[:-1] != want or (last and shape[-1] != 1):
            text = ", ".join(map(str, want)) + (", 1" if last else f", S_{n}")
            raise ShapeError(
                f"{where}: cores[{n}] must have shape ({text}): bond to the left, columns of its factor, "
                f"bond to the right; got {shape}. The first and last bonds are 1."
            )
        bond = shape[-1]
