"""The estimator: posterior against dense formulas, invariances, bad input, files."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import tenfac
from tenfac import ConvergenceWarning, DataError, KroneckerOperator, KroneckerSBL, ShapeError
from tenfac.bayes.sparse.em import em_am, em_svd
from tests.bayes.sparse.dense import Dense, kron_dense, sparse_problem
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

MODES = [((12,), (20,)), ((8, 9), (12, 14)), ((8, 7, 6), (12, 10, 9)), ((5, 4, 6, 5), (7, 8, 6, 7))]


def dense_of(model: KroneckerSBL, factors: list[Any], y: np.ndarray) -> Dense:
    """The dense problem on the active columns at the learned hyperparameters."""
    active = [a[:, s] for a, s in zip(factors, model.support_, strict=True)]
    gammas = [g[s] for g, s in zip(model.gammas_, model.support_, strict=True)]
    return Dense(kron_dense(active), y, kron_dense(gammas).ravel(), model.noise_**2)


def lists(support: Any) -> list[list[int]]:
    return [to_numpy(one).tolist() for one in support]


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize(("rows", "columns"), MODES)
def test_mean_variances_and_evidence_are_those_of_dense_matrices(
    rows: Any, columns: Any, complex_: bool
) -> None:
    factors, y, support, _ = sparse_problem(rows, columns, 2, snapshots=3, complex_=complex_)
    model = KroneckerSBL().fit(factors, y, snapshots=True)
    assert_equal(lists(model.support_), lists(support))
    dense = dense_of(model, factors, y.reshape(-1, 3))
    variances = np.diag(dense.posterior).real.reshape(model.coef_.shape[:-1])
    assert_close(model.coef_, dense.mean.reshape(model.coef_.shape), 1e5)
    assert_close(model.coef_var(), variances, 1e5)
    assert_close(model.coef_std_, np.sqrt(variances), 1e5)
    assert_close(model.log_evidence_, dense.evidence, 1e4)
    assert_close(model.log_evidence(factors, y), model.log_evidence_, 1e4)
    assert_close(model.predict(), (dense.A @ dense.mean).reshape(y.shape), 1e5)


def test_variances_where_columns_outnumber_measurements_are_those_of_dense_matrices() -> None:
    factors, y, _, _ = sparse_problem((3, 4), (6, 4), 3, seed=2)
    model = quietly(KroneckerSBL(prune_alpha=0, max_iter=3).fit, factors, y[..., 0])
    dense = dense_of(model, factors, y.reshape(-1, 1))
    assert_above(model.coef_.shape[0], 4, "columns of the first mode")
    want = np.diag(dense.posterior).reshape(model.coef_.shape)
    assert_close(model.coef_var(), want, 1e4)


def test_the_evidence_never_falls_without_pruning() -> None:
    for seed in range(3):
        factors, y, _, _ = sparse_problem((5, 4, 6), (9, 8, 9), 2, seed=seed, snr_db=10)
        trace = KroneckerSBL(prune_alpha=0).fit(factors, y[..., 0]).evidence_trace_
        assert_above(min(b - a for a, b in pairwise(trace)), -1e-9 * abs(trace[-1]), "least gain of a sweep")


def test_both_updates_reach_the_same_evidence() -> None:
    factors, y, support, _ = sparse_problem((8, 7), (12, 10), 2, snr_db=15)
    found = [
        KroneckerSBL(update=update, tol=1e-8, max_iter=5000).fit(factors, y[..., 0])
        for update in ("fixed_point", "mm")
    ]
    assert_equal([lists(model.support_) for model in found], [lists(support)] * 2)
    assert_below(abs(found[0].log_evidence_ - found[1].log_evidence_), 1e-4, "nats between the updates")


@pytest.mark.parametrize(("update", "replica"), [("em_am", em_am), ("em_svd", em_svd)])
def test_the_published_algorithms_are_behind_the_same_door(update: str, replica: Any) -> None:
    factors, y, _, _ = sparse_problem((6, 7), (8, 9), 2, snapshots=2)
    model = quietly(KroneckerSBL(update=update, noise=0.1).fit, factors, y, snapshots=True)
    solution, X = replica(factors, y, 0.1, snapshots=True)
    assert_relative(model.coef_tensor(), X, 1e-9)
    assert_equal((model.n_iter_, model.log_evidence_), (solution.n_iter, solution.evidence))
    assert_close(model.log_evidence(factors, y), solution.evidence, 1e5)
    assert_equal(KroneckerSBL(update=update).fit(factors, 0 * y[..., 0]).coef_.shape, (0, 0))


# --- what must not matter ---------------------------------------------------------------------------------


def test_input_of_any_library_and_dtype_gives_the_same_model_back_in_kind(make: Any) -> None:
    factors, y, support, _ = sparse_problem((8, 9), (12, 14), 2)
    want = KroneckerSBL().fit(factors, y[..., 0])
    model = KroneckerSBL().fit([make.asarray(a) for a in factors], make.asarray(y[..., 0]))
    assert_equal(lists(model.support_), lists(support))
    assert_close(model.coef_, want.coef_, 100, like=make.asarray(y))
    assert_same_kind(model.gammas_[0], make.asarray(y))
    assert_same_kind(model.predict(), make.asarray(y))
    assert_same_kind(model.sample(2), make.asarray(y))
    assert_close(model.coef_var("all"), to_numpy(want.coef_var("all")), 1e3, like=make.asarray(y))


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_unit_of_the_measurements_does_not_matter(scale: float) -> None:
    factors, y, _, _ = sparse_problem((6, 5, 4), (8, 7, 6), 2, snr_db=15)
    one = KroneckerSBL().fit(factors, y[..., 0])
    other = KroneckerSBL().fit(factors, y[..., 0] * scale)
    assert_equal(lists(other.support_), lists(one.support_))
    assert_close(other.coef_, one.coef_ * scale, 1e6)
    assert_close(other.noise_, one.noise_ * scale, 1e6)
    assert_close(other.log_evidence_, one.log_evidence_ - y.size * np.log(scale), 1e6)


def test_the_order_of_the_modes_does_not_matter() -> None:
    factors, y, _, _ = sparse_problem((6, 5, 7), (8, 7, 9), 2, snr_db=20)
    one = KroneckerSBL(tol=1e-10).fit(factors, y[..., 0])
    other = KroneckerSBL(tol=1e-10).fit(factors[::-1], y[..., 0].T.copy())
    assert_equal(lists(other.support_), lists(one.support_[::-1]))
    assert_relative(other.coef_.T, one.coef_, 1e-5)


def test_identical_snapshots_are_one_measurement() -> None:
    factors, y, _, _ = sparse_problem((8, 9), (12, 14), 2)
    one = KroneckerSBL(prune_alpha=0, n_starts=1).fit(factors, y[..., 0])
    many = KroneckerSBL(prune_alpha=0, n_starts=1).fit(factors, np.repeat(y, 3, axis=-1), snapshots=True)
    assert_equal(lists(many.support_), lists(one.support_))
    assert_close(many.coef_[..., 2], one.coef_, 1e6)
    assert_close(many.log_evidence_, 3 * one.log_evidence_, 1e6)


def test_an_operator_flat_measurements_and_integers_are_taken() -> None:
    factors = [np.eye(3, dtype=int), np.eye(4, dtype=int)]
    y = np.zeros((3, 4), dtype=int)
    y[1, 2] = 9
    want = KroneckerSBL(noise=0.1).fit(factors, y)
    assert_equal(lists(want.support_), [[1], [2]])
    got = KroneckerSBL(noise=0.1).fit(KroneckerOperator(*factors), y.reshape(-1))
    assert_equal(got.coef_, want.coef_)


def test_the_identity_as_coupling_changes_nothing() -> None:
    factors, y, _, _ = sparse_problem((6, 7), (8, 9), 2)
    plain = KroneckerSBL(n_starts=1).fit(factors, y[..., 0])
    coupled = KroneckerSBL(n_starts=1, coupling=[np.eye(8), None]).fit(factors, y[..., 0])
    assert_close(coupled.coef_, plain.coef_, 1e6)
    assert_close(coupled.log_evidence_, plain.log_evidence_, 1e6)


def test_groups_are_found_whole() -> None:
    rng = np.random.default_rng(3)
    A, B = rng.standard_normal((9, 12)), rng.standard_normal((8, 10))
    groups = np.kron(np.eye(4), np.ones((3, 1)))
    y = A[:, 3:6] @ rng.standard_normal((3, 2)) @ B[:, [2, 7]].T
    model = KroneckerSBL(coupling=[groups, None]).fit([A, B], y + 0.05 * rng.standard_normal(y.shape))
    assert_equal(lists(model.support_), [[3, 4, 5], [2, 7]])


# --- what can go wrong ------------------------------------------------------------------------------------


def test_noiseless_measurements_are_recovered_to_rounding() -> None:
    factors, y, support, values = sparse_problem((8, 7, 6), (12, 10, 9), 2, snr_db=np.inf)
    model = KroneckerSBL().fit(factors, y[..., 0])
    assert_equal(lists(model.support_), lists(support))
    assert_relative(model.coef_, values[..., 0], 1e-9)


def test_noise_alone_is_an_empty_model() -> None:
    rng = np.random.default_rng(0)
    factors = [rng.standard_normal((6, 9)), rng.standard_normal((7, 9))]
    empty = 0
    for _ in range(10):
        model = KroneckerSBL().fit(factors, rng.standard_normal((6, 7)))
        empty += model.coef_.shape == (0, 0)
        assert_below(abs(model.noise_ - 1), 0.6, "noise away from 1")
    assert_above(empty, 9, "empty models of 10")


def test_an_empty_model_answers_everything() -> None:
    factors = [np.eye(3), np.ones((2, 4))]
    model = KroneckerSBL().fit(factors, np.zeros((3, 2)))
    assert_equal((model.noise_, model.log_evidence_, model.coef_.shape), (0.0, np.inf, (0, 0)))
    assert_equal(model.predict(), np.zeros((3, 2)))
    assert_equal(model.coef_tensor(), np.zeros((3, 4)))
    assert_equal(model.coef_var("all"), np.zeros((3, 4)))
    assert_equal(model.coef_var([[0], [3]]), np.zeros(1))
    assert_equal(model.sample(2).shape, (2, 0, 0))
    with pytest.raises(DataError, match="learned as 0"):
        model.log_evidence(factors, np.ones((3, 2)))


def test_zero_duplicate_and_single_columns_and_rows_do_no_harm() -> None:
    factors, y, support, _ = sparse_problem((7, 6), (9, 8), 2, seed=4)
    zeros = np.concatenate([factors[0], np.zeros((7, 1))], axis=1)
    doubled = np.concatenate([factors[1], factors[1][:, :1]], axis=1)
    model = KroneckerSBL().fit([zeros, doubled, np.ones((1, 1))], y[:, :, :1])
    assert_equal(lists(model.support_), [*lists(support), [0]])
    twice = np.concatenate([factors[1], factors[1][:, support[1]]], axis=1)
    model = KroneckerSBL().fit([factors[0], twice], y[..., 0])
    assert_equal(lists(model.support_)[0], support[0].tolist())
    assert_above(model.score([factors[0], twice], y[..., 0]), 0.97, "share explained")


def test_a_column_that_no_weight_of_the_coupling_gives_variance_stays_out() -> None:
    factors, y, support, _ = sparse_problem((8, 7), (12, 10), 2)
    coupling = np.delete(np.eye(12), np.delete(np.arange(12), support[0])[:2], axis=1)
    model = KroneckerSBL(coupling=[coupling, None], prune_alpha=0, max_iter=3)
    quietly(model.fit, factors, y[..., 0])
    assert_equal(model.coef_.shape, tuple(len(one) for one in model.support_))
    dense = dense_of(model, factors, y.reshape(-1, 1))
    assert_close(model.coef_.reshape(-1, 1), dense.mean, 1e5)
    assert_equal(model.coef_tensor().shape, (12, 10))


@pytest.mark.parametrize("mask", [False, True])
def test_columns_in_very_different_units_are_found(mask: bool) -> None:
    factors, y, support, values = sparse_problem((8, 9), (12, 14), 2, seed=3)
    units = 10.0 ** np.random.default_rng(0).uniform(-6, 6, 12)
    there = np.random.default_rng(1).random((8, 9)) < 0.9 if mask else None
    model = KroneckerSBL().fit([factors[0] * units, factors[1]], y[..., 0], mask=there)
    assert_equal(lists(model.support_), lists(support))
    assert_relative(model.coef_ * units[support[0]][:, None], values[..., 0], 0.3)


def test_complex_factors_make_complex_predictions_of_a_real_model(make: Any) -> None:
    factors, y, _, _ = sparse_problem((6, 7), (8, 9), 2)
    model = KroneckerSBL().fit([make.asarray(a) for a in factors], make.asarray(y[..., 0]))
    got = to_numpy(model.predict([make.asarray(factors[0]) * 1j, make.asarray(factors[1])]))
    assert_equal(got.imag, to_numpy(model.predict()))


def test_gradients_are_not_recorded_in_a_fit() -> None:
    torch = pytest.importorskip("torch")
    model = KroneckerSBL().fit([torch.eye(3, requires_grad=True)], torch.tensor([9.0, 0.1, 0.1]))
    assert_equal(model.coef_.requires_grad, False)


def test_arrays_of_jax_are_answered_in_words() -> None:
    jnp = pytest.importorskip("jax.numpy")
    with pytest.raises(TypeError, match="numpy or torch; got JAX"):
        KroneckerSBL().fit([jnp.eye(3)], jnp.ones(3))


def test_sweeps_that_did_not_converge_are_said() -> None:
    factors, y, _, _ = sparse_problem((6, 7), (8, 9), 2)
    with pytest.warns(ConvergenceWarning, match="Raise max_iter"):
        model = KroneckerSBL(max_iter=2).fit(factors, y[..., 0])
    assert_equal((model.info_.converged, model.n_iter_), (False, 2))


def test_verbose_tells_each_start(caplog: Any, capsys: Any) -> None:
    factors, y, _, _ = sparse_problem((6, 7), (8, 9), 2)
    with caplog.at_level("INFO", logger="tenfac"):
        KroneckerSBL(verbose=2, n_hops=1).fit(factors, y[..., 0])
    assert_equal(len(caplog.messages), 3)
    assert_says(caplog.messages[0], "KroneckerSBL: start 1: log evidence", "columns [2, 2]")
    assert_says(capsys.readouterr().err, "KroneckerSBL", "start")
    KroneckerSBL().fit(factors, y[..., 0])
    assert_equal(capsys.readouterr().err, "")


def test_complex_factors_take_real_measurements() -> None:
    rng = np.random.default_rng(0)
    phases = np.exp(2j * np.pi * rng.uniform(size=(12, 16)))
    want = KroneckerSBL(noise=0.1).fit([phases], (4 * phases[:, 3]).real + 0j)
    model = KroneckerSBL(noise=0.1).fit([phases], (4 * phases[:, 3]).real)
    assert_equal(model.coef_, want.coef_)
    assert_equal(str(model.coef_.dtype), "complex128")


def test_a_mode_of_one_measurement_or_of_zeros_only_is_taken() -> None:
    rng = np.random.default_rng(1)
    A, one = rng.standard_normal((9, 12)), rng.standard_normal((1, 5))
    y = 5 * A[:, 2:3] * one[:, np.argmax(np.abs(one))] + 0.1 * rng.standard_normal((9, 1))
    model = KroneckerSBL().fit([A, one], y)
    assert_equal(model.support_[0].tolist(), [2])
    assert_above(model.score([A, one], y), 0.97, "share explained")
    with_zeros = KroneckerSBL().fit([A, np.zeros((1, 5))], y)
    assert_equal(with_zeros.coef_.shape, (0, 0))


def test_before_fit_questions_are_refused_and_clones_forget() -> None:
    model = KroneckerSBL(noise=0.1, n_hops=2, coupling=[np.eye(3)], values="auto")
    for ask in (model.predict, model.sample, model.coef_tensor, model.coef_var):
        with pytest.raises(NotFittedError, match="KroneckerSBL"):
            ask()
    model.fit([np.eye(3)], np.array([5.0, 0.0, 0.0]))
    other = clone(model)
    assert_equal(hasattr(other, "coef_"), False)
    settings = other.get_params()
    assert_equal((settings["noise"], settings["n_hops"], settings["values"]), (0.1, 2, "auto"))
    assert_equal(settings["coupling"][0], np.eye(3))
    assert_equal(other.set_params(tol=1e-3).tol, 1e-3)
    with pytest.raises(ValueError, match="prune_alfa"):
        other.set_params(prune_alfa=0.1)


GOOD = [np.eye(2), np.ones((3, 4))], np.ones((2, 3))


@pytest.mark.parametrize(
    ("settings", "operator", "y", "error", "parts"),
    [
        ({"update": "fixpoint"}, *GOOD, DataError, ["`update`", "Did you mean 'fixed_point'"]),
        ({"noise": 0.0}, *GOOD, DataError, ["`noise`", "positive"]),
        ({"noise": -1}, *GOOD, DataError, ["`noise`", "positive"]),
        ({"noise": np.nan}, *GOOD, DataError, ["`noise`", "positive"]),
        ({"values": "rank-1"}, *GOOD, DataError, ["`values`", "Did you mean 'rank1'"]),
        ({"prior": "unstructurd"}, *GOOD, DataError, ["`prior`", "Did you mean 'unstructured'"]),
        ({"prune_alpha": 0.7}, *GOOD, DataError, ["`prune_alpha`", "0.7"]),
        ({"tol": 0}, *GOOD, DataError, ["`tol`"]),
        ({"n_starts": 0}, *GOOD, DataError, ["`n_starts`", "from 1 up"]),
        ({"max_iter": 1.5}, *GOOD, DataError, ["`max_iter`", "1.5"]),
        ({"verbose": 3}, *GOOD, DataError, ["`verbose`", "3"]),
        ({"update": "em_am", "n_hops": 3}, *GOOD, DataError, ["'em_am'", "`n_hops`", "3"]),
        ({"coupling": [np.eye(2)]}, *GOOD, ShapeError, ["`coupling`", "2 in all", "got 1"]),
        ({"coupling": [np.eye(3), None]}, *GOOD, ShapeError, ["coupling[0]", "(2, m)"]),
        ({"coupling": [-np.eye(2), None]}, *GOOD, DataError, ["coupling[0]", "nonnegative"]),
        ({}, GOOD[0], np.ones((2, 4)), ShapeError, ["(2, 3)", "Mode 1", "factors[1] has 3 rows"]),
        ({}, GOOD[0], 1e60 * np.ones((2, 3)), DataError, ["Y", "1e+60", "another unit"]),
        ({}, [1e-60 * GOOD[0][0], GOOD[0][1]], GOOD[1], DataError, ["factors[0]", "another unit"]),
        ({}, GOOD[0], np.ones((2, 3, 5)), ShapeError, ["snapshots=True"]),
        ({}, GOOD[0], np.full((2, 3), np.nan), DataError, ["Y must be finite", "6 NaN"]),
        ({}, [np.eye(2), np.full((3, 4), np.inf)], GOOD[1], DataError, ["factors[1]", "finite"]),
        (
            {},
            [1e-49 * GOOD[0][0], 1e-49 * GOOD[0][1]],
            1e49 * GOOD[1],
            DataError,
            ["1e147", "float64", "units"],
        ),
        ({}, [np.eye(2, dtype="f4")], np.full(2, 1e-25, "f4"), DataError, ["1e-25", "float32", "units"]),
        ({"noise": 1e40}, *GOOD, DataError, ["`noise`", "1e+40", "units of Y"]),
        ({"noise": 1e-10, "prior": "unstructured"}, *GOOD, DataError, ["`noise`", "rounding", "1e-10"]),
        ({}, [np.ones(2)], np.ones(2), ShapeError, ["factors[0]", "matrix"]),
        ({}, "A", np.ones(2), TypeError, ["factors[0]"]),
        ({}, 3, np.ones(2), ShapeError, ["KroneckerOperator", "int"]),
        ({}, GOOD[0], [[1.0] * 3] * 2, TypeError, ["Y must be an array"]),
    ],
)
def test_bad_input_is_answered_in_words(
    settings: dict[str, Any], operator: Any, y: Any, error: type, parts: list[str]
) -> None:
    with pytest.raises(error) as caught:
        KroneckerSBL(**settings).fit(operator, y)
    assert_says(caught, "KroneckerSBL", *parts)


def test_snapshots_without_their_axis_are_answered_in_words() -> None:
    with pytest.raises(ShapeError, match="Leave out snapshots=True"):
        KroneckerSBL().fit(*GOOD, snapshots=True)


def test_questions_to_the_posterior_are_checked() -> None:
    model = KroneckerSBL(noise=0.1).fit([np.eye(3), np.eye(2)], np.array([[9.0, 0], [0, 0], [0, 0]]))
    for which, part in [
        ("box", "'support', 'all'"),
        ([[0]], "2 in all"),
        ([[0], [2]], "from 0 to 1"),
        ([[0.5], [1]], "integers"),
        ([[0, 1], [0, 1, 1]], "one length"),
    ]:
        with pytest.raises((DataError, ShapeError)) as caught:
            model.coef_var(which)
        assert_says(caught, "coef_var", part)
    with pytest.raises(DataError, match="max_bytes"):
        model.coef_tensor(max_bytes=10)
    with pytest.raises(DataError, match="max_bytes"):
        model.coef_var("all", max_bytes=10)
    with pytest.raises(ShapeError, match="columns, as in fit"):
        model.predict([np.eye(3), np.eye(3)])
    with pytest.raises(DataError, match="`n` must be"):
        model.sample(-1)
    for ask in (model.score, model.log_evidence):
        with pytest.raises(DataError, match="Y must be finite"):
            ask([np.eye(3), np.eye(2)], np.full((3, 2), np.nan))
    with pytest.raises(TypeError, match="Y must be an array"):
        model.log_evidence([np.eye(3), np.eye(2)], [[0.0] * 2] * 3)


# --- draws and files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("complex_", [False, True])
def test_draws_have_the_mean_and_covariance_of_the_posterior(complex_: bool) -> None:
    factors, y, _, _ = sparse_problem((3, 4), (6, 4), 3, seed=2, complex_=complex_, snr_db=5)
    model = quietly(KroneckerSBL(prune_alpha=0, max_iter=3).fit, factors, y[..., 0])
    draws = model.sample(20_000, random_state=0)
    dense = dense_of(model, factors, y.reshape(-1, 1))
    centred = (draws - model.coef_).reshape(len(draws), -1)
    covariance = centred.T @ centred.conj() / len(draws)
    spread = np.sqrt(np.outer(np.diag(dense.posterior), np.diag(dense.posterior)).real)
    assert_below(np.max(np.abs(covariance - dense.posterior) / spread), 0.05, "error of a correlation")
    assert_below(np.max(np.abs(centred.mean(axis=0)) / np.sqrt(np.diag(spread))), 0.04, "error of a mean")


def test_a_saved_model_answers_the_same(make: Any, tmp_path: Any) -> None:
    factors, y, _, _ = sparse_problem((6, 7), (8, 9), 2, seed=1)
    factors, y = [make.asarray(a) for a in factors], make.asarray(y[..., 0])
    model = KroneckerSBL(coupling=[make.asarray(np.eye(8)), None]).fit(factors, y)
    tenfac.save(model, tmp_path / "x.tenfac")
    back = tenfac.load(tmp_path / "x.tenfac")
    assert_equal(back.coef_, model.coef_)
    assert_equal(back.coef_var([[0, 3], [1, 2]]), model.coef_var([[0, 3], [1, 2]]))
    assert_equal(back.sample(3), model.sample(3))
    assert_equal(
        (back.noise_, back.log_evidence_, back.info_), (model.noise_, model.log_evidence_, model.info_)
    )
    assert_equal(back.predict(factors), model.predict(factors))
