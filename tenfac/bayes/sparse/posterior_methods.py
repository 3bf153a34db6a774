"""What a fitted sparse model answers: predictions, draws, variances, dense coefficients, files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from tenfac.bayes.sparse.box import Box
from tenfac.bayes.sparse.coefficients import format_of
from tenfac.bayes.sparse.evidence import kronecker_log_evidence
from tenfac.bayes.sparse.problem import factors_of, measured_of
from tenfac.bayes.sparse.scattered import Scattered
from tenfac.bayes.sparse.statistics import energy
from tenfac.core.arrays import (
    byte_guard,
    device_of,
    generator,
    is_array,
    namespace_of,
    promote,
    to_number,
    to_numpy,
)
from tenfac.core.cp import CP
from tenfac.core.errors import DataError, ShapeError
from tenfac.core.modes.protocol import Mode
from tenfac.core.precision import dtype_name
from tenfac.core.report import Report
from tenfac.core.tucker import Tucker

_MAX_BYTES = 2**31


class PosteriorMethods:
    """The part of ``KroneckerSBL`` that reads the posterior; needs what ``fit`` sets."""

    coef_: Any
    coef_std_: Any
    support_: tuple[Any, ...]
    gammas_: tuple[Any, ...]
    noise_: float
    info_: Report
    shape_: tuple[int, ...]
    _box: Box

    def predict(self, operator: Any = None) -> Any:
        """Measurements that the posterior mean gives.

        Parameters
        ----------
        operator : KroneckerOperator or sequence of arrays, shapes (M'_i, N_i), optional
            Other rows of the dictionary: other sensors, pilots, pixels. By default those of ``fit``.

        Returns
        -------
        array, shape (M'_0, ..., M'_{I-1}), with snapshots and (T,)

        Raises
        ------
        ShapeError
            If a factor has another number of columns than that of ``fit``.

        Examples
        --------
        >>> import numpy as np
        >>> from tenfac import KroneckerSBL
        >>> model = KroneckerSBL(noise=0.1).fit([np.eye(3)], np.array([5.0, 0.0, 0.0]))
        >>> model.predict([np.array([[2.0, 0.0, 0.0]])]).round(2).tolist()
        [10.0]
        """
        check_is_fitted(self, "info_")
        where = "KroneckerSBL.predict"
        factors = self._box.columns if operator is None else self._active(operator, where)
        *factors, _ = promote(*factors, self._box.mean)
        return self._given(self._box.predicted(factors))

    def score(self, operator: Any, Y: Any) -> float:
        """Share of the variance of measurements that ``predict`` explains, R squared.

        Parameters
        ----------
        operator : KroneckerOperator or sequence of arrays, shapes (M'_i, N_i)
        Y : array, shape (M'_0, ..., M'_{I-1}) or (M',)
            With snapshots, if ``fit`` had them, and (T,).

        Returns
        -------
        float
            At most 1; 0 is what their mean would have.

        Examples
        --------
        >>> import numpy as np
        >>> from tenfac import KroneckerSBL
        >>> KroneckerSBL().fit([np.eye(3)], np.zeros(3)).score([np.eye(3)], np.array([1.0, 0.0, -1.0]))
        0.0
        """
        fitted = self.predict(operator)
        rows = [factor.shape[0] for factor in factors_of(operator, "KroneckerSBL.score")]
        Y, fitted = promote(Y, fitted, where="KroneckerSBL.score")
        xp = namespace_of(Y)
        Y = measured_of(Y, rows, self._snapshots, "KroneckerSBL.score", xp)
        left = energy(Y - xp.reshape(fitted, Y.shape), xp)
        spread = energy(Y - xp.mean(Y), xp)
        return 1.0 - left / spread if spread else float(left == 0) - float(left > 0)

    def log_evidence(self, operator: Any, Y: Any) -> float:
        """Log marginal likelihood of measurements under the learned variances and noise.

        Of other measurements of a new draw from the same prior (other coefficients on the same support); for
        those of ``fit`` it is ``log_evidence_``. Shapes as in ``score``.

        Raises
        ------
        DataError
            If the learned noise is zero: it is not a density then.

        Examples
        --------
        >>> import numpy as np
        >>> from tenfac import KroneckerSBL
        >>> model = KroneckerSBL(noise=1.0).fit([np.eye(1)], np.array([5.0]))
        >>> abs(model.log_evidence([np.eye(1)], np.array([5.0])) - model.log_evidence_) < 1e-9
        True
        """
        check_is_fitted(self, "info_")
        if not self.noise_ > 0:
            raise DataError(
                "KroneckerSBL.log_evidence: the noise must be positive; it was learned as 0 from "
                "measurements that are all zero. Fit with noise=... ."
            )
        factors = self._active(operator, "KroneckerSBL.log_evidence")
        wide = promote(*factors, self._box.mean)[:-1]
        rows = [factor.shape[0] for factor in wide]
        Y = measured_of(Y, rows, self._snapshots, "KroneckerSBL.log_evidence", self._box.xp)
        Y = self._box.xp.reshape(Y, (-1, Y.shape[-1]))
        active, gammas = self._box.as_kronecker(wide)
        if 0 in self.coef_.shape:  # a column of zeros stands for the empty model
            xp = namespace_of(active[0])
            active = [xp.zeros((f.shape[0], 1), dtype=f.dtype, device=device_of(f)) for f in active]
            gammas = tuple(xp.ones(1, dtype=g.dtype, device=device_of(g)) for g in gammas)
        value = kronecker_log_evidence(active, Y, gammas, self.noise_, snapshots=True)
        return to_number(value)

    def sample(self, n: int = 1, *, random_state: int | np.random.Generator | None = 0) -> Any:
        """Draw coefficients on the active box from their posterior.

        Parameters
        ----------
        n : int
            Number of draws, from 0 up.
        random_state : int, numpy Generator or None, default 0

        Returns
        -------
        array, shape (n, k_0, ..., k_{I-1}), with snapshots and (T,)

        Notes
        -----
        Hyperparameters are held at their learned values. Cost: a few products with the active columns. Around
        an estimate of low rank, draws have its first-order covariance; they are not of low rank themselves.

        Examples
        --------
        >>> import numpy as np
        >>> from tenfac import KroneckerSBL
        >>> KroneckerSBL(noise=0.1).fit([np.eye(3)], np.array([5.0, 0.0, 0.0])).sample(7).shape
        (7, 1)
        """
        check_is_fitted(self, "info_")
        if isinstance(n, bool) or not hasattr(n, "__index__") or n < 0:
            raise DataError(f"KroneckerSBL.sample: `n` must be an integer from 0 up; got {n!r}.")
        return self._given(self._box.draws(max(int(n), 1), generator(random_state))[: int(n)])

    def coef_var(self, which: Any = "support", *, max_bytes: int | None = _MAX_BYTES) -> Any:
        """Posterior variances of coefficients; the same for all snapshots, unless of an estimate of low rank.

        Parameters
        ----------
        which : "support", "all", or sequence of arrays of int, shapes (n,)
            The active box; all coefficients; or those at ``X[which[0][t], which[1][t], ...]``.
        max_bytes : int or None
            Refuse "all" beyond this size, by default 2 GiB.

        Returns
        -------
        array, shape (k_0, ..., k_{I-1}), (N_0, ..., N_{I-1}) or (n,)
            With several snapshots of an estimate of low rank, and (T,). Zero outside the box, where the
            prior leaves no doubt.

        Raises
        ------
        DataError, ShapeError
            If "all" is too large, or indices are not those of coefficients.

        Examples
        --------
        >>> import numpy as np
        >>> from tenfac import KroneckerSBL
        >>> model = KroneckerSBL(noise=0.1).fit([np.eye(3)], np.array([5.0, 0.0, 0.0]))
        >>> model.coef_var("all").round(3).tolist(), model.coef_var([[0, 1]]).round(3).tolist()
        ([0.01, 0.0, 0.0], [0.01, 0.0])
        """
        check_is_fitted(self, "info_")
        xp = self._box.xp
        if isinstance(which, str):
            if which not in ("support", "all"):
                raise DataError(
                    f"KroneckerSBL.coef_var: `which` must be 'support', 'all' or indices per mode; got "
                    f"{which!r}."
                )
            found = self.coef_std_**2
            return found if which == "support" else self._spread(found, max_bytes, "coef_var")
        indices = self._indices(which)
        if 0 in self.coef_.shape:
            found = xp.zeros(indices[0].shape[0], dtype=xp.float64, device=device_of(self.coef_))
        else:
            asked = [xp.asarray(one, device=device_of(self.coef_)) for one in indices]
            inside, places = self._box.places_of(asked, self.support_)
            found = self._box.variances_at(places)
            found = xp.where(inside[:, None] if found.ndim > 1 else inside, found, 0.0)
        return xp.astype(found, self.coef_std_.dtype)

    def coef_tensor(self, *, max_bytes: int | None = _MAX_BYTES) -> Any:
        """All coefficients as one dense array.

        Parameters
        ----------
        max_bytes : int or None
            Refuse a larger result, by default 2 GiB.

        Returns
        -------
        array, shape (N_0, ..., N_{I-1}), with snapshots and (T,)

        Raises
        ------
        DataError
            If the result would be larger than ``max_bytes``.

        Examples
        --------
        >>> import numpy as np
        >>> from tenfac import KroneckerSBL
        >>> model = KroneckerSBL(noise=0.1).fit([np.eye(3)], np.array([5.0, 0.0, 0.0]))
        >>> model.coef_tensor().round(1).tolist()
        [5.0, 0.0, 0.0]
        """
        check_is_fitted(self, "info_")
        return self._spread(self.coef_, max_bytes, "coef_tensor")

    def coef_format(self, modes: Sequence[Mode | None] | None = None) -> Tucker | CP:
        """All coefficients as a format, which holds those of the support only: a function, with ``modes``.

        With ``Chebyshev`` modes, whose polynomials at the places of the measurements were the dictionaries,
        it is evaluated between the places, integrated, differentiated and saved as any other function.

        Parameters
        ----------
        modes : sequence of I Mode or None, optional
            What the columns of each factor stand for, of the sizes (N_0, ..., N_{I-1}); None for row numbers.

        Returns
        -------
        Tucker or CP, shape (N_0, ..., N_{I-1}), with snapshots and (T,)
            Its core is ``coef_`` and its factors are unit vectors; CP for the unstructured prior, whose
            support is no box. Of the library and dtype of ``coef_``; ``info`` is that of the fit.

        Raises
        ------
        ShapeError
            If the modes do not have the sizes of the coefficients.

        Examples
        --------
        >>> import numpy as np
        >>> from tenfac import Chebyshev, KroneckerSBL
        >>> mode, x = Chebyshev(9, (0.0, 1.0)), np.linspace(0, 1, 7)
        >>> model = KroneckerSBL(noise=1e-6).fit([mode.rows(np.eye(9), x)], 3 * x)  # 3x is 1.5 T_0 + 1.5 T_1
        >>> F = model.coef_format([mode])
        >>> model.support_[0].tolist(), round(float(F.at(0.123)), 3), round(float(F.integrate()), 3)
        ([0, 1], 0.369, 1.5)
        """
        check_is_fitted(self, "info_")
        where = "KroneckerSBL.coef_format"
        scattered = isinstance(self._box, Scattered)
        return format_of(self.coef_, self.support_, self.shape_, modes, scattered, self.info_, where)

    # --- what follows is shared by the above ---

    def _spread(self, box: Any, max_bytes: int | None, name: str) -> Any:
        """Put an array on the box into one of zeros over all coefficients."""
        xp = self._box.xp
        shape = (*self.shape_, *box.shape[len(self._box.shape) :])
        itemsize = np.dtype(dtype_name(box.dtype)).itemsize
        remedy = "Read coef_ with support_, or coef_var at indices; or raise max_bytes."
        byte_guard(shape, itemsize, max_bytes, f"KroneckerSBL.{name}", remedy)
        result = xp.zeros(shape, dtype=box.dtype, device=device_of(box))
        if 0 not in box.shape:
            result[self._box.grid(self.support_)] = box
        return result

    def _indices(self, which: Any) -> list[np.ndarray]:
        if is_array(which) or not isinstance(which, Sequence) or len(which) != len(self.shape_):
            raise ShapeError(
                "KroneckerSBL.coef_var: indices must be a sequence with one array per mode, "
                f"{len(self.shape_)} in all; got {type(which).__name__}. Write (i, j, k)."
            )
        arrays = [to_numpy(one) if is_array(one) else np.asarray(one) for one in which]
        try:
            arrays = [np.atleast_1d(one) for one in np.broadcast_arrays(*arrays)]
        except ValueError as error:
            raise ShapeError(
                "KroneckerSBL.coef_var: indices must have one length, a coefficient each; got shapes "
                f"{', '.join(str(one.shape) for one in arrays)}."
            ) from error
        for n, (one, size) in enumerate(zip(arrays, self.shape_, strict=True)):
            if one.ndim != 1 or one.dtype.kind not in "iu" or (one < 0).any() or (one >= size).any():
                raise DataError(
                    f"KroneckerSBL.coef_var: indices of mode {n} must be integers from 0 to {size - 1} in "
                    f"one axis; got {one.dtype} of shape {one.shape}."
                )
        return arrays

    def _active(self, operator: Any, where: str) -> list[Any]:
        """Active columns of other factors."""
        factors = factors_of(operator, where)
        sizes = tuple(factor.shape[1] for factor in factors)
        if sizes != self.shape_:
            raise ShapeError(f"{where}: the factors must have {self.shape_} columns, as in fit; got {sizes}.")
        namespace_of(factors[0], self.coef_)
        return [factor[:, columns] for factor, columns in zip(factors, self.support_, strict=True)]

    def _given(self, array: Any) -> Any:
        """In the precision of the measurements, without the axis of snapshots if there was none."""
        xp, dtype = self._box.xp, self.coef_.dtype
        if xp.isdtype(array.dtype, "complex floating") and xp.isdtype(dtype, "real floating"):
            dtype = xp.complex64 if dtype_name(dtype) == "float32" else xp.complex128
        array = xp.astype(array, dtype, copy=False)
        return array if self._snapshots else array[..., 0]

    @property
    def _snapshots(self) -> bool:
        return self.coef_.ndim == self._box.mean.ndim
