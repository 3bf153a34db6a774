"""JAX arrays in, JAX arrays out, in 64 bits and in the 32 bits that JAX has by default, errors true."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from tenfac import (
    CP,
    align,
    corcondia,
    cp,
    cp_complete,
    factor_match_score,
    hooi,
    randomized_tucker,
    tucker,
    tucker_append,
    tucker_complete,
    tucker_cross,
    tucker_nonnegative,
)
from tests.checks import assert_above, assert_below, assert_close, assert_equal, dtype_name, library_of
from tests.oracles import cp_dense, format_dense, smooth, true_error, with_noise

jax = pytest.importorskip("jax")
slow = partial(pytest.param, marks=pytest.mark.slow)  # seconds of compilation each


def low_rank(*shape, noise=0.05, dtype=float):
    rng = np.random.default_rng([55_020, *shape])
    X = cp_dense(None, [rng.standard_normal((size, 2)).astype(dtype) for size in shape])
    if dtype is complex:
        X = X * np.exp(1j * np.arange(shape[-1]))
    return with_noise(X, noise, rng)


CUBE, CUBE_EXACT = low_rank(6, 6, 6), low_rank(6, 6, 6, noise=0.0)  # equal sizes compile once
SEEN = np.random.default_rng(55_021).random(CUBE.shape) < 0.8

FITS = {
    "hooi": (partial(hooi, rank=2), CUBE),
    "tucker_nonnegative": (partial(tucker_nonnegative, rank=2, tol=1e-3), np.abs(CUBE)),
    "hooi, complex": (partial(hooi, rank=2), low_rank(6, 6, 6, dtype=complex)),
    "cp": (partial(cp, rank=2), CUBE),
    "cp, compressed": (partial(cp, rank=2), low_rank(60, 50, 40)),
    "cp, nonnegative": (partial(cp, rank=1, nonnegative=True, tol=1e-4), np.abs(CUBE)),
    "cp, complex": (partial(cp, rank=2), low_rank(6, 6, 6, dtype=complex)),
    "tucker_cross": (lambda X: tucker_cross(X, X.shape, 0.1), CUBE),
    "tucker_cross, large": (lambda X: tucker_cross(X, X.shape, 1e-3), smooth(41)),
    "randomized_tucker": (partial(randomized_tucker, rank=2), low_rank(130, 90, 6)),
}
QUICK = ("hooi", "cp", "tucker_cross")


def assert_of_jax(t, x64):
    arrays = (next(iter(t)), *t.factors)
    bits = ("float64", "complex128") if x64 else ("float32", "complex64")
    assert_equal({library_of(array) for array in arrays}, {"jax"})
    assert_equal({dtype_name(array) for array in arrays} - set(bits), set())


@pytest.mark.parametrize(
    ("name", "x64"),
    [(name, x64) if name in QUICK and not x64 else slow(name, x64) for name in FITS for x64 in (False, True)],
)
def test_a_fit_is_that_of_numpy_and_its_error_is_true(name, x64):
    fit, X = FITS[name]
    with jax.enable_x64(x64):
        data = jax.numpy.asarray(X)
        t, X = fit(data), np.asarray(data)
        assert_of_jax(t, x64)
    assert_below(true_error(t, format_dense(fit(X))), 1e-6 if x64 else 2e-3, "difference from numpy")
    assert_equal(t.info.converged, True)
    share = 0.3 if name == "tucker_cross, large" else 1e-3  # there the error is estimated
    assert_below(abs(t.info.rel_error / true_error(t, X) - 1), share, "reported over true error - 1")


@pytest.mark.parametrize("x64", [False, slow(True)])
@pytest.mark.parametrize("fit", [partial(hooi, rank=2), partial(cp, rank=2)], ids=["hooi", "cp"])
def test_an_error_of_rounding_is_that_of_the_precision_at_hand(fit, x64):
    with jax.enable_x64(x64):
        data = jax.numpy.asarray(CUBE_EXACT)
        t = fit(data)
        true = true_error(t, np.asarray(data))
    eps = np.finfo(np.asarray(t.factors[0]).dtype).eps
    assert_below(t.info.rel_error, 20 * eps, "reported error")
    assert_above(t.info.rel_error, 0.3 * true - eps, "reported error against the true one")


@pytest.mark.parametrize("scale", [1e-19, 1e-18, 1e18])
@pytest.mark.parametrize("fit", [hooi, cp, randomized_tucker])
def test_squares_that_32_bits_cannot_hold_are_avoided(fit, scale):
    X = CUBE.astype(np.float32) * np.float32(scale)
    with jax.enable_x64(False):
        t = fit(jax.numpy.asarray(X), 2)
    first, factors = t
    t = type(t)(np.asarray(first, float) / scale, [np.asarray(f, float) for f in factors], info=t.info)
    assert_below(true_error(t, X.astype(float) / scale), 0.05, "relative error")
    assert_below(
        abs(t.info.rel_error / true_error(t, X.astype(float) / scale) - 1), 1e-3, "reported over true - 1"
    )


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("complete", [cp_complete, tucker_complete])
def test_an_array_is_completed(complete, x64):
    with jax.enable_x64(x64):
        data = jax.numpy.asarray(CUBE_EXACT)
        by_mask = complete(data, 2, mask=jax.numpy.asarray(SEEN))
        by_nan = complete(jax.numpy.where(jax.numpy.asarray(SEEN), data, jax.numpy.nan), 2)
        assert_of_jax(by_mask, x64)
        X = np.asarray(data)
    eps = np.finfo(X.dtype).eps
    assert_equal(np.asarray(by_nan.factors[1]), np.asarray(by_mask.factors[1]))
    assert_equal(by_mask.info.converged, True)
    assert_below(true_error(by_mask, X), 1e-8 + 10 * eps, "error of all entries")
    true = np.linalg.norm((format_dense(by_mask) - X)[SEEN]) / np.linalg.norm(X[SEEN])
    assert_below(abs(by_mask.info.rel_error - true), 0.2 * true + eps / 2, "reported against true error")


@pytest.mark.parametrize("x64", [False, slow(True)])
def test_components_are_aligned_and_judged(x64):
    rng = np.random.default_rng(55_022)
    factors = [rng.standard_normal((6, 2)) for _ in range(3)]
    with jax.enable_x64(x64):
        a = CP(None, [jax.numpy.asarray(factor) for factor in factors])
        turned = [factors[0][:, ::-1], *(-factor[:, ::-1] for factor in factors[1:])]
        b = CP(None, [jax.numpy.asarray(factor) for factor in turned])
        t = align(a, b)
        assert_of_jax(t, x64)
        assert_close(factor_match_score(a, b), 1.0, 1e9 * (not x64) + 100)
        assert_close(corcondia(a.to_tensor(), a), 100.0, 1e10)
        for got, want in zip(t.factors, a.factors, strict=True):
            assert_close(got, want)


@pytest.mark.slow
@pytest.mark.parametrize(("x64", "how"), [(False, {"rank": 2}), (True, {"tol": 0.1})])
def test_slices_are_appended_within_the_bound_that_is_reported(x64, how):
    with jax.enable_x64(x64):
        data = jax.numpy.asarray(CUBE)
        t = tucker_append(tucker(data[:4], **how), data[4:], 0, **how)
        assert_of_jax(t, x64)
    true = true_error(t, np.asarray(data))
    assert_below(true, t.info.rel_error, "true error against the reported bound")
    assert_below(t.info.rel_error, 3 * true, "reported bound against the true error")
