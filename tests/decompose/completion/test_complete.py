"""Completion: recovery, real data, failures said, equal inputs, invariances, and what must be refused."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.sparse import coo_array

from tenfac import ConvergenceWarning, DataError, RankError, cp_complete, datasets, tucker_complete
from tenfac.decompose.completion import search
from tenfac.decompose.completion.observed import Observed
from tenfac.decompose.completion.tucker import TuckerProblem
from tests.checks import (
    assert_above,
    assert_below,
    assert_close,
    assert_equal,
    assert_relative,
    assert_same_kind,
    assert_says,
    quietly,
    to_numpy,
)
from tests.oracles import cp_dense, tucker_dense

MORE_SEEDS = [pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3)]
DOORS = pytest.mark.parametrize("complete", [cp_complete, tucker_complete])


def tensor(shape=(30, 30, 30), rank=2, *, noise=0.0, seed=101, dtype=float):
    """Gaussian factors, and noise as a share of the norm; the seed is no seed that a fit is given."""
    rng = np.random.default_rng([seed, 55_001])
    factors = [rng.standard_normal((size, rank)) for size in shape]
    if dtype is complex:
        factors = [factor + 1j * rng.standard_normal(factor.shape) for factor in factors]
    X = cp_dense(None, factors)
    return X + noise * np.linalg.norm(X) / np.sqrt(X.size) * rng.standard_normal(shape)


def chosen(shape, share, seed=101):
    return np.random.default_rng([seed, 55_002]).random(shape) < share


def error_at(t, X, where):
    return np.linalg.norm((to_numpy(t.to_tensor()) - X)[where]) / np.linalg.norm(X[where])


# --- recovery ---------------------------------------------------------------------------------------------


@DOORS
@pytest.mark.parametrize(
    ("shape", "rank", "share", "dtype"),
    [
        ((30, 30, 30), 3, 0.2, float),
        ((30, 20, 25), 2, 0.2, complex),
        ((40, 50), 2, 0.4, float),
        ((12, 13, 14, 15), 2, 0.1, float),
        ((300, 8, 9), 2, 0.3, float),
        ((3, 20, 20), 5, 0.6, float),
    ],
)
def test_a_tensor_of_low_rank_is_recovered_from_a_part_of_its_entries(complete, shape, rank, share, dtype):
    X, mask = tensor(shape, rank, dtype=dtype), chosen(shape, share)
    ranks = rank if complete is cp_complete else tuple(min(rank, size) for size in shape)
    t = complete(X, ranks, mask=mask)
    assert_relative(t.to_tensor(), X, 1e-8, "error of all entries")
    assert_below(t.info.rel_error, 1e-8, "reported error")
    assert_below(t.info.validation_error, 1e-5, "validation error")
    assert_equal((t.info.converged, t.info.warnings), (True, ()))


@pytest.mark.parametrize("seed", [1, *MORE_SEEDS])
@pytest.mark.parametrize(("rank", "share"), [(3, 0.06), (5, 0.1)])
def test_held_out_error_is_at_the_noise_where_entries_are_few(rank, share, seed):
    X, mask = tensor((40, 40, 40), rank, noise=0.01, seed=seed), chosen((40, 40, 40), share, seed)
    t = cp_complete(X, rank, mask=mask)
    parameters = rank * 118 / np.count_nonzero(mask)
    assert_below(error_at(t, X, ~mask), 0.01 * np.sqrt(1 + 1.6 * parameters), "held-out error")
    assert_below(abs(t.info.validation_error / error_at(t, X, ~mask) - 1), 0.15, "validation over truth - 1")
    assert_equal(t.info.converged, True)


@pytest.mark.parametrize("seed", [1, *MORE_SEEDS])
def test_a_tucker_tensor_is_completed_to_the_noise(seed):
    rng = np.random.default_rng([seed, 55_003])
    X = tucker_dense(rng.standard_normal((3, 2, 4)), [rng.standard_normal((30, r)) for r in (3, 2, 4)])
    X += 0.01 * np.sqrt(np.mean(X**2)) * rng.standard_normal(X.shape)
    mask = chosen(X.shape, 0.1, seed)
    t = tucker_complete(X, (3, 2, 4), mask=mask)
    assert_below(error_at(t, X, ~mask), 0.0112, "held-out error")
    assert_equal(t.info.converged, True)


def test_nearly_collinear_components_are_separated():
    x = np.linspace(1, 2, 12)
    X = np.multiply.outer(np.multiply.outer(x, x), x) + 1
    t = cp_complete(X, 2, mask=chosen(X.shape, 0.3), max_iter=200)
    assert_relative(t.to_tensor(), X, 1e-8)
    assert_equal(t.info.reason, "error settled")


def test_with_all_entries_the_fit_is_that_of_dense_alternating_least_squares():
    X = tensor((9, 10, 11), 2, noise=0.1)
    t = cp_complete(X, 2, tol=1e-9)
    factors = [factor * t.weights ** (1 / 3) for factor in t.factors]
    for _ in range(200):
        for n in range(3):
            a, b = (factors[m] for m in range(3) if m != n)
            h = (a[:, None] * b[None]).reshape(-1, 2)
            factors[n] = np.linalg.lstsq(h, np.moveaxis(X, n, 0).reshape(len(factors[n]), -1).T)[0].T
    best = np.linalg.norm(cp_dense(None, factors) - X) / np.linalg.norm(X)
    assert_below(t.info.rel_error, best * (1 + 1e-5), "error against that of dense least squares")
    assert_relative(t.to_tensor(), cp_dense(None, factors), 2e-3)


def test_hidden_entries_of_real_data_are_predicted_far_better_than_by_their_mean():
    X = datasets.load_il2().values
    seen = np.flatnonzero(~np.isnan(X))
    hidden = np.random.default_rng(77).choice(seen, len(seen) // 10, replace=False)
    Y = X.copy()
    Y.ravel()[hidden] = np.nan
    truth = X.ravel()[hidden]
    of_mean = np.linalg.norm(truth - np.nanmean(Y))
    for t, share in [(cp_complete(Y, 4), 0.3), (tucker_complete(Y, (4, 3, 4, 3)), 0.25)]:
        got = np.linalg.norm(t.to_tensor().ravel()[hidden] - truth)
        assert_below(got, share * of_mean, "held-out error against that of the mean")


# --- failures ---------------------------------------------------------------------------------------------


@DOORS
def test_noise_is_not_called_a_fit(complete):
    X = np.random.default_rng(55_004).standard_normal((20, 20, 20))
    with pytest.warns(ConvergenceWarning, match=r"does not predict.*best of 3 starts.*n_init") as caught:
        t = complete(X, 3, mask=chosen(X.shape, 0.2), n_init=3)
    assert_equal((len(caught), caught[0].filename), (1, __file__))
    assert_equal((t.info.converged, len(t.info.warnings)), (False, 1))
    assert_above(t.info.validation_error, 0.9, "validation error")


@DOORS
def test_too_few_entries_are_said_to_be_too_few(complete):
    X, mask = tensor((30, 30, 30), 4), chosen((30, 30, 30), 0.015)
    with pytest.warns(ConvergenceWarning, match="too few entries for this rank") as caught:
        t = complete(X, 4, mask=mask, n_init=3)
    assert_equal((len(caught), t.info.converged), (1, False))
    assert_above(error_at(t, X, ~mask), 0.5, "held-out error")
    assert_above(t.info.validation_error, 0.5, "validation error")


@pytest.mark.parametrize("shape", [(12, 11), (12, 1, 10)])
@pytest.mark.parametrize("seed", [0, 3, 4])
def test_a_core_of_one_number_of_noise_is_solved_and_not_called_a_fit(shape, seed):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal(shape)
    X[rng.random(shape) >= 0.6] = np.nan
    t = quietly(tucker_complete, X, 1)
    assert_equal((t.info.converged, t.info.reason), (False, "no fit that predicts"))
    assert_below(t.info.rel_error, 0.95, "relative error")


def test_two_entries_are_too_few_and_give_no_raw_error():
    X = np.full((4, 5), np.nan)
    X[0, 4], X[1, 4] = 0.13779878, 0.75935388
    t = quietly(tucker_complete, X, 1)
    assert_equal((t.info.converged, t.info.reason), (False, "no fit that predicts"))
    assert_equal(np.isfinite(t.to_tensor()).all(), np.True_)


@pytest.mark.parametrize("bad", [np.nan, 0.0])
def test_a_start_that_ends_in_nan_or_zero_loses_against_a_good_one(monkeypatch, bad):
    X, starts, draw = tensor((12, 13), 1), [], TuckerProblem.start

    def start(problem, rng):
        starts.append(draw(problem, rng))
        return starts[-1] if len(starts) > 1 else (starts[0][0] * bad, starts[0][1])

    monkeypatch.setattr(TuckerProblem, "start", start)
    t = tucker_complete(X, 1, mask=chosen(X.shape, 0.6))
    assert_above(len(starts), 2, "starts")
    assert_below(t.info.rel_error, 1e-6, "relative error")


@pytest.mark.slow
def test_a_fit_that_converges_predicts_better_than_zero():
    flags = []
    for seed in range(6):
        X, mask = tensor((20, 20, 20), 2, noise=0.01, seed=seed), chosen((20, 20, 20), 0.04, seed)
        t = quietly(cp_complete, X, 2, mask=mask, n_init=2)
        flags.append(t.info.converged)
        if t.info.converged:
            assert_below(error_at(t, X, ~mask), 0.9, "held-out error of a fit called converged")
    assert_above(sum(flags), 2, "fits called converged")


@pytest.mark.parametrize(
    ("train", "validation", "sound"),
    [
        (0.1, 0.29, True),
        (0.1, 0.31, False),  # more than three times
        (0.15, 0.42, True),
        (0.3, 0.58, True),
        (0.3, 0.62, False),  # more than twice, and large
        (0.9, 0.94, True),
        (0.9, 0.96, False),  # no better than zero
        (1e-12, 9e-6, True),  # small enough whatever the training error
        (1e-12, 2e-5, False),
    ],
)
def test_a_fit_is_sound_by_its_validation_error(train, validation, sound):
    assert_equal(search._Fit(None, train, validation).is_sound(0.95), sound)


def test_predictions_of_zero_and_of_the_mean_set_the_limit_of_the_validation_error():
    values = np.array([1.0, -1.0, 1.0, -1.0])
    around_zero = Observed((4, 1), (np.arange(4), np.zeros(4, int)), values)
    assert_close(search._limit(around_zero, around_zero), 0.95)
    far_from_zero = Observed((4, 1), around_zero.indices, values + 100)
    assert_close(search._limit(far_from_zero, far_from_zero), 1.05)


@DOORS
def test_an_error_that_still_falls_is_said(complete):
    X = tensor((20, 20, 20), 3, noise=0.3)
    with pytest.warns(ConvergenceWarning, match=r"max_iter=1 .*Raise max_iter") as caught:
        t = complete(X, 3, mask=chosen(X.shape, 0.4), max_iter=1)
    assert_equal((len(caught), t.info.converged, t.info.reason), (1, False, "max_iter reached"))
    again = quietly(complete, X, 3, mask=chosen(X.shape, 0.4), max_iter=3)
    assert_equal(again.info.n_iter - t.info.n_iter, 2)
    assert_equal(again.info.history[:-2], t.info.history)


# --- rows without entries ---------------------------------------------------------------------------------


@DOORS
def test_rows_without_entries_are_zero_and_named(complete):
    X, mask = tensor((20, 21, 22)), chosen((20, 21, 22), 0.3)
    mask[3], mask[:, :, 7:9] = False, False
    t = complete(X, 2, mask=mask)
    assert_equal(len(t.info.warnings), 2)
    assert_says(t.info.warnings[0], "1 of 20 rows of mode 0", ": 3.", "zero")
    assert_says(t.info.warnings[1], "2 of 22 rows of mode 2", ": 7, 8.")
    assert_equal(t.factors[0][3], np.zeros(2))
    assert_equal(t.factors[2][7:9], np.zeros((2, 2)))
    assert_equal(t.info.converged, True)
    seen = np.ones(X.shape, bool)
    seen[3], seen[:, :, 7:9] = False, False
    assert_below(error_at(t, X, seen), 1e-8, "error elsewhere")


def test_a_tucker_rank_above_the_rows_with_entries_is_refused():
    X = tensor((4, 20, 20))
    X[1] = np.nan
    with pytest.raises(RankError) as error:
        tucker_complete(X, (4, 2, 2))
    assert_says(error, "mode 0", "3 of 4", "got 4")


# --- equal inputs and invariances -------------------------------------------------------------------------


@DOORS
def test_mask_nan_and_coo_give_equal_results(complete):
    X, mask = tensor((15, 16, 17), noise=0.05), chosen((15, 16, 17), 0.3)
    indices = np.nonzero(mask)
    order = np.random.default_rng(0).permutation(len(indices[0]))
    coo = coo_array((X[indices][order], tuple(index[order] for index in indices)), shape=X.shape)
    want = complete(X, 2, mask=mask)
    for t in (complete(np.where(mask, X, np.nan), 2), complete(coo, 2)):
        assert_equal(t.info.history, want.info.history)
        for got, factor in zip(t.factors, want.factors, strict=True):
            assert_equal(got, factor)


@DOORS
def test_library_and_dtype_are_kept_and_the_input_is_untouched(complete, make):
    X, mask = make.asarray(tensor((15, 16, 17))), chosen((15, 16, 17), 0.3)
    before = to_numpy(X).copy()
    t = complete(X, 2, mask=make.index(mask) == 1)
    for array in (next(iter(t)), *t.factors):
        assert_same_kind(array, X)
    assert_equal(to_numpy(X), before)
    assert_relative(t.to_tensor(), X, 50 * make.eps if make.dtype == "float32" else 1e-8)
    truth = np.linalg.norm((to_numpy(t.to_tensor()).astype(float) - before)[mask]) / np.linalg.norm(
        before[mask]
    )
    assert_below(abs(t.info.rel_error - truth), 0.2 * truth + 2e-16, "reported error against the truth")


@DOORS
def test_bfloat16_of_torch_is_completed_and_returned_in_float32(complete):
    torch = pytest.importorskip("torch")
    X, mask = tensor((10, 11, 12), 1), chosen((10, 11, 12), 0.5)
    given = torch.from_numpy(np.where(mask, X, np.nan)).to(torch.bfloat16)
    t = complete(given, 1)
    assert_same_kind(t.factors[0], torch.ones(1))
    assert_below(error_at(t, X, ~mask), 5e-3, "held-out error, near the rounding of bfloat16")


@DOORS
def test_the_form_of_the_result_is_canonical(complete):
    t = complete(tensor((15, 16, 17), 3), 3, mask=chosen((15, 16, 17), 0.4))
    for factor in t.factors:
        norms = np.linalg.norm(factor, axis=0)
        assert_close(norms, np.ones(3))
        if complete is tucker_complete:
            assert_close(factor.T @ factor, np.eye(3))
    if complete is tucker_complete:
        for n in range(3):
            energy = np.sum(t.core**2, axis=tuple(m for m in range(3) if m != n))
            assert_equal(list(np.argsort(-energy)), [0, 1, 2])
    else:
        assert_equal(list(np.argsort(-t.weights)), [0, 1, 2])


@DOORS
def test_permuted_modes_give_the_permuted_fit(complete):
    X, mask = tensor((15, 16, 17), noise=0.05), chosen((15, 16, 17), 0.3)
    straight = complete(X, 2, mask=mask, tol=1e-9).to_tensor()
    turned = complete(X.transpose(2, 0, 1), 2, mask=mask.transpose(2, 0, 1), tol=1e-9).to_tensor()
    assert_relative(turned.transpose(1, 2, 0), straight, 1e-5)


@cache
def unscaled(complete):
    X, mask = tensor((15, 16, 17), noise=0.05), chosen((15, 16, 17), 0.3)
    return X, mask, complete(X, 2, mask=mask)


@DOORS
@pytest.mark.parametrize("scale", [2.0**-40, -(2.0**30), 1e-200, 1e200])
def test_scaled_values_give_the_scaled_fit(complete, scale):
    X, mask, want = unscaled(complete)
    t = complete(scale * X, 2, mask=mask)
    assert_relative(t.to_tensor() / scale, want.to_tensor(), 1e-9)
    assert_close(t.info.rel_error, want.info.rel_error, 1e7)


@DOORS
def test_an_offset_of_all_values_is_fitted_and_not_called_a_failure(complete):
    X = 100 + np.random.default_rng(55_005).standard_normal((12, 12, 12))
    t = complete(X, 1, mask=chosen(X.shape, 0.5))
    assert_equal(t.info.converged, True)
    assert_relative(t.to_tensor(), np.full(X.shape, 100.0), 5e-3)


@DOORS
def test_the_same_random_state_gives_the_same_fit_and_the_global_generator_is_untouched(complete):
    X, mask = tensor((15, 16, 17), 3, noise=0.1), chosen((15, 16, 17), 0.2)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again = complete(X, 3, mask=mask), complete(X, 3, mask=mask)
    other = complete(X, 3, mask=mask, random_state=np.random.default_rng(9))
    assert_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert_equal(first.to_tensor(), again.to_tensor())
    assert np.any(first.to_tensor() != other.to_tensor())


@DOORS
def test_entries_that_are_all_zero_give_zero(complete):
    t = complete(np.zeros((4, 5, 6)), 2, mask=chosen((4, 5, 6), 0.5))
    assert_equal(t.to_tensor(), np.zeros((4, 5, 6)))
    assert_equal((t.info.converged, t.info.rel_error), (True, 0.0))


def test_a_tensor_far_too_large_to_be_formed_is_completed():
    shape, rng = (40_000, 50_000, 30), np.random.default_rng(55_006)
    factors = [rng.standard_normal((size, 1)) for size in (60, 70, 30)]
    rows = [rng.choice(size, len(f), replace=False) for f, size in zip(factors, shape, strict=True)]
    inside = rng.integers((60, 70, 30), size=(6000, 3)).T
    inside = np.unique(inside, axis=1)
    values = np.prod([f[i, 0] for f, i in zip(factors, inside, strict=True)], axis=0)
    X = coo_array((values, tuple(row[i] for row, i in zip(rows, inside, strict=True))), shape=shape)
    t = cp_complete(X, 1)
    for factor, row, want in zip(t.factors, rows, factors, strict=True):
        cosine = factor[row][:, 0] @ want[:, 0] / np.linalg.norm(want)
        assert_above(abs(cosine), 1 - 1e-10, "cosine between found and true factor")


# --- options ----------------------------------------------------------------------------------------------


@DOORS
@pytest.mark.parametrize(
    ("options", "error", "parts"),
    [
        ({"rank": 0}, RankError, ["rank", "1 or more"]),
        ({"rank": 2.5}, RankError, ["integer"]),
        ({"n_init": 0}, ValueError, ["n_init", "1 or more", "0"]),
        ({"max_iter": 1.5}, ValueError, ["max_iter", "1.5"]),
        ({"tol": 0}, RankError, ["tol", "0"]),
        ({"holdout": 0}, ValueError, ["holdout", "at most 0.5"]),
        ({"holdout": 0.6}, ValueError, ["holdout", "0.6"]),
        ({"holdout": True}, ValueError, ["holdout", "True"]),
        ({"holdout": "half"}, ValueError, ["holdout", "'half'"]),
        ({"random_state": -1}, ValueError, ["random_state"]),
        ({"random_state": "a"}, TypeError, ["random_state"]),
    ],
)
def test_bad_options_are_refused(complete, options, error, parts):
    with pytest.raises(error) as caught:
        complete(tensor((5, 6, 7)), **{"rank": 2, **options})
    assert_says(caught, *parts)


def test_a_cp_rank_above_the_number_of_entries_is_refused():
    X = np.array([[1.0, np.nan, 2.0], [np.nan, 3.0, np.nan]])
    assert_equal(quietly(cp_complete, X, 3, n_init=1).rank, 3)
    with pytest.raises(RankError, match="at most the number of observed entries, 3; got 4"):
        cp_complete(X, 4)


@DOORS
def test_one_entry_is_refused(complete):
    X = np.full((3, 4), np.nan)
    X[1, 2] = 1.0
    with pytest.raises(DataError, match="at least two observed entries"):
        complete(X, 1)


def test_a_tucker_rank_above_the_size_is_refused():
    with pytest.raises(RankError, match="mode 0 must be at most its size, 5; got 6"):
        tucker_complete(tensor((5, 6, 7)), 6)
