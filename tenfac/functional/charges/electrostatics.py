"""Potential, field, energy and forces of many charges: a smooth part as a Tucker tensor, and near pairs."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from tenfac.core.arrays import (
    device_of,
    eps,
    is_array,
    library_name,
    namespace_of,
    points_like,
    spans,
    to_number,
    to_numpy,
)
from tenfac.core.door import door
from tenfac.core.errors import DataError, ShapeError, check_option, warn_user
from tenfac.core.report import Report
from tenfac.core.tucker import Tucker
from tenfac.functional.charges.checks import check_charges, check_points, check_tol, share_of
from tenfac.functional.charges.gaussian_basis import GaussianBasis, rows_of
from tenfac.functional.charges.lattice import find_lattice
from tenfac.functional.charges.neighbors import check_apart, neighbors, pairs
from tenfac.functional.charges.separation import separate

# Share of the tolerance for the Gaussians, their quadrature and what lies beyond the cutoff of the short
# part:
# forces and an energy of charges that nearly cancel lose a digit that potentials keep.
_GAUSSIANS, _QUADRATURE, _CUTOFF, _ROUNDING = 0.05, 0.02, 0.002, 0.02
# Least error asked of the quadrature.
_FINEST = 2e-14
# Screening in 1 / side of the box below which Slater's kernel is summed to a smaller tolerance.
_FLAT = 0.05
# Largest alpha chosen, in 1 / half box: the rank is about 8 + 5 alpha at tol = 1e-10.
_LARGEST = 16.0
# Neighbors of a charge that "auto" aims at.
_NEIGHBORS = 120
# A side of the box counts as this share of the longest at least where neighbors are counted.
_THINNEST = 1e-3
# erfc(x) / x is less than exp(-x^2) by about this where x is of order 1.
_BELOW = 10
# Numbers of the core's size handled at once.
_NUMBERS = 2**21
# Charges at which the result is compared with the direct sum.
_CHECKED = 32
# Room around the charges, in longest sides.
_MARGIN = 0.05


@door
class Electrostatics:
    """Electrostatics of charges in free space, range-separated: ``kernel(r) = long(r) + short(r)``.

    The long part of all charges together is one Tucker tensor with Chebyshev modes, ``long_range``, whose
    rank depends on ``alpha`` and not on the number of charges; the short part is summed over near neighbors.
    Kernels are split exactly: ``erf(alpha r) / r`` and ``erfc(alpha r) / r`` for Coulomb's law. Results do
    not depend on ``alpha`` beyond ``tol``; speed does.

    Parameters
    ----------
    positions : array, shape (N, 3)
        In any unit of length; numpy or torch. Or an ``ase.Atoms`` without periodic directions.
    charges : array, shape (N,), optional
        In any unit of charge; need not add up to zero. Left out for ``ase.Atoms``: their initial charges.
    domain : sequence of 3 pairs of float, optional
        The box in which potentials are wanted; must hold the charges. By default their bounding box and 5 %
        of its longest side around it.
    alpha : float, optional
        Where the kernel is split, in 1 / length; chosen from the density of the charges if not given.
    kernel : str, optional
        ``"coulomb"``: ``1 / r``; ``"yukawa"``: ``exp(-kappa r) / r``; ``"slater"``: ``exp(-kappa r)``. By
        default Coulomb's, or Yukawa's where ``kappa`` is given.
    kappa : float
        Screening in 1 / length.
    tol : float
        Error of potentials, relative to the largest one. Slater's kernel is finite at a charge, and the
        largest potential then counts the charge there: far-apart charges, each seeing little of the others,
        are resolved relative to themselves.

    Attributes
    ----------
    positions, charges : array
    domain : tuple of (float, float)
    kernel : str
    alpha, kappa, tol, cutoff : float
    basis : GaussianBasis
    core : array
        Of the long part in ``basis``, not compressed; differentiable in positions and charges.
    long_range : Tucker
        The potential of the long part, compressed. ``long_range.at(x, y, z)``.
    info : Report
        ``rel_error``: of the potential at 32 charges, against the direct sum.

    Raises
    ------
    DataError, ShapeError
        If an argument is empty, not finite, outside of the box or of the wrong shape, or two charges
        coincide (which Slater's kernel allows).

    Notes
    -----
    Units are Gaussian: potentials in charge / length, energies in charge^2 / length. (Elementary charges and
    ångström: times 14.3996 for volt and electronvolt.) With Slater's kernel: without the length.

    Cost: ``2 N r^3`` for the moments and one pass over the pairs nearer than ``cutoff``, in blocks of bounded
    memory; ``2 r^3`` per point for a potential. Charges on a regular grid (crystals; empty places are fine)
    are found to be so: their moments cost ``2 r`` each, the near pairs one convolution by FFT. With torch
    tensors that require a gradient all of ``potential``, ``energy``, ``forces`` is differentiable; memory
    then grows like ``N r^2``.

    References
    ----------
    .. [1] P. Benner, V. Khoromskaia and B. Khoromskij, Range-separated tensor format for many-particle
       modeling, SIAM J. Sci. Comput. 40 (2018). doi:10.1137/16M1098930
    .. [2] P. Benner, V. Khoromskaia, B. Khoromskij and B. Sun, arXiv:2503.01696 (Chebyshev-Tucker).

    Examples
    --------
    >>> import numpy as np
    >>> ions = np.stack(np.meshgrid(*[np.arange(4.0)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    >>> salt = Electrostatics(ions, (-1.0) ** ions.sum(axis=1), tol=1e-8)
    >>> round(2 * float(salt.energy()) / 64, 5)  # per ion; -1.74756 for an infinite crystal
    -1.62872
    >>> salt.potential([[1.5, 1.5, 1.5]]).shape, salt.forces().shape
    ((1,), (64, 3))
    """

    def __init__(
        self,
        positions: Any,
        charges: Any = None,
        *,
        domain: Sequence[tuple[float, float]] | None = None,
        alpha: float | None = None,
        kernel: str | None = None,
        kappa: float = 0.0,
        tol: float = 1e-6,
    ) -> None:
        start = time.perf_counter()
        where = "Electrostatics"
        positions, charges = _atoms(positions, charges)
        names = ("positions", "charges")
        self.positions, self.charges = check_charges(positions, charges, domain, where, names)
        if library_name(self.positions) not in ("numpy", "torch"):
            raise TypeError(
                f"{where}: arrays must be of numpy or torch; got {library_name(self.positions)}. "
                "Convert them with numpy.asarray(x)."
            )
        self.tol = _checked_tol(tol, self.positions.dtype, where)
        self.kappa = _positive(kappa, "kappa", where, zero=True)
        self.kernel = _kernel(kernel, self.kappa, where)
        slater = self.kernel == "slater"
        places = to_numpy(self.positions)
        given = None if alpha is None else _positive(alpha, "alpha", where)
        box = _bounds(places, given) if domain is None else np.array(domain, dtype=float)
        sides = box[:, 1] - box[:, 0]
        self._tree = cKDTree(places.astype(float))
        recorded = any(getattr(x, "requires_grad", False) for x in (self.positions, self.charges))
        self._lattice = None if recorded else find_lattice(places)
        if not slater and self._lattice is None:
            check_apart(self._tree, where)
        self.alpha = _chosen(len(places), sides, self.tol, self.kappa) if given is None else given
        # forces of a kernel that hardly changes over the box are small beside its potentials
        tol = min(_FLAT * self.kappa * float(sides.max()) * self.tol, self.tol) if slater else self.tol
        diameter, share = float(np.linalg.norm(sides)), max(_QUADRATURE * tol, _FINEST)
        self._split = separate(self.alpha, diameter, share, self.kappa, slater=slater)
        self.cutoff = self._split.cutoff(_CUTOFF * tol)
        sums, sides_of = (self._split.exponents, self._split.weights), [(low, high) for low, high in box]
        self.basis = GaussianBasis(*sums, domain=sides_of, tol=share_of(tol, _GAUSSIANS))
        self.domain = self.basis.domain
        self._moments = (
            self.basis.moments(self.positions, self.charges)
            if self._lattice is None
            else self._lattice.moments(self.basis, self.charges)
        )
        self.core = self.basis.core(self._moments)
        largest = float(np.abs(to_numpy(self.charges)).max()) * self._split.at_zero
        size = float(np.linalg.norm(to_numpy(self.core)))
        self.long_range: Tucker = self.basis.function(self.core, budget=_ROUNDING * tol * max(largest, size))
        self.info = self._checked(start)

    def __repr__(self) -> str:
        return (
            f"Electrostatics({len(self._tree.data):,} charges, {self.kernel}, alpha={self.alpha:.3g}, "
            f"cutoff={self.cutoff:.3g}, rank={self.long_range.rank}, {self.info!r})"
        )

    # --- results ----------------------------------------------------------------------------------------

    def potential(self, points: Any = None, *, part: str = "total") -> Any:
        """Potential at points, or at each charge that of all others.

        Parameters
        ----------
        points : array, shape (N, 3), optional
            In the box, and none at a charge but for Slater's kernel; the charges themselves if not given.
        part : str
            ``"total"``, ``"long"`` or ``"short"``.

        Returns
        -------
        array, shape (N,)
            In charge / length.
        """
        return self._sums(points, part, "potential", gradient=False)[0]

    def field(self, points: Any = None, *, part: str = "total") -> Any:
        """Field, minus the gradient of the potential, at points or at the charges.

        Parameters
        ----------
        points : array, shape (N, 3), optional
        part : str
            ``"total"``, ``"long"`` or ``"short"``.

        Returns
        -------
        array, shape (N, 3)
            In charge / length^2.
        """
        return -self._sums(points, part, "field", gradient=True)[1]

    def forces(self) -> Any:
        """Forces on the charges.

        Returns
        -------
        array, shape (N, 3)
            In charge^2 / length^2.
        """
        return self.charges[:, None] * self.field()

    def energy(self) -> Any:
        """Energy of all pairs of charges.

        Returns
        -------
        scalar array
            In charge^2 / length.

        Notes
        -----
        ``<M, C> / 2`` of the moments and the core, less what each charge does to itself, plus the near pairs:
        the long part costs no evaluation. Gradients by torch are the forces.
        """
        xp = namespace_of(self.charges)
        own = self._split.at_zero * xp.sum(self.charges**2)
        total = (xp.sum(self._moments * self.core) - own) / 2
        if self._lattice is not None:
            near = self._lattice.short(self._split, self.cutoff, self.charges, gradient=False)[0]
            return total + xp.sum(near * self.charges) / 2
        for i, j in pairs(self._tree, self.cutoff):
            r = self._distances(self.positions, i, j)[1]
            pair = xp.take(self.charges, self._index(i), axis=0) * xp.take(
                self.charges, self._index(j), axis=0
            )
            total = total + xp.sum(pair * self._split.short(r))
        return total

    # --- parts ------------------------------------------------------------------------------------------

    def _sums(self, points: Any, part: str, where: str, *, gradient: bool) -> tuple[Any, Any]:
        """Potential and, if asked for, its gradient."""
        check_option(part, ("total", "long", "short"), where, "part")
        own = points is None
        targets = self.positions if own else self._targets(points, where)
        value: Any = 0.0
        slope: Any = 0.0
        if part != "short":
            value, slope = (
                self._lattice.long(self.long_range, gradient)
                if own and self._lattice is not None
                else self._long(targets, gradient)
            )
            if own:
                value = value - self._split.at_zero * self.charges
        if part != "long":
            near, near_slope = (
                self._lattice.short(self._split, self.cutoff, self.charges, gradient)
                if own and self._lattice is not None
                else self._short(targets, own, gradient, where)
            )
            value, slope = value + near, (slope + near_slope) if gradient else None
        return value, slope

    def _targets(self, points: Any, where: str) -> Any:
        xp = namespace_of(self.positions)
        if not (is_array(points) and namespace_of(points) is xp):  # else as it is, with its gradient
            points = points_like(points, self.positions, where)
        points = xp.astype(points, self.positions.dtype)
        if points.ndim != 2 or points.shape[1] != 3:
            raise ShapeError(f"{where}: `points` must have shape (N, 3); got {tuple(points.shape)}.")
        check_points(points, self.domain, where)
        return points

    def _long(self, targets: Any, gradient: bool) -> tuple[Any, Any]:
        """The smooth part: from the compressed tensor, or from the core where gradients are recorded."""
        xp = namespace_of(targets)
        recorded = getattr(self.core, "requires_grad", False)
        function = self.basis.function(self.core, compressed=False) if recorded else self.long_range
        core, factors, modes = function.core, function.factors, function.modes
        first = xp.reshape(core, (core.shape[0], -1))
        values, slopes = [], []
        for span in spans(targets.shape[0], max(_NUMBERS // first.shape[1], 64)):
            x = targets[span, :]
            given: list[tuple[Any, Any, Any]] = [
                (m, f, x[:, n]) for n, (m, f) in enumerate(zip(modes, factors, strict=True))
            ]
            rows = [rows_of(m, f, at, 0, xp) for m, f, at in given]
            inner = xp.reshape(rows[0] @ first, (-1, *core.shape[1:]))
            middle = xp.matmul(rows[1][:, None, :], inner)[:, 0, :]
            values.append(xp.sum(middle * rows[2], axis=1))
            if gradient:
                turned = [rows_of(m, f, at, 1, xp) for m, f, at in given]
                outer = xp.reshape(turned[0] @ first, (-1, *core.shape[1:]))
                along = [xp.matmul(rows[1][:, None, :], outer), xp.matmul(turned[1][:, None, :], inner)]
                parts = [xp.sum(a[:, 0, :] * rows[2], axis=1) for a in along]
                slopes.append(xp.stack([*parts, xp.sum(middle * turned[2], axis=1)], axis=1))
        return xp.concat(values), xp.concat(slopes) if gradient else None

    def _short(self, targets: Any, own: bool, gradient: bool, where: str) -> tuple[Any, Any]:
        """The part of near neighbors, block by block."""
        xp = namespace_of(targets)
        values, slopes = [], []
        for start, stop, i, j in neighbors(self._tree, to_numpy(targets).astype(float), self.cutoff):
            if own:
                i, j = i[i + start != j], j[i + start != j]
            delta, r = self._distances(targets[start:stop, :], i, j)
            if self.kernel != "slater" and not own and len(i) and to_number(xp.min(r)) == 0:
                row = start + int(i[int(np.argmin(to_numpy(r)))])
                raise DataError(
                    f"{where}: a point must not be at a charge, where the potential is infinite; got "
                    f"row {row}. Call it without points for the potential of all other charges."
                )
            charge = xp.take(self.charges, self._index(j), axis=0)
            values.append(self._collected(charge * self._split.short(r), i, stop - start))
            if gradient:
                slope = charge * self._split.short_slope(r) / xp.where(r > 0, r, xp.ones_like(r))
                along = slope[:, None] * delta
                columns = [self._collected(along[:, n], i, stop - start) for n in range(3)]
                slopes.append(xp.stack(columns, axis=1))
        return xp.concat(values), xp.concat(slopes) if gradient else None

    def _index(self, index: np.ndarray) -> Any:
        return namespace_of(self.positions).asarray(index, device=device_of(self.positions))

    def _distances(self, targets: Any, i: np.ndarray, j: np.ndarray) -> tuple[Any, Any]:
        """Vectors from charges j to targets i, and their lengths."""
        xp = namespace_of(targets)
        delta = xp.take(targets, self._index(i), axis=0) - xp.take(self.positions, self._index(j), axis=0)
        square = xp.sum(delta**2, axis=1)
        if self.kernel == "slater":  # 0 is allowed: the kink there has slope 0, their mean over directions
            apart = square > 0
            return delta, xp.where(apart, xp.sqrt(xp.where(apart, square, xp.ones_like(square))), square)
        return delta, xp.sqrt(square)

    def _collected(self, values: Any, rows: np.ndarray, size: int) -> Any:
        """Sums of the values with one row number."""
        if isinstance(values, np.ndarray):
            return np.bincount(rows, weights=values, minlength=size).astype(values.dtype)
        xp = namespace_of(values)
        zero = xp.zeros(size, dtype=values.dtype, device=device_of(values))
        return zero.index_add(0, self._index(rows), values)

    def _checked(self, start: float) -> Report:
        """Compare the potential at some charges with the direct sum."""
        places, charges = to_numpy(self.positions).astype(float), to_numpy(self.charges).astype(float)
        rows = np.unique(np.linspace(0, len(places) - 1, _CHECKED).astype(int))
        r = np.linalg.norm(places[rows, None] - places, axis=2)
        others = rows[:, None] != np.arange(len(places))
        kernel = np.zeros_like(r)
        kernel[others] = self._split.kernel(r[others])
        want = kernel @ charges
        xp = namespace_of(self.positions)
        targets = xp.take(self.positions, self._index(rows), axis=0)
        targets = targets.detach() if hasattr(targets, "detach") else targets
        smooth = to_numpy(self.long_range.at(*[targets[:, n] for n in range(3)])).astype(float)
        near = np.zeros_like(r)
        inside = others & (r < self.cutoff)
        near[inside] = self._split.short(r[inside])
        got = smooth - self._split.at_zero * charges[rows] + near @ charges
        largest = max(float(np.abs(want).max()), float(np.abs(charges).max()) * self._split.at_zero)
        error = float(np.abs(got - want).max()) / largest if largest else 0.0
        met = error <= self.tol
        reason = (
            "tolerance met" if met else "the potentials of the charges cancel, or the dtype is too narrow"
        )
        if not met:
            warn_user(
                f"Electrostatics: the error at some charges is {error:.2g} of the largest potential, above "
                f"tol={self.tol:g}: {reason}. Use a smaller tol, or float64."
            )
        return Report(met, reason, rel_error=error, seconds=time.perf_counter() - start)


# --- arguments --------------------------------------------------------------------------------------------


def _checked_tol(tol: float, dtype: Any, where: str) -> float:
    if check_tol(tol, where) < 4 * eps(dtype):
        raise DataError(
            f"{where}: tol must be {4 * eps(dtype):.2g} or more for positions of dtype {dtype}; got {tol:g}. "
            "Convert them to float64."
        )
    return float(tol)


def _atoms(positions: Any, charges: Any) -> tuple[Any, Any]:
    """Arrays, also out of an ``ase.Atoms``."""
    if not hasattr(positions, "get_positions"):
        if charges is None:
            raise ShapeError("Electrostatics: `charges` must be given, one number per position; got None.")
        return positions, charges
    if np.any(getattr(positions, "pbc", False)):
        raise DataError(
            "Electrostatics: the atoms must have no periodic direction, images are not summed; got "
            f"pbc={np.asarray(positions.pbc).tolist()}. Set atoms.pbc = False to take them as a free cluster."
        )
    charges = positions.get_initial_charges() if charges is None else charges
    return np.asarray(positions.get_positions(), dtype=float), charges


def _positive(value: Any, name: str, where: str, *, zero: bool = False) -> float:
    ok = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not (ok and math.isfinite(value) and (value > 0 or (zero and value == 0))):
        least = "0 or more" if zero else "above 0"
        raise DataError(f"{where}: {name} must be a finite number {least}, in 1 / length; got {value!r}.")
    return float(value)


def _kernel(name: Any, kappa: float, where: str) -> str:
    """The name of a kernel that fits its screening."""
    if name is None:
        return "yukawa" if kappa > 0 else "coulomb"
    check_option(name, ("coulomb", "yukawa", "slater"), where, "kernel")
    if (name == "coulomb") != (kappa == 0):
        least = "0" if name == "coulomb" else "above 0"
        raise DataError(
            f"{where}: kappa must be {least} for kernel={name!r}; got {kappa:g}. 1 / r is 'coulomb', "
            "exp(-kappa r) / r 'yukawa', exp(-kappa r) 'slater'."
        )
    return str(name)


def _bounds(places: np.ndarray, alpha: float | None) -> np.ndarray:
    """Bounding box with room around it."""
    low, high = places.min(axis=0).astype(float), places.max(axis=0).astype(float)
    longest = float((high - low).max())
    scale = (
        longest if longest > 0 else (1 / alpha if alpha is not None else max(float(np.abs(low).max()), 1.0))
    )
    room = _MARGIN * scale
    return np.stack([low - room, high + room], axis=1)


def _chosen(count: int, sides: np.ndarray, tol: float, kappa: float) -> float:
    """Alpha for about ``_NEIGHBORS`` charges within the cutoff, but no larger than keeps the rank small."""
    volume = float(np.prod(np.maximum(sides, _THINNEST * sides.max())))
    reach = (3 * _NEIGHBORS * volume / (4 * math.pi * count)) ** (1 / 3)
    wanted = math.sqrt(math.log(_BELOW / (_CUTOFF * tol))) / reach
    half = float(sides.max()) / 2
    return max(min(max(wanted, 1 / half), _LARGEST / half), kappa / 4)
