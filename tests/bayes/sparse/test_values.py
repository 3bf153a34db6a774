"""Low-rank coefficients on the support: estimate, standard errors and criterion against dense formulas."""

from __future__ import annotations

import math
from typing import Any

import array_api_compat.numpy as xp
import numpy as np
import pytest

import tenfac
from tenfac import DataError, KroneckerSBL
from tenfac.bayes.sparse.box import Box
from tenfac.bayes.sparse.values import structured
from tenfac.datasets import make_irs_channel, make_kronecker_sparse
from tests.bayes.sparse.dense import kron_dense, sparse_problem
from tests.checks import (
    assert_above,
    assert_below,
    assert_close,
    assert_equal,
    assert_relative,
    assert_same_kind,
    quietly,
    to_numpy,
)

NOISE = 1e-4
# Name that "auto" should find; sizes of the box, snapshots last; ranks of a Tucker array, or terms.
CASES = [
    ("rank1", (3, 2, 4, 1), (1, 1, 1, 1)),
    ("rank1", (3, 2, 2), (1, 1, 1)),
    ("tucker(2, 2)", (4, 5, 1), (2, 2, 1)),
    ("tucker(2, 2, 3)", (3, 4, 4), (2, 2, 3)),
    ("tucker(2, 1, 2)", (4, 3, 4, 1), (2, 1, 2, 1)),
    ("cp(3)", (4, 4, 4, 1), 3),
    ("cp(2)", (2, 3, 2, 3), 2),
    ("full", (3, 2, 3, 1), (3, 2, 3, 1)),
]


def normal(rng: np.random.Generator, *shape: int, complex_: bool) -> np.ndarray:
    values = rng.standard_normal(shape)
    return (values + 1j * rng.standard_normal(shape)) / np.sqrt(2) if complex_ else values


def low_rank(rng: np.random.Generator, sizes: Any, ranks: Any, complex_: bool) -> np.ndarray:
    vectors = [normal(rng, z, ranks if isinstance(ranks, int) else ranks[i], complex_=complex_)
               for i, z in enumerate(sizes)]  # fmt: skip
    if isinstance(ranks, int):
        return sum(kron_dense([v[:, r] for v in vectors]).reshape(sizes) for r in range(ranks))
    return (kron_dense(vectors) @ normal(rng, math.prod(ranks), complex_=complex_)).reshape(sizes)


def box_of(sizes: Any, ranks: Any, complex_: bool) -> tuple[Box, np.ndarray, np.ndarray]:
    """A box of tall factors, its measurements, and the dense matrix of both."""
    rng = np.random.default_rng(0)
    factors = [normal(rng, z + 2, z, complex_=complex_) for z in sizes[:-1]]
    X = low_rank(rng, sizes, ranks, complex_)
    A = kron_dense([*factors, np.eye(sizes[-1])])
    shape = (*(len(one) for one in factors), sizes[-1])
    y = (A @ X.reshape(-1)).reshape(shape) + math.sqrt(NOISE) * normal(rng, *shape, complex_=complex_)
    gammas = tuple(np.ones(z) for z in sizes[:-1])
    return Box(X, tuple(factors), gammas, NOISE, xp), y, A


def tangents(X: np.ndarray, ranks: Any) -> np.ndarray:
    """Derivatives of a low-rank array by all numbers in it, as columns."""
    if isinstance(ranks, int):
        found = tenfac.cp(X, ranks)
        cores = [np.ones(())] * ranks
        terms = [[v[:, r : r + 1] for v in found.factors] for r in range(ranks)]
    else:
        unfolded = [np.moveaxis(X, n, 0).reshape(X.shape[n], -1) for n in range(X.ndim)]
        vectors = [np.linalg.svd(one)[0][:, :r] for one, r in zip(unfolded, ranks, strict=True)]
        cores = [(kron_dense(vectors).conj().T @ X.reshape(-1)).reshape(ranks)]
        terms = [vectors]
    columns = []
    for core, vectors in zip(cores, terms, strict=True):
        columns.append(kron_dense(vectors))
        for n, v in enumerate(vectors):
            for j, r in np.ndindex(*v.shape):
                one = np.zeros(v.shape)
                one[j, r] = 1.0
                moved = [one if k == n else w for k, w in enumerate(vectors)]
                columns.append(kron_dense(moved) @ core.reshape(-1, 1))
    return np.concatenate(columns, axis=1)


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize(("name", "sizes", "ranks"), CASES[:-1])
def test_estimate_and_errors_of_each_structure_are_those_of_dense_least_squares(
    name: str, sizes: Any, ranks: Any, complex_: bool
) -> None:
    box, y, A = box_of(sizes, ranks, complex_)
    found = structured(box, y, "auto")
    assert_equal(found.name, name)
    J = tangents(found.box.mean, ranks)
    slope = J.conj().T @ A.conj().T @ (y.reshape(-1) - A @ found.box.mean.reshape(-1))
    largest = np.linalg.norm(A @ J) * np.linalg.norm(y)
    assert_below(np.max(np.abs(slope)) / largest, 1e-8, "slope of the squared residual")
    axes = np.linalg.svd(J, full_matrices=False)
    J = axes[0][:, axes[1] > 1e-8 * axes[1][0]]
    covariance = NOISE * J @ np.linalg.inv(J.conj().T @ A.conj().T @ A @ J) @ J.conj().T
    want = np.diag(covariance).real.reshape(sizes)
    assert_relative(found.box.variances(), want if sizes[-1] > 1 else want[..., 0], 1e-6)
    draws = found.box.draws(1000, np.random.default_rng(0)) - found.box.mean
    draws = draws.reshape(len(draws), -1)
    error = np.abs(draws.T @ draws.conj() / len(draws) - covariance)
    spread = np.sqrt(np.diag(covariance).real)
    assert_below(np.max(error / np.outer(spread, spread)), 0.18, "error of a correlation")
    double = 1 + complex_
    numbers = double * J.shape[1] * math.log(double * y.size)
    left = np.linalg.norm(y.reshape(-1) - A @ found.box.mean.reshape(-1)) ** 2
    likelihood = double / 2 * (y.size * math.log(2 * math.pi * NOISE / double) + left / NOISE)
    assert_relative(np.array(found.bic[name]), np.array(2 * likelihood + numbers), 1e-9)


