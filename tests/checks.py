"""The only comparison helpers of the test suite: each asserts, and each prints the number and its bound."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from tenfac.core.errors import ConvergenceWarning


def library_of(array: Any) -> str:
    """Name of the library an array belongs to: ``numpy``, ``torch``, ``jax``."""
    return type(array).__module__.partition(".")[0].removesuffix("lib")


def dtype_name(array: Any) -> str:
    """Name of an array's dtype without its library: ``float32``, ``complex128``, ``int64``."""
    return str(array.dtype).rpartition(".")[2]


def to_numpy(array: Any) -> np.ndarray:
    """Copy an array of any library to numpy."""
    if library_of(array) == "torch":
        return array.detach().cpu().resolve_conj().numpy()
    return np.asarray(array)


def quietly(call: Any, *args: Any, **kwargs: Any) -> Any:
    """Call something where it does not matter here whether it warns that it did not converge."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return call(*args, **kwargs)


def assert_same_kind(got: Any, like: Any) -> None:
    """Assert that two arrays have one library, dtype and device."""
    assert library_of(got) == library_of(like), f"library: got {library_of(got)}, want {library_of(like)}"
    assert dtype_name(got) == dtype_name(like), f"dtype: got {dtype_name(got)}, want {dtype_name(like)}"
    if library_of(got) == "torch":
        assert got.device == like.device, f"device: got {got.device}, want {like.device}"


def assert_close(
    got: Any, want: Any, factor: float = 100, *, like: Any = None, scale: float | None = None
) -> None:
    """Assert ``max|got - want| <= factor * eps(dtype) * scale``, and the same shape, library and dtype.

    ``want`` sets the library and dtype unless ``like`` does (then ``want`` may be an oracle in float64
    numpy), or unless ``want`` is a Python number, against which only the value is compared. ``eps`` is that
    of ``got``.
    ``scale`` is ``max|want|`` unless given; with a zero ``want`` and no ``scale`` the match must be exact.
    """
    if like is not None:
        assert_same_kind(got, like)
    elif not isinstance(want, (int, float, complex)):
        assert_same_kind(got, want)
    else:
        got = np.asarray(got) if isinstance(got, (int, float, complex)) else got
    got_np, want_np = to_numpy(got), to_numpy(want)
    assert got_np.shape == want_np.shape, f"shape: got {got_np.shape}, want {want_np.shape}"
    assert np.isfinite(want_np).all(), "the wanted values are not finite"
    assert np.isfinite(got_np).all(), "the values got are not finite"
    if got_np.size == 0:
        return
    inexact = got_np.dtype if np.issubdtype(got_np.dtype, np.inexact) else np.float64
    error = float(np.max(np.abs(got_np - want_np)))
    reference = float(np.max(np.abs(want_np))) if scale is None else float(scale)
    bound = factor * float(np.finfo(inexact).eps) * reference
    assert error <= bound, f"max|got - want| = {error:.3e} > {bound:.3e} (factor {factor:g}, {inexact})"


def assert_equal(got: Any, want: Any) -> None:
    """Assert that two values are the same; arrays in library, dtype, shape and every value (NaN = NaN)."""
    if not hasattr(want, "dtype") or not hasattr(want, "shape"):
        assert got == want, f"got {got!r}, want {want!r}"
        return
    assert_same_kind(got, want)
    np.testing.assert_array_equal(to_numpy(got), to_numpy(want), strict=True)


def assert_below(value: Any, bound: float, what: str) -> None:
    """Assert ``value <= bound`` for a number (NaN fails)."""
    value = float(value)
    assert value <= bound, f"{what}: {value:.6g} > {bound:.6g}"


def assert_above(value: Any, bound: float, what: str) -> None:
    """Assert ``value >= bound`` for a number (NaN fails)."""
    value = float(value)
    assert value >= bound, f"{what}: {value:.6g} < {bound:.6g}"


def assert_relative(got: Any, want: Any, tol: float, what: str = "relative difference") -> None:
    """Assert ``||got - want|| <= tol * ||want||`` in the Frobenius norm (approximation)."""
    got_np, want_np = to_numpy(got), to_numpy(want)
    assert got_np.shape == want_np.shape, f"{what}: shape got {got_np.shape}, want {want_np.shape}"
    assert_below(np.linalg.norm((got_np - want_np).ravel()), tol * np.linalg.norm(want_np.ravel()), what)


def assert_draws(draws: np.ndarray, mean: np.ndarray, cov: np.ndarray, errors: float = 5.0) -> None:
    """Assert that normal draws (n, k) have a mean and a covariance, but for some standard errors."""
    count, std = len(draws), np.sqrt(np.diag(cov))
    off = np.abs(draws.mean(axis=0) - mean) / std * np.sqrt(count)
    assert_below(off.max(), 4.5, "distance of the mean, in standard errors")
    error = np.sqrt((cov**2 + np.outer(std**2, std**2)) / count)
    got = (draws - mean).T @ (draws - mean) / count
    assert_below((np.abs(got - cov) / error).max(), errors, "distance of the covariance, in standard errors")


def assert_says(error: BaseException | Any, *parts: str) -> None:
    """Assert that an error message (or a ``pytest.raises`` result) contains every part."""
    message = str(getattr(error, "value", error))
    missing = [part for part in parts if part not in message]
    assert not missing, f"message lacks {missing}: {message!r}"
