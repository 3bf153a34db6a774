"""``KroneckerSBL`` without a Kronecker support and with measurements missing, against dense formulas."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone

import tenfac
from tenfac import KroneckerSBL
from tenfac.bayes.sparse.unstructured import fit_unstructured
from tenfac.core.errors import ConvergenceWarning, DataError, ShapeError
from tests.bayes.sparse.toys_masked import dense, dense_evidence, dense_posterior, draw, problem
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_says

ROWS, COLUMNS = (6, 7, 5), (8, 9, 7)


def fitted(prior: str, complex_: bool, share: float, snapshots: int = 3) -> tuple[Any, ...]:
    """A model, its factors, measurements and mask, and variances of all unknowns."""
    box = (2, 2, 2) if prior == "kronecker" else None
    factors, y, _ = problem(1, ROWS, COLUMNS, 6, snapshots=snapshots, complex_=complex_, box=box)
    mask = np.random.default_rng(2).random(ROWS) < share
    measured = np.where(mask[..., None], y, np.nan)
    model = KroneckerSBL(prior=prior).fit(factors, measured, snapshots=True, mask=mask)
    gammas = np.zeros(COLUMNS)
    if prior == "kronecker":
        gammas = np.einsum("i,j,k->ijk", *model.gammas_)
    else:
        gammas[model.support_] = model.gammas_[0]
    return model, factors, y, mask, gammas.reshape(-1)


VARIANTS = [
    ("kronecker", False, 0.8),
    ("kronecker", True, 0.4),
    ("unstructured", True, 0.7),
    ("unstructured", False, 2.0),
]


@pytest.mark.parametrize(("prior", "complex_", "share"), VARIANTS)
def test_mean_variances_evidence_and_draws_are_those_of_dense_matrices(
    prior: str, complex_: bool, share: float
) -> None:
    model, factors, y, mask, gammas = fitted(prior, complex_, share)
    matrix, flat = dense(factors, mask), y[mask]
    mean, covariance = dense_posterior(matrix, flat, gammas, model.noise_**2)
    assert_close(model.coef_tensor(), mean.reshape(*COLUMNS, 3), 1e5)
    variances = np.diag(covariance).real.reshape(COLUMNS)
    assert_close(model.coef_var("all"), variances, 1e5)
    assert_close(model.coef_std_**2, model.coef_var(), 10)
    places = np.array([0, 5, *np.argsort(gammas)[-3:]])
    index = np.unravel_index(places, COLUMNS)
    assert_close(model.coef_var(index), variances[index], 1e5)
    assert_close(model.log_evidence_, dense_evidence(matrix, flat, gammas, model.noise_**2), 1e5)
    draws = model.sample(4000, random_state=0)
    spread = np.mean(abs(draws - model.coef_) ** 2, axis=(0, -1))
    assert_below(
        abs(np.log(spread / model.coef_var())).max(), 6 * math.sqrt(2 / 12000), "log error of variances"
    )


@pytest.mark.parametrize(("prior", "complex_", "share"), VARIANTS)
def test_predictions_scores_and_gains_are_those_of_dense_matrices(
    prior: str, complex_: bool, share: float
) -> None:
    model, factors, y, mask, gammas = fitted(prior, complex_, share)
    mean = model.coef_tensor().reshape(-1, 3)
    assert_close(model.predict(), (dense(factors) @ mean).reshape(y.shape), 1e4)
    other = [
        draw(np.random.default_rng(3), (m, n), complex_) for m, n in zip((2, 3, 4), COLUMNS, strict=True)
    ]
    assert_close(model.predict(other), (dense(other) @ mean).reshape(2, 3, 4, 3), 1e4)
    fresh = draw(np.random.default_rng(4), (2, 3, 4, 3), complex_)
    want = dense_evidence(dense(other), fresh.reshape(-1, 3), gammas, model.noise_**2)
    assert_close(model.log_evidence(other, fresh), want, 1e5)
    assert_above(model.score(factors, y), 0.9, "R squared")
    left = (y - model.predict())[mask]
    assert_close(model.info_.rel_error, np.linalg.norm(left) / np.linalg.norm(y[mask]), 1e4)
    if prior == "unstructured":
        less = gammas.copy()
        less[np.flatnonzero(gammas)[0]] = 0.0
    else:
        shape = [gamma.copy() for gamma in model.gammas_]
        shape[0][model.support_[0][0]] = 0.0
        less = np.einsum("i,j,k->ijk", *shape).reshape(-1)
    lost = model.log_evidence_ - dense_evidence(dense(factors, mask), y[mask], less, model.noise_**2)
    assert_close(model.column_gain_[0][0], lost, 1e6)


@pytest.mark.parametrize("prior", ["kronecker", "unstructured"])
def test_a_saved_model_answers_the_same(prior: str, tmp_path: Path) -> None:
    model = fitted(prior, True, 0.7)[0]
    tenfac.save(model, tmp_path / "model")
    loaded = tenfac.load(tmp_path / "model")
    assert_equal(loaded.coef_tensor(), model.coef_tensor())
    assert_equal(loaded.predict(), model.predict())
    assert_equal(loaded.sample(3), model.sample(3))
    assert_equal(loaded.coef_var("all"), model.coef_var("all"))
    assert_equal((loaded.get_params()["prior"], loaded.info_), (prior, model.info_))
    assert_equal(clone(loaded).get_params(), model.get_params())


@pytest.mark.parametrize("prior", ["kronecker", "unstructured"])
def test_results_come_back_in_the_library_and_precision_of_the_measurements(make: Any, prior: str) -> None:
    factors, y, x = problem(5, (6, 7), (8, 9), 3, box=(2, 2))
    mask = np.random.default_rng(6).random((6, 7)) < 0.9
    like = make.asarray(y[..., 0])
    there = make.index(mask) == 1
    model = KroneckerSBL(prior=prior).fit([make.asarray(f) for f in factors], like, mask=there)
    assert_close(model.coef_tensor(), x.reshape(8, 9), 0.5 / make.eps, like=like)
    for got in (model.coef_std_, model.predict(), model.sample(2), model.coef_var("all"), model.gammas_[0]):
        assert_equal((type(got), got.dtype), (type(like), like.dtype))


def test_a_full_mask_is_no_mask() -> None:
    factors, y, _ = problem(7, (6, 7), (8, 9), box=(2, 2))
    whole = KroneckerSBL().fit(factors, y[..., 0], mask=np.ones((6, 7), dtype=bool))
    assert_equal(whole.coef_, KroneckerSBL().fit(factors, y[..., 0]).coef_)


def test_a_flat_mask_and_flat_measurements_are_those_of_the_grid() -> None:
    factors, y, _ = problem(8, (6, 7), (8, 9), box=(2, 2))
    mask = np.random.default_rng(9).random((6, 7)) < 0.8
    flat = KroneckerSBL().fit(factors, y.reshape(-1), mask=mask.reshape(-1))
    assert_equal(flat.coef_, KroneckerSBL().fit(factors, y[..., 0], mask=mask).coef_)


def test_no_measurement_but_zeros_gives_an_empty_model() -> None:
    for settings in ({"prior": "unstructured"}, {}):
        mask = np.array([True, True, False])
        model = KroneckerSBL(**settings).fit([np.eye(3)], np.array([0.0, 0.0, np.nan]), mask=mask)
        assert_equal(model.coef_tensor(), np.zeros(3))
        assert_equal((model.noise_, model.sample(2).shape, model.predict().shape), (0.0, (2, 0), (3,)))


@pytest.mark.parametrize("share", [0.8, 2.0])
def test_measurements_that_are_all_noise_give_an_empty_unstructured_model(share: float) -> None:
    factors, y, _ = problem(7, (6, 7), (8, 9), box=(2, 2))
    mask = np.random.default_rng(2).random((6, 7)) < share
    model = KroneckerSBL(prior="unstructured", noise=1e3).fit(factors, y[..., 0], mask=mask)
    assert_equal((model.coef_.shape, model.sample(2).shape), ((0,), (2, 0)))
    assert_equal(model.predict(), np.zeros((6, 7)))
    empty = dense_evidence(np.zeros((int(mask.sum()), 1)), y[mask], np.ones(1), 1e6)
    assert_close(model.log_evidence_, empty, 1e3)


@pytest.mark.parametrize("prior", ["kronecker", "unstructured"])
def test_noise_below_what_dense_algebra_resolves_is_refused(prior: str) -> None:
    factors, y, _ = problem(7, (6, 7), (8, 9), box=(2, 2))
    mask = np.random.default_rng(2).random((6, 7)) < 0.8
    with pytest.raises(DataError, match=r"noise.*rounding"):
        KroneckerSBL(prior=prior, noise=1e-9).fit(factors, y[..., 0], mask=mask)
    KroneckerSBL(noise=1e-9).fit(factors, y[..., 0])  # the exact algorithm can


@pytest.mark.parametrize("share", [pytest.param(0.9, marks=pytest.mark.slow), 2.0])
def test_scattered_unknowns_are_warned_of_and_the_other_prior_is_better(share: float) -> None:
    rows, columns = (8, 9, 7), (10, 10, 10)
    factors, y, x = problem(10, rows, columns, 12)
    mask = np.random.default_rng(11).random(rows) < share
    with pytest.warns(UserWarning, match="does not look Kronecker.*prior='unstructured'"):
        box = KroneckerSBL().fit(factors, y[..., 0], mask=mask)
    assert_says(box.info_.warnings[-1], "does not look Kronecker")
    free = KroneckerSBL(prior="unstructured").fit(factors, y[..., 0], mask=mask)
    errors = [np.sum((model.coef_tensor().reshape(-1) - x[:, 0]) ** 2) for model in (free, box)]
    assert_below(errors[0], 0.2 * errors[1], "error of the unstructured prior")
    assert_equal(free.coef_, fit_unstructured(factors, y, mask=mask, tol=free.tol).mean[:, 0])


def test_the_support_that_a_published_algorithm_finds_is_not_judged() -> None:
    factors, y, _ = problem(10, (8, 9, 7), (10, 10, 10), 12)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        KroneckerSBL(update="em_am").fit(factors, y[..., 0])
    assert_equal([one.category for one in said], [ConvergenceWarning])


@pytest.mark.parametrize(
    ("settings", "mask", "error", "words"),
    [
        ({"prior": "unstructurd"}, None, DataError, ["prior", "unstructurd", "Did you mean 'unstructured'?"]),
        ({}, np.ones((2, 2), dtype=bool), ShapeError, ["mask", "(3, 2)", "(2, 2)"]),
        ({}, np.ones((3, 2)), ShapeError, ["mask", "boolean", "float64"]),
        (
            {},
            np.zeros((3, 2), dtype=bool),
            DataError,
            ["KroneckerSBL.fit: something must", "False everywhere"],
        ),
        ({"n_hops": 2}, np.eye(3, 2, dtype=bool), DataError, ["hops", "a mask", "n_hops=2"]),
        (
            {"prior": "unstructured", "coupling": [None, np.eye(2)]},
            None,
            DataError,
            ["coupling", "unstructured"],
        ),
    ],
)
def test_bad_input_is_refused(
    settings: dict[str, Any], mask: Any, error: type[Exception], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        KroneckerSBL(**settings).fit([np.eye(3), np.eye(2)], np.ones((3, 2)), mask=mask)
    assert_says(caught, *words)


def test_missing_measurements_that_no_mask_leaves_out_are_refused() -> None:
    y = np.array([1.0, np.nan, 3.0])
    for mask in (None, np.array([False, True, True])):
        with pytest.raises(DataError) as caught:
            KroneckerSBL().fit([np.eye(3)], y, mask=mask)
        assert_says(caught, "Y must be finite")


@pytest.mark.parametrize(("prior", "share"), [("kronecker", 0.8), ("unstructured", 2.0)])
def test_a_fit_that_did_not_converge_is_warned_of_once_and_in_the_name_of_the_estimator(
    prior: str, share: float
) -> None:
    rows = (8, 9)
    factors, y, _ = problem(3, rows, (12, 12), 6)
    mask = np.random.default_rng(4).random(rows) < share
    with pytest.warns() as caught:
        model = KroneckerSBL(prior=prior, max_iter=1, tol=1e-300).fit(factors, y[..., 0], mask=mask)
    said = [str(one.message) for one in caught if issubclass(one.category, ConvergenceWarning)]
    assert_equal(len(said), 1)
    assert_says(said[0], "KroneckerSBL: not converged after", "Raise max_iter")
    assert_equal(("nan" in said[0], model.info_.converged, model.info_.warnings[0]), (False, False, said[0]))