@pytest.mark.parametrize("complex_", [False, True])
def test_free_values_stay_the_posterior_mean(complex_: bool) -> None:
    box, y, _ = box_of(*CASES[-1][1:], complex_)
    found = structured(box, y, "auto")
    assert_equal((found.name, found.box), ("full", box))
    factors, y, _, _ = sparse_problem((8, 7, 6), (12, 10, 9), 2, complex_=complex_)
    free = KroneckerSBL().fit(factors, y[..., 0])
    auto = KroneckerSBL(values="auto").fit(factors, y[..., 0])
    assert_equal(auto.values_, "full")
    assert_equal(auto.coef_, free.coef_)
    assert_equal(auto.coef_std_, free.coef_std_)
    assert_below(auto.values_bic_["full"], auto.values_bic_["rank1"], "BIC of free values")


def test_rank_one_coefficients_are_found_better_and_answer_everything(make: Any, tmp_path: Any) -> None:
    made = make_kronecker_sparse((9, 8, 8), 10, 3, snr_db=15, values="rank1", random_state=0)
    factors, y = [make.asarray(a) for a in made.factors], make.asarray(made.y)
    free, model = KroneckerSBL().fit(factors, y), KroneckerSBL(values="auto").fit(factors, y)
    assert_equal(model.values_, "rank1")
    assert_same_kind(model.coef_, y)
    truth = made.coef_tensor()
    errors = [np.linalg.norm(to_numpy(one.coef_tensor()) - truth) for one in (model, free)]
    assert_below(errors[0], 0.6 * errors[1], "error of rank one")
    assert_below(to_numpy(model.coef_std_).mean(), 0.6 * to_numpy(free.coef_std_).mean(), "standard error")
    assert_above(model.info_.rel_error, free.info_.rel_error, "residual of rank one")
    left = np.linalg.norm(made.y - to_numpy(model.predict())) / np.linalg.norm(made.y)
    assert_relative(np.array(left), np.array(model.info_.rel_error), 1e-5)
    places = [[int(one[0]), int(one[-1])] for one in model.support_]
    corners = np.array([to_numpy(model.coef_std_)[(i,) * 3] ** 2 for i in (0, -1)])
    assert_relative(to_numpy(model.coef_var(places)), corners, 1e-5)
    tenfac.save(model, tmp_path / "x.tenfac")
    back = tenfac.load(tmp_path / "x.tenfac")
    assert_equal((back.values_, back.values_bic_), (model.values_, model.values_bic_))
    assert_equal(back.sample(2), model.sample(2))
    assert_equal(back.predict(factors), model.predict(factors))


def test_snapshots_of_one_pattern_have_errors_each() -> None:
    factors, y, support, _ = sparse_problem((8, 7), (10, 9), 2)
    active = [a[:, s] for a, s in zip(factors, support, strict=True)]
    X = np.einsum("i,j,t->ijt", [1.0, 2.0], [1.0, -1.0], [1.0, 3.0, 0.1])
    rng = np.random.default_rng(0)
    y = (kron_dense(active) @ X.reshape(4, 3)).reshape(8, 7, 3) + 0.05 * rng.standard_normal((8, 7, 3))
    model = KroneckerSBL(values="rank1").fit(factors, y, snapshots=True)
    assert_equal((model.coef_.shape, model.coef_std_.shape), ((2, 2, 3), (2, 2, 3)))
    assert_below(np.max(np.abs(model.coef_ - X) / model.coef_std_), 4.0, "standard errors away")
    assert_equal(model.coef_var([[support[0][0], 99 % 10], [support[1][0], 0]]).shape, (2, 3))
    assert_equal(model.coef_var("all").shape, (10, 9, 3))
    assert_equal(model.sample(2).shape, (2, 2, 2, 3))


