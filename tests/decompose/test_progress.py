"""Every iterative fit calls back, can be stopped, shows its progress only when asked, and reports."""

from __future__ import annotations

import inspect
import logging
from functools import partial

import numpy as np
import pytest
from scipy import sparse

import tenfac
from tenfac import (
    DataError,
    cp,
    cp_complete,
    hooi,
    randomized_tucker,
    tucker,
    tucker_append,
    tucker_complete,
    tucker_cross,
    tucker_nonnegative,
)
from tenfac.core.progress import Progress
from tests.checks import assert_above, assert_below, assert_equal, assert_says, quietly
from tests.oracles import cp_dense

X = np.random.default_rng(55_010).standard_normal((11, 12, 13))
LARGE = cp_dense(None, [np.random.default_rng(n).standard_normal((n, 3)) for n in (45, 44, 43)])
LARGE += 0.1 * np.random.default_rng(55_011).standard_normal(LARGE.shape)
SEEN = np.random.default_rng(55_012).random(X.shape) < 0.5
AXIS = np.linspace(0, 1, 60)


def kink(indices):
    return np.abs(AXIS[indices].sum(axis=1) - 1.4)


FITS = {
    "cp": partial(cp, X, 3, n_init=4),
    "cp, compressed": partial(cp, LARGE, 3),
    "cp, nonnegative": partial(cp, np.abs(X), 2, nonnegative=True),
    "hooi": partial(hooi, X, 3),
    "tucker_nonnegative": partial(tucker_nonnegative, np.abs(X), 3, tol=1e-3),
    "cp_complete": partial(cp_complete, X, 1, mask=SEEN, n_init=2, max_iter=40, tol=1e-2),
    "tucker_complete": partial(tucker_complete, X, 1, mask=SEEN, n_init=2, max_iter=40, tol=1e-2),
    "tucker_cross": partial(tucker_cross, kink, (60, 60, 60), 1e-3, max_evals=50_000),
    "tucker_cross, small": partial(tucker_cross, X, X.shape, 0.5),
}
each_fit = pytest.mark.parametrize(("name", "fit"), FITS.items(), ids=FITS)


def test_every_public_decomposition_that_calls_back_is_among_the_fits() -> None:
    doors = [name for name, home in tenfac._HOME.items() if home.startswith("decompose.")]
    calls = [n for n in doors if "callback" in inspect.signature(getattr(tenfac, n)).parameters]
    assert_equal(sorted(set(calls) - {name.partition(",")[0] for name in FITS}), [])


@each_fit
def test_the_callback_sees_every_iteration_and_changes_nothing(name, fit):
    seen = []
    t, plain = quietly(fit, callback=lambda *told: seen.append(told)), quietly(fit)
    assert_equal([n_iter for n_iter, _ in seen], list(range(1, t.info.n_iter + 1)))
    assert_equal([error for _, error in seen], list(t.info.history[-t.info.n_iter :]))
    assert_equal((t.info.reason, t.info.history), (plain.info.reason, plain.info.history))
    assert_equal(t.to_tensor(), plain.to_tensor())


@each_fit
@pytest.mark.parametrize("last", [1, 2, 25, 1000])
def test_a_true_answer_stops_the_fit_which_says_so_without_a_warning(name, fit, last):
    last = min(last, quietly(fit).info.n_iter)
    t = fit(callback=lambda n_iter, _: n_iter >= last)
    assert_equal((t.info.converged, t.info.reason), (False, "stopped by the callback"))
    assert_equal((t.info.n_iter, np.isfinite(t.to_tensor()).all()), (last, True))


def test_what_a_stopped_fit_reports_is_the_error_of_what_it_returns():
    stop = {"callback": lambda n_iter, _: n_iter >= 3}
    norm = np.linalg.norm(X)
    for name in ("cp", "hooi"):
        t = FITS[name](**stop)
        assert_below(abs(t.info.rel_error - np.linalg.norm(t.to_tensor() - X) / norm), 1e-12, name)
    for name in ("cp_complete", "tucker_complete"):
        t = FITS[name](**stop)
        true = np.linalg.norm((t.to_tensor() - X)[SEEN]) / np.linalg.norm(X[SEEN])
        assert_below(abs(t.info.rel_error - true), 1e-12, name)
        assert_equal(t.info.validation_error > 0.5, True)


