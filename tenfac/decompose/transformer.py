"""Tucker decomposition as a scikit-learn transformer: samples in, core coordinates out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from tenfac.core.arrays import byte_guard
from tenfac.core.contract import contract
from tenfac.core.door import door
from tenfac.core.errors import DataError, RankError, ShapeError
from tenfac.core.interchange import refuse_decomposed
from tenfac.core.ops import kronecker
from tenfac.core.rank import check_tol, tucker_rank
from tenfac.core.report import Report, stored_report
from tenfac.core.shown import shows_what_it_learned
from tenfac.core.tracing import constant
from tenfac.core.truncate import truncate, truncation_report
from tenfac.decompose.checks import check_shape

Array = NDArray[Any]


@door
@shows_what_it_learned(lambda model: f"rank {model.rank_} of {model.feature_shape_}")
class TuckerTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Features of arrays: coordinates of each sample in orthonormal factors common to all samples.

    Mode 0 of ``X`` counts the samples, the other modes are decomposed: sample ``X[i]`` becomes the core of
    its projection on the factors, ``X[i] ~ mean + G[i] x_1 A_1 x_2 A_2 ...`` (multilinear principal component
    analysis [1]_, fitted by one pass of ST-HOSVD). For 2-way ``X`` it is principal component analysis.

    Parameters
    ----------
    rank : int or sequence of int, optional
        Rank of each mode after the first: one number for all, or one per mode, at most the sizes.
    tol : float, optional
        Relative Frobenius error to keep instead, of what differs from the mean. With neither, nothing is cut.
    center : bool, default True
        Subtract the mean sample.

    Attributes
    ----------
    factors_ : list of arrays, shapes (I_m, R_m)
        Orthonormal columns, ordered by energy; their signs are arbitrary.
    mean_ : array, shape (I_1, ..., I_k)
        Zero if ``center`` is False.
    rank_, feature_shape_ : tuple of int
        ``(R_1, ..., R_k)`` and ``(I_1, ..., I_k)``.
    n_features_in_ : int
        ``I_1``.
    info_ : Report
        ``rel_error`` is the relative error on the training samples, of what differs from the mean.

    Notes
    -----
    Cost of ``fit``: about ``(I_m + R_m)`` multiplications per entry of ``X`` for the first mode, less for
    later ones; of ``transform``: ``R_m`` per entry. The number of samples enters linearly.

    References
    ----------
    .. [1] H. Lu, K. N. Plataniotis and A. N. Venetsanopoulos, MPCA: Multilinear principal component analysis
       of tensor objects, IEEE Trans. Neural Networks 19 (2008), section III. doi:10.1109/TNN.2007.901277

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X = load_digits().images  # (1797, 8, 8)
    >>> model = TuckerTransformer(rank=(5, 4)).fit(X)
    >>> model.transform(X).shape, round(model.score(X), 2)
    ((1797, 20), -0.42)
    """

    def __init__(
        self, rank: int | Sequence[int] | None = None, *, tol: float | None = None, center: bool = True
    ) -> None:
        self.rank = rank
        self.tol = tol
        self.center = center

    def fit(self, X: Any, y: Any = None) -> TuckerTransformer:  # noqa: ARG002
        """Learn the mean and the factors.

        Parameters
        ----------
        X : array, shape (n_samples, I_1, ..., I_k)
            Finite real numbers; float32 stays float32.
        y : ignored

        Returns
        -------
        TuckerTransformer
            The fitted transformer itself.

        Raises
        ------
        ValueError
            If ``X`` is not finite or has fewer than 2 modes, or ``rank`` or ``tol`` does not fit.

        Examples
        --------
        >>> TuckerTransformer(rank=1).fit(np.arange(24.0).reshape(4, 3, 2)).rank_
        (1, 1)
        """
        self._fit_cores(X)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Array:  # noqa: ARG002
        """Fit, and return the features of the same samples without a second projection.

        Examples
        --------
        >>> TuckerTransformer(rank=1).fit_transform(np.arange(24.0).reshape(4, 3, 2)).shape
        (4, 1)
        """
        cores = self._fit_cores(X)
        return cores.reshape(len(cores), -1)

    def _fit_cores(self, X: Any) -> Array:
        start = perf_counter()
        _refuse_masked(X)
        X = validate_data(self, constant(X), allow_nd=True, dtype=[np.float64, np.float32])
        shape = X.shape[1:]
        check_shape(shape, "TuckerTransformer, without its samples")
        if not isinstance(self.center, bool | np.bool_):
            raise DataError(f"TuckerTransformer: center must be True or False; got {self.center!r}.")
        ranks, tol = self._ranks(shape, X.dtype)
        # float32 is summed in float64: the sum of many samples has no digits left for their differences
        mean = X.mean(axis=0, dtype=np.float64) if self.center else np.zeros(shape)
        self.mean_ = mean.astype(X.dtype)
        centered = (X - mean).astype(X.dtype, copy=False) if self.center else X
        full = None if ranks is None else (len(X), *ranks)
        cores, factors, rel_error = truncate(centered, full, tol, modes=range(1, X.ndim))
        self.info_: Report = truncation_report("TuckerTransformer", rel_error, tol, start)
        self._set(list(factors[1:]), shape)
        return cores

    def _ranks(self, shape: tuple[int, ...], dtype: Any) -> tuple[tuple[int, ...] | None, float | None]:
        if self.rank is not None and self.tol is not None:
            raise RankError(
                f"TuckerTransformer: give rank or tol, not both; got rank={self.rank!r} and tol={self.tol!r}."
            )
        if self.tol is not None:
            return None, check_tol(self.tol, dtype, "TuckerTransformer")
        return (shape if self.rank is None else tucker_rank(self.rank, shape, "TuckerTransformer")), None

    def _set(self, factors: list[Array], shape: tuple[int, ...]) -> None:
        self.factors_ = [np.ascontiguousarray(factor) for factor in factors]  # as they are when loaded
        self.feature_shape_ = tuple(shape)
        self.rank_ = tuple(factor.shape[1] for factor in factors)
        self._n_features_out = math.prod(self.rank_)

    def transform(self, X: Any) -> Array:
        """Coordinates of each sample in the factors, its core written as a row.

        Parameters
        ----------
        X : array, shape (n_samples, I_1, ..., I_k)

        Returns
        -------
        array, shape (n_samples, R_1 * ... * R_k)
            The last mode varies fastest.

        Raises
        ------
        ShapeError
            If the samples have another shape than those of ``fit``.

        Examples
        --------
        >>> X = np.arange(24.0).reshape(4, 3, 2)
        >>> TuckerTransformer(rank=(2, 1)).fit(X).transform(X[:1]).shape
        (1, 2)
        """
        check_is_fitted(self)
        cores = self._project(self._samples(X))
        return cores.reshape(len(cores), -1)

    def inverse_transform(self, X: Any) -> Array:
        """Samples of these features.

        Parameters
        ----------
        X : array, shape (n_samples, R_1 * ... * R_k)

        Returns
        -------
        array, shape (n_samples, I_1, ..., I_k)

        Raises
        ------
        ShapeError
            If there are more or fewer features.

        Examples
        --------
        >>> X = np.arange(24.0).reshape(4, 3, 2)
        >>> model = TuckerTransformer(rank=1).fit(X)
        >>> bool(np.allclose(model.inverse_transform(model.transform(X)), X))
        True
        """
        check_is_fitted(self)
        X = check_array(constant(X), dtype=[np.float64, np.float32])
        if X.shape[1] != self._n_features_out:
            raise ShapeError(
                f"TuckerTransformer.inverse_transform: X must have {self._n_features_out} columns, the "
                f"product of the rank {self.rank_}; got {X.shape[1]}."
            )
        return self.mean_ + contract(X.reshape(-1, *self.rank_), [None, *self.factors_])

    def score(self, X: Any, y: Any = None) -> float:  # noqa: ARG002
        """Minus the relative error of these samples: 0 is perfect, -1 no better than the mean.

        ``-||X - inverse_transform(transform(X))|| / ||X - mean||``, so that model selection can maximise it
        on held-out samples.

        Parameters
        ----------
        X : array, shape (n_samples, I_1, ..., I_k)
        y : ignored

        Returns
        -------
        float

        Examples
        --------
        >>> X = np.arange(24.0).reshape(4, 3, 2)
        >>> round(TuckerTransformer(rank=1).fit(X).score(X), 6)
        -0.0
        """
        check_is_fitted(self)
        rest = self._samples(X) - self.mean_
        largest = float(np.abs(rest).max())
        if largest == 0:
            return 0.0
        rest = rest / largest  # its squares neither over- nor underflow
        cores = contract(rest, [None, *(factor.T for factor in self.factors_)])
        lost = rest - contract(cores, [None, *self.factors_])
        return -float(np.linalg.norm(lost) / np.linalg.norm(rest))

    @property
    def components_(self) -> Array:
        """The array each feature stands for, shape (R_1 * ... * R_k, I_1, ..., I_k); formed on access."""
        check_is_fitted(self)
        shape = (self._n_features_out, *self.feature_shape_)
        remedy = "Use factors_, whose Kronecker product it is."
        byte_guard(shape, self.mean_.itemsize, 2**31, "TuckerTransformer.components_", remedy)
        return kronecker(self.factors_).T.reshape(shape)

    def _samples(self, X: Any) -> Array:
        _refuse_masked(X)
        X = validate_data(self, constant(X), allow_nd=True, dtype=[np.float64, np.float32], reset=False)
        if X.shape[1:] != self.feature_shape_:
            raise ShapeError(
                f"TuckerTransformer: samples must have the shape {self.feature_shape_} of those of fit; got "
                f"{X.shape[1:]} (X has shape {X.shape})."
            )
        return X.astype(np.result_type(X.dtype, self.mean_.dtype), copy=False)

    def _project(self, X: Array) -> Array:
        return contract(X - self.mean_, [None, *(factor.T for factor in self.factors_)])

    def _to_state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Header and arrays for ``tenfac.save``."""
        check_is_fitted(self)
        rank = self.rank if self.rank is None else np.asarray(self.rank).tolist()
        tol = None if self.tol is None else float(self.tol)
        params = {"rank": rank, "tol": tol, "center": bool(self.center)}
        names = getattr(self, "feature_names_in_", None)
        arrays = {f"factor_{m}": factor for m, factor in enumerate(self.factors_)}
        header = {
            "params": params,
            "info": asdict(self.info_),
            "names": None if names is None else [str(name) for name in names],
        }
        return header, {**arrays, "mean": self.mean_}

    @classmethod
    def _from_state(cls, header: dict[str, Any], arrays: dict[str, Array]) -> TuckerTransformer:
        model = cls(**header["params"])
        model.mean_ = arrays["mean"]
        model.n_features_in_ = model.mean_.shape[0]
        if header["names"] is not None:
            model.feature_names_in_ = np.asarray(header["names"], dtype=object)
        model._set([arrays[f"factor_{m}"] for m in range(model.mean_.ndim)], model.mean_.shape)
        model.info_ = stored_report(header["info"])
        return model


def _refuse_masked(X: Any) -> None:
    refuse_decomposed(X, "TuckerTransformer")
    if isinstance(X, np.ma.MaskedArray):
        raise DataError(
            "TuckerTransformer: X must have every entry; got a masked array. Fill it first, for example with "
            "tucker_complete."
        )