def test_dependent_and_too_many_columns_do_no_harm() -> None:
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((3, 6)), rng.standard_normal((4, 4))
    y = np.outer(A[:, 1], B @ rng.standard_normal(4))
    model = quietly(KroneckerSBL(values="rank1", prune_alpha=0, max_iter=3).fit, [A, B], y)
    assert_above(model.coef_.shape[0], 4, "columns of the first mode")
    assert_relative(model.predict(), y, 1e-8)
    assert_equal(bool(np.isfinite(model.coef_std_).all()), True)
    twins = np.stack([A[:, 0], A[:, 0], A[:, 1]], axis=1)
    X, gammas = np.zeros((3, 4, 1)), (np.ones(3), np.ones(4))
    found = structured(Box(X, (twins, B), gammas, NOISE, xp), np.outer(A[:, 0], B[:, 0])[..., None], "rank1")
    want = np.outer([0.5, 0.5, 0.0], [1.0, 0.0, 0.0, 0.0])
    assert_close(found.box.mean, want[..., None], 1e4)
    assert_below(np.max(found.box.variances()), 1.0, "variance of a coefficient")


def test_one_mode_and_an_empty_model_are_full() -> None:
    model = KroneckerSBL(values="auto").fit([np.eye(3)], np.array([5.0, 0.0, 0.0]))
    assert_equal((model.values_, sorted(model.values_bic_)), ("full", ["full", "rank1"]))
    model = KroneckerSBL(values="rank1").fit([np.eye(3), np.eye(2)], np.zeros((3, 2)))
    assert_equal((model.values_, model.values_bic_, model.coef_.shape), ("full", {}, (0, 0)))


def test_values_are_refused_where_they_are_not_available() -> None:
    with pytest.raises(DataError, match=r"`values`.*Did you mean 'rank1'"):
        KroneckerSBL(values="rank_1").fit([np.eye(2)], np.ones(2))
    with pytest.raises(DataError, match=r"values='rank1' is not available with the unstructured prior"):
        KroneckerSBL(values="rank1", prior="unstructured").fit([np.eye(2)], np.ones(2))
    mask = np.array([True, False])
    with pytest.raises(DataError, match=r"values='auto' is not available with a mask"):
        KroneckerSBL(values="auto").fit([np.eye(2)], np.ones(2), mask=mask)


def test_values_go_with_the_published_algorithms() -> None:
    made = make_kronecker_sparse((8, 9), 10, 2, snr_db=25, values="rank1", random_state=1)
    free = quietly(KroneckerSBL(update="em_svd", noise=made.noise).fit, made.factors, made.y)
    model = quietly(KroneckerSBL(update="em_svd", noise=made.noise, values="rank1").fit, made.factors, made.y)
    assert_equal((free.values_, model.values_), ("full", "rank1"))
    assert_equal(np.linalg.matrix_rank(model.coef_), 1)
    assert_close(model.log_evidence_, free.log_evidence_, 1)


@pytest.mark.slow
@pytest.mark.parametrize("snr_db", [5.0, 20.0])
def test_intervals_of_rank_one_coefficients_cover_the_truth(snr_db: float) -> None:
    hits = []
    for seed in range(40):
        made = make_kronecker_sparse((14, 12, 15), 15, 3, snr_db=snr_db, values="rank1", random_state=seed)
        model = KroneckerSBL(values="rank1").fit(made.factors, made.y)
        truth = made.coef_tensor()[np.ix_(*model.support_)]
        hits.append(np.mean(np.abs(model.coef_ - truth) < 1.96 * model.coef_std_))
    assert_above(np.mean(hits), 0.9, "share inside the 95 % intervals")
    assert_below(np.mean(hits), 0.98, "share inside the 95 % intervals")


@pytest.mark.slow
@pytest.mark.parametrize(("snr_db", "most"), [(4.0, 0.055), (12.0, 0.0055), (20.0, 0.0007)])
def test_rank_one_values_of_the_irs_channel(snr_db: float, most: float) -> None:
    errors = []
    for seed in range(30):
        made = make_irs_channel(snr_db, random_state=seed)
        model = quietly(KroneckerSBL(values="auto").fit, made.factors, made.y)
        errors.append(made.channel_nmse(model.coef_tensor()))
    assert_below(np.mean(errors), most, "mean NMSE")