@each_fit
def test_progress_is_shown_and_logged_only_when_asked(name, fit, capsys, caplog):
    door = name.partition(",")[0]
    with caplog.at_level(logging.INFO, logger="tenfac"):
        quietly(fit)
        assert_equal((capsys.readouterr().err, caplog.text), ("", ""))
        quietly(fit, verbose=1)
        assert_says(capsys.readouterr().err, f"{door}:")
        assert_equal(caplog.text, "")
        quietly(fit, verbose=2)
    assert_says(caplog.text, f"{door}: ")
    assert_equal({record.name for record in caplog.records}, {"tenfac"})


@pytest.mark.parametrize("name", ["tucker_cross", "tucker_cross, small"])
def test_the_bar_of_a_cross_approximation_counts_the_entries_evaluated(name, monkeypatch):
    moved = []
    monkeypatch.setattr(Progress, "move", lambda _, steps=1: moved.append(steps))
    assert_equal(quietly(FITS[name]).info.n_evals, sum(moved))


@each_fit
@pytest.mark.parametrize(
    ("options", "kind", "part"),
    [
        ({"verbose": 3}, DataError, "2 (a line per stage); got 3"),
        ({"verbose": True}, DataError, "got True"),
        ({"callback": 3}, TypeError, "callable as callback(n_iter, error); got int"),
    ],
)
def test_options_of_progress_that_are_not_valid_are_refused(name, fit, options, kind, part):
    with pytest.raises(kind) as error:
        fit(**options)
    assert_says(error, f"{name.partition(',')[0]}:", part)


def test_the_bar_is_closed_when_the_callback_raises():
    progress = Progress("cp", 5, 1, callback=lambda *_: {}["mine"])

    def fail():
        with progress:
            progress(0.5, 4)

    with pytest.raises(KeyError, match="mine"):
        fail()
    assert_equal((progress._bar.n, progress._bar.disable), (4, True))  # tqdm disables a bar that is closed


# --- reports ----------------------------------------------------------------------------------------------


@each_fit
def test_a_fit_reports_its_time_its_reason_and_one_error_for_each_iteration(name, fit):
    info = quietly(fit).info
    assert_above(info.seconds, 1e-9, "seconds")
    assert_equal(len(info.history), info.n_iter + (name == "hooi"))  # there the first is that of the start
    assert_equal((info.reason == "", info.rel_error is None), (False, False))
    assert_equal(
        (info.n_evals is None, info.validation_error is None), ("cross" not in name, "complete" not in name)
    )


RANDOM = {name: fit for name, fit in FITS.items() if name != "hooi"}
RANDOM |= {"randomized_tucker": partial(randomized_tucker, X, 2)}


@pytest.mark.parametrize("fit", RANDOM.values(), ids=RANDOM)
def test_a_fit_that_draws_reports_its_seed(fit):
    assert_equal(quietly(fit).info.random_state, 0)
    assert_equal(quietly(fit, random_state=np.int64(3)).info.random_state, 3)
    assert_equal(quietly(fit, random_state=np.random.default_rng(3)).info.random_state, None)


ONE_PASS = {
    "tucker": partial(tucker, X, 2),
    "tucker, sparse": partial(tucker, sparse.coo_array(np.where(SEEN, X, 0.0)), 2),
    "randomized_tucker": partial(randomized_tucker, X, 2),
    "tucker_append": lambda: tucker_append(tucker(X[:9], 2), X[9:], 0, rank=2),
}


@pytest.mark.parametrize("fit", ONE_PASS.values(), ids=ONE_PASS)
def test_what_needs_no_iteration_reports_none(fit):
    info = fit().info
    assert_above(info.seconds, 1e-9, "seconds")
    assert_equal((info.n_iter, info.history, info.reason, info.converged), (None, (), "rank reached", True))
