"""What a fitted functional Tucker model tells of single modes, and its mean as a Tucker tensor."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from tenfac.bayes.mode_functions import mode_functions
from tenfac.bayes.reading import FittedModel
from tenfac.core.errors import DataError, RankError

if TYPE_CHECKING:
    from tenfac.core.tucker import Tucker


Array = NDArray[Any]


class ModeMethods(FittedModel):
    """The part of ``FunctionalTucker`` that looks at one mode at a time."""

    def mode_posterior(self, mode: str | int, x: Any = None) -> tuple[NDArray[Any], Array, Array]:
        """Marginal function of one mode: the average of f over the other modes' observed indices.

        Unlike the factors of a Tucker tensor it has no free sign, scale or rotation. A mode with more than
        64 indices is averaged over 64 quantiles of them, and where the other modes have few cells (stations),
        the average is over these. A ``response`` other than the identity is averaged on its own scale. The
        residual within slices is no part of it: it has nothing that slices share.

        Parameters
        ----------
        mode : str or int
            Name or number.
        x : array, shape (N,), optional
            Indices; by default 101 points over the observed range, or all labels.

        Returns
        -------
        x, mean, std : arrays, shape (N,)
            ``mean`` and ``std`` (of the function, without noise) in the unit of y.

        Raises
        ------
        DataError
            If there is no such mode, or ``x`` holds an unseen label.

        Examples
        --------
        >>> from tenfac import FunctionalTucker
        >>> model = FunctionalTucker(max_iter=0).fit([[0.0], [1.0]], [1.0, 3.0])
        >>> x, mean, std = model.mode_posterior(0)
        >>> x.shape, bool(std[0] < std[50])
        ((101,), True)
        """
        number, x, positions = self._read_mode(mode, x, "FunctionalTucker.mode_posterior")
        mean, variance = self._prediction.marginal(number, positions)
        return x, *self._response.moments(mean, variance)

    def mode_functions(
        self, mode: str | int, x: Any = None, rank: int = 3
    ) -> tuple[NDArray[Any], Array, Array, Array]:
        """Factor functions of one mode in the Tucker form of the posterior, with bands.

        The factor of the higher-order SVD of the posterior mean, less the average of y, on the grid of
        observed indices: orthonormal over the mode's observed indices, ordered by singular value, the
        largest value of each positive. At any index it is f seen through the other modes' singular vector,
        so that mean and standard deviation are exact. Of another mode with more than 64 indices 64 quantiles
        enter the grid, unless it is the exact one. On the scale of ``response``.

        Parameters
        ----------
        mode : str or int
            Name or number.
        x : array, shape (N,), optional
            As in ``mode_posterior``.
        rank : int
            Most functions; fewer come where the rest is zero.

        Returns
        -------
        x : array, shape (N,)
        mean, std : arrays, shape (N, rank)
            Without unit: multiplied by a singular value they have that of y, summed over the grid.
        singular_values : array, shape (rank,)
            Descending; in the unit of y if ``response`` is the identity.

        Raises
        ------
        DataError
            If there is no such mode, ``x`` holds an unseen label, or another inference than "collapsed"
            fitted the model.
        RankError
            If ``rank`` is not an integer from 1 up.

        Notes
        -----
        The signs are fixed, the functions are not where two singular values are equal. ``std`` is that of f
        through fixed singular vectors of its mean: it tells how well a function is known, not its order.

        References
        ----------
        .. [1] L. De Lathauwer, B. De Moor, J. Vandewalle, A Multilinear Singular Value Decomposition, SIAM J.
           Matrix Anal. Appl. 21 (2000), theorem 2. doi:10.1137/S0895479896305696

        Examples
        --------
        >>> import numpy as np
        >>> from tenfac import FunctionalTucker
        >>> X = [[a, b] for a in (0.0, 1.0, 2.0) for b in (0.0, 1.0)]
        >>> model = FunctionalTucker(max_iter=0).fit(X, [1.0, -1.0, 2.0, -2.0, 3.0, -3.0])
        >>> x, mean, std, sizes = model.mode_functions(0, [0.0, 1.0, 2.0], rank=1)
        >>> mean.shape, float(np.linalg.norm(mean[:, 0]).round(8))
        ((3, 1), 1.0)
        """
        where = "FunctionalTucker.mode_functions"
        number, x, positions = self._read_mode(mode, x, where)
        if isinstance(rank, bool) or not hasattr(rank, "__index__") or rank < 1:
            raise RankError(f"{where}: `rank` must be an integer from 1 up; got {rank!r}.")
        self._only_collapsed(where)
        index = self._modes[number]
        found = mode_functions(self._prediction, number, index.positions(index.values), positions, int(rank))
        return x, found.mean, found.std, self._response.spread * found.singular_values

    def factor_posterior(self, mode: str | int, x: Any = None) -> tuple[NDArray[Any], Array, Array]:
        """Functions that one mode brings to the products, as ``inference="cep"`` learns them.

        Each has mean square one over the observed indices and is positive where it is largest in size; the
        one with the largest share in the variance of y comes first. ``core_`` multiplies them.

        Parameters
        ----------
        mode : str or int
            Name or number.
        x : array, shape (N,), optional
            Indices; by default 101 points over the observed range, or all labels.

        Returns
        -------
        x : array, shape (N,)
        mean, std : arrays, shape (N, R)
            R is the entry of ``rank_``. In a diagonal core, the functions of one column belong together.

        Raises
        ------
        DataError
            If there is no such mode, ``x`` holds an unseen label, or another inference fitted the model: its
            functions are free to rotate.

        Examples
        --------
        >>> import numpy as np
        >>> from tenfac import FunctionalTucker
        >>> rng = np.random.default_rng(0)
        >>> X = rng.random((80, 2))
        >>> y = np.sin(4 * X[:, 0]) * X[:, 1] + 0.01 * rng.normal(size=80)
        >>> model = FunctionalTucker(inference="cep", core="diagonal", rank=1, max_iter=300).fit(X, y)
        >>> x, mean, std = model.factor_posterior(0, [0.1, 0.2, 0.3])
        >>> mean.shape
        (3, 1)
        """
        check_is_fitted(self, "info_")
        where = "FunctionalTucker.factor_posterior"
        if not hasattr(self, "core_"):
            raise DataError(
                f"{where}: single functions are learned by inference='cep' only; "
                f"got {self._fitted_by!r}. Fit with 'cep', or take mode_posterior."
            )
        from tenfac.bayes.cep.canonical import Canonical

        number, x, positions = self._read_mode(mode, x, where)
        return x, *Canonical.of(self._prediction).functions(number, positions)

    def mean_tucker(self, *, tol: float = 1e-4, max_degree: int = 2048, modes: str = "chebyshev") -> Tucker:
        """Posterior mean as a ``Tucker``: to integrate, differentiate, add, round, save.

        Continuous modes become ``Chebyshev`` or ``GP`` over the observed range, discrete ones ``Discrete``,
        in the order of ``indices_``. In the unit of y. The residual within slices is no sum of products of
        functions and is left out, as ``info.warnings`` then tells.

        Parameters
        ----------
        tol : float
            Largest error to allow, as a share of the largest value: 1e-12 to below 1.
        max_degree : int
            Largest degree in a mode, 16 or more; rounded down to a power of 2.
        modes : {"chebyshev", "gp"}
            What continuous modes become: polynomials, to which functions of any origin can be added; or the
            process of the fit with knots at the observed indices, exact whatever the kernel: ``tol`` then
            only cuts the ranks.

        Returns
        -------
        Tucker
            ``info.rel_error`` is the largest difference to the mean found at 2,000 points, not a bound.

        Raises
        ------
        DataError
            If ``response`` or the likelihood bends the mean, the model has joint functions of modes (where
            few cells of them have rows), another inference fitted it, or an argument is out of range.

        Warns
        -----
        ConvergenceWarning
            If the tolerance was not reached: the mean has a kink at every observed index under "matern12",
            which needs degrees in the thousands. With "matern32" a third, with "matern52" a fifth derivative
            jumps there.

        Notes
        -----
        A degree in the exact mode costs as much as an index of it in ``predict``.

        Examples
        --------
        >>> from tenfac import FunctionalTucker
        >>> X = [[a, b] for a in (0.0, 1.0, 2.0) for b in (0.0, 1.0)]
        >>> model = FunctionalTucker(max_iter=0).fit(X, [1.0, -1.0, 2.0, -2.0, 3.0, -3.0])
        >>> mean = model.mean_tucker()
        >>> bool(abs(mean.at(1.5, 0.2) - model.predict([[1.5, 0.2]])[0]) < 1e-3), mean.integrate([1]).ndim
        (True, 1)
        """
        from tenfac.bayes.mean_tucker import MeanProducts, mean_tucker

        check_is_fitted(self, "info_")
        where = "FunctionalTucker.mean_tucker"
        if isinstance(tol, bool) or not isinstance(tol, Real) or not 1e-12 <= tol < 1:
            raise DataError(f"{where}: `tol` must be a number from 1e-12 to below 1; got {tol!r}.")
        if isinstance(max_degree, bool) or not hasattr(max_degree, "__index__") or max_degree < 16:
            raise DataError(f"{where}: `max_degree` must be an integer of 16 or more; got {max_degree!r}.")
        if modes not in ("chebyshev", "gp"):
            raise DataError(f'{where}: `modes` must be "chebyshev" or "gp"; got {modes!r}.')
        self._only_collapsed(where)
        products = MeanProducts(self._prediction, self._modes, self._response)
        return mean_tucker(products, tol, max_degree, modes)

    def _only_collapsed(self, where: str) -> None:
        if self._fitted_by != "collapsed":
            raise DataError(
                f"{where}: the mean is a sum of products of mode functions with inference='collapsed' only; "
                f"got inference={self._fitted_by!r}. Fit with inference='collapsed', or ask `predict` and "
                "`mode_posterior`, which every inference answers."
            )
