"""Rows that arrive after the fit give the posterior of all rows at once, in any order."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenfac import FunctionalTucker, load, save
from tenfac.bayes.collapsed.prediction import Prediction
from tenfac.bayes.columns import ModeIndex
from tenfac.bayes.exact import levels, smoother
from tests.bayes.toys import smooth_table, twin
from tests.checks import assert_above, assert_below, assert_close, assert_equal, quietly

TOL = 1e-8
STARTS: dict[tuple[bytes, bytes, str], FunctionalTucker] = {}


def start(X: np.ndarray, y: np.ndarray, **settings: Any) -> FunctionalTucker:
    """A model of the first rows, learned once and copied; hyperparameters need not be the best."""
    key = (X.tobytes(), y.tobytes(), repr(settings))
    if key not in STARTS:
        STARTS[key] = quietly(FunctionalTucker(**{"max_iter": 3, "tol": 1e-3, **settings}).partial_fit, X, y)
    return copy.deepcopy(STARTS[key])


def add(model: FunctionalTucker, X: np.ndarray, y: np.ndarray, size: int = 7) -> FunctionalTucker:
    """Rows in batches."""
    for begin in range(0, y.size, size):
        model.partial_fit(X[begin : begin + size], y[begin : begin + size])
    return model


def scaled(columns: np.ndarray, first: np.ndarray, model: FunctionalTucker) -> list[np.ndarray]:
    """Positions in units of the first rows; labels as they are."""
    out = []
    for kind, column, seen in zip(model.kinds_, columns.T, first.T, strict=True):
        low, high = (seen.min(), seen.max()) if kind == "continuous" else (0.0, 1.0)
        out.append((column - low) / (high - low))
    return out


def assert_dense(
    model: FunctionalTucker, X: np.ndarray, y: np.ndarray, first: np.ndarray, at: np.ndarray
) -> None:
    """Predictions and evidence are those of the dense process of all rows, scaled by the rows ``first``."""
    gp, center, spread = twin(model), y[first].mean(), y[first].std()
    points, latent = scaled(X, X[first], model), (y - center) / spread
    mean, cov = gp.predict(points, latent, scaled(at, X[first], model))
    got, std = model.predict(at, return_std=True)
    assert_below(np.abs((got - center) / spread - mean).max(), TOL, "mean")
    assert_below(np.abs((std / spread) ** 2 - np.diag(cov)).max(), TOL, "variance")
    evidence = gp.log_evidence(points, latent) - y.size * np.log(spread)
    assert_below(abs(model.log_evidence_ / evidence - 1), TOL, "log evidence")


def table(discrete: tuple[int, ...] = (2,)) -> tuple[np.ndarray, np.ndarray]:
    return smooth_table((20, 5, 4), discrete, 90)


def everywhere(X: np.ndarray, count: int = 30) -> np.ndarray:
    """Rows at observed basis indices, and exact indices between, before and after the observed ones."""
    rng = np.random.default_rng(3)
    out = np.column_stack([rng.choice(column, count) for column in X.T])
    out[::2, 0] = rng.uniform(X[:, 0].min() - 2, X[:, 0].max() + 2, out[::2, 0].size)
    return out


# --- equality with all rows at once -----------------------------------------------------------------------


def splits(X: np.ndarray) -> dict[str, np.ndarray]:
    """Rows that come first: all indices of the basis modes, and some of the exact mode."""
    time, rank = X[:, 0], np.argsort(np.argsort(X[:, 0]))
    return {
        "slices after the last": time < np.unique(time)[12],
        "slices before the first": time > np.unique(time)[4],
        "slices between": np.isin(time, np.unique(time)[::2]),
        "repeated slices": rank % 2 == 0,
    }


@pytest.mark.parametrize("name", splits(table()[0]))
@pytest.mark.parametrize("size", [1, 100])
def test_added_rows_give_the_dense_process_of_all_rows(name: str, size: int) -> None:
    X, y = table()
    first = splits(X)[name]
    model = add(start(X[first], y[first], discrete=[2]), X[~first], y[~first], size)
    assert_equal(model.exact_mode_, 0)
    assert_dense(model, X, y, first, everywhere(X))


def test_the_splits_do_what_they_say() -> None:
    X, _ = table()
    for first in splits(X).values():
        for column in X.T[1:]:
            assert_equal(np.unique(column[first]), np.unique(column))
        assert_above(int((~first).sum()), 15, "rows added")
    seen, added = (np.unique(X[rows, 0]) for rows in (splits(X)["repeated slices"], X[:, 0] > -np.inf))
    assert_above(np.isin(added, seen).mean(), 0.9, "share of slices seen")


@pytest.mark.parametrize("kernel", ["matern12", "matern52"])
def test_every_kernel_streams(kernel: str) -> None:
    X, y = table()
    first = splits(X)["slices between"]
    model = add(start(X[first], y[first], discrete=[2], kernel=kernel), X[~first], y[~first])
    assert_dense(model, X, y, first, everywhere(X))


def test_one_mode_streams() -> None:
    X, y = table()
    X, first = X[:, :1], splits(X)["slices between"]
    model = add(start(X[first], y[first]), X[~first], y[~first])
    assert_dense(model, X, y, first, everywhere(X))


def test_the_order_of_arrival_does_not_matter() -> None:
    X, y = table()
    first = splits(X)["slices after the last"]
    rest = np.flatnonzero(~first)
    want = start(X[first], y[first], discrete=[2]).partial_fit(X[rest], y[rest])
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(rest)
        got = add(start(X[first], y[first], discrete=[2]), X[order], y[order], 1 + 2 * seed)
        for one, other in zip(
            got.predict(everywhere(X), return_std=True),
            want.predict(everywhere(X), return_std=True),
            strict=True,
        ):
            assert_close(one, other, factor=1e5)
        assert_close(got.log_evidence_, want.log_evidence_, factor=1e5)


@pytest.mark.slow
def test_200_slices_one_row_at_a_time_are_all_at_once() -> None:
    rng = np.random.default_rng(0)
    time = np.repeat(np.arange(240.0), 2)
    X = np.column_stack([time, rng.integers(0, 3, 480) / 2])
    y = np.sin(time / 9) + X[:, 1] * np.cos(time / 20) + 0.1 * rng.normal(size=480)
    model, whole = (start(X[:80], y[:80], kernel="matern12") for _ in range(2))
    for row, value in zip(X[80:], y[80:], strict=True):
        model.partial_fit(row[None], [value])
    whole.partial_fit(X[80:], y[80:])
    at = np.vstack([X, X + np.array([300.0, 0.2])])
    for one, other in zip(
        model.predict(at, return_std=True), whole.predict(at, return_std=True), strict=True
    ):
        assert_close(one, other, factor=1e5)
    first = np.arange(480) < 80
    assert_dense(model, X, y, first, X[::7] - [0.3, 0.0])


def test_functions_at_new_indices_of_a_basis_mode_are_those_of_the_first_rows() -> None:
    X, y = smooth_table((14, 9), (), 90)
    middle = np.unique(X[:, 1])[2:-2]
    first = np.isin(X[:, 1], middle[[0, 1, 3, 4]])
    model = add(start(X[first], y[first], rank=4), X[~first], y[~first])
    basis, gp = model._prediction.problem.basis, twin(model)
    points, at = (scaled(x, X[first], model) for x in (X, everywhere(X)))

    def covariance(a: list[np.ndarray], b: list[np.ndarray]) -> np.ndarray:
        rows, columns = (basis.rows([x[1]], x[1].size) for x in (a, b))
        return gp.scale * gp.modes[0].covariance(a[0], b[0]) * (rows @ columns.T)

    noisy = covariance(points, points) + gp.noise_variance * np.eye(y.size)
    gain = np.linalg.solve(noisy, covariance(points, at)).T
    center, spread = y[first].mean(), y[first].std()
    mean, std = model.predict(everywhere(X), return_std=True)
    assert_below(np.abs((mean - center) / spread - gain @ ((y - center) / spread)).max(), TOL, "mean")
    want = np.diag(gp.covariance(at, at)) - np.einsum("ij,ji->i", gain, covariance(points, at))
    assert_below(np.abs((std / spread) ** 2 - want).max(), TOL, "variance")
    left_out = np.diag(gp.covariance(points, points) - covariance(points, points)).mean()
    assert_above(left_out, 1e-3, "left out")
    assert_below(abs(model._prediction.left_out - left_out), TOL, "difference")
    assert_equal([index.size for index in model.indices_], [14, 9])


@pytest.mark.parametrize("size", [1, 100])
def test_new_labels_of_an_exact_discrete_mode_are_as_if_seen_at_once(size: int) -> None:
    X, y = table((0,))
    first = ~np.isin(X[:, 0], [10.0, 15.0, 16.0, 17.0, 29.0])
    model = start(X[first], y[first], discrete=[0])
    assert_equal(model.exact_mode_, 0)
    assert_equal(model.rank_[0], 15)
    add(model, X[~first], y[~first], size)
    at = X[np.random.default_rng(0).permutation(90)[:40]]
    assert_dense(model, X, y, first, at)
    assert_equal((model.rank_[0], model.indices_[0].tolist()), (20, np.unique(X[:, 0]).tolist()))


def test_rows_of_seen_labels_change_their_level_only(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = table((0,))
    model = start(X[:60], y[:60], discrete=[0]).partial_fit(X[60:61], y[60:61])
    calls, see = [], levels.see
    monkeypatch.setattr(levels, "see", lambda *slices: calls.append(1) or see(*slices))
    model.partial_fit(X[61:80], y[61:80])
    assert_equal(len(calls), np.unique(X[61:80, 0]).size)
    monkeypatch.undo()
    assert_dense(model, X[:80], y[:80], np.arange(80) < 60, X[:80])


def test_text_labels_and_tables_stream() -> None:
    X, y = table((0,))
    names = np.array(["Leber", "Lunge", "Hände", "骨", *(f"tissue {n}" for n in range(16))])
    columns = {"tissue": names[X[:, 0].astype(int) - 10], "time": X[:, 1], "dose": X[:, 2]}
    first = ~np.isin(columns["tissue"], ["骨", "tissue 9"])
    model, numbers = FunctionalTucker(max_iter=0), FunctionalTucker(max_iter=0, discrete=[0])
    for rows in (first, ~first):
        model.partial_fit({name: column[rows] for name, column in columns.items()}, y[rows])
        numbers.partial_fit(X[rows], y[rows])
    assert_equal(model.indices_[0], np.unique(columns["tissue"]))
    assert_close(model.predict(columns), numbers.predict(X), factor=1e5)


@pytest.mark.parametrize("response", ["log", "logit"])
def test_a_bent_response_streams_on_its_first_scale(response: str) -> None:
    X, y = table()
    y = np.exp(0.2 * y)
    first = splits(X)["slices after the last"] | (y == y.max()) | (y == y.min())
    model = start(X[first], y[first], discrete=[2], response=response, max_iter=0)
    bounds, bent = model.bounds_, model._response
    before = model.log_evidence_
    add(model, X[~first], y[~first])
    gp, points = twin(model), scaled(X, X[first], model)
    u = np.log(y - bounds[0]) - (np.log(bounds[1] - y) if response == "logit" else 0.0)
    latent = (u - u[first].mean()) / u[first].std()
    mean, cov = gp.predict(points, latent, points)
    want = bent.moments(mean, np.diag(cov))
    for one, other in zip(model.predict(X, return_std=True), want, strict=True):
        assert_below(np.abs(one - other).max(), 1e-7, "difference")
    slope = 1 / (y - bounds[0]) + (1 / (bounds[1] - y) if response == "logit" else 0.0)
    evidence = gp.log_evidence(points, latent) + np.sum(np.log(slope / u[first].std()))
    assert_below(abs(model.log_evidence_ / evidence - 1), TOL, "log evidence")
    assert_equal(model.bounds_, bounds)
    assert_above(abs(model.log_evidence_ - before), 1.0, "change of the log evidence")


def test_weights_are_repeats() -> None:
    X, y = table()
    first = splits(X)["slices between"]
    weights = np.random.default_rng(0).integers(0, 4, 90)
    model, repeated = (start(X[first], y[first], discrete=[2]) for _ in range(2))
    model.partial_fit(X[~first], y[~first], sample_weight=weights[~first])
    again = np.repeat(np.flatnonzero(~first), weights[~first])
    repeated.partial_fit(X[again], y[again])
    for one, other in zip(
        model.predict(everywhere(X), return_std=True, include_noise=True),
        repeated.predict(everywhere(X), return_std=True, include_noise=True),
        strict=True,
    ):
        assert_close(one, other, factor=1e5)
    assert_close(model.log_evidence_, repeated.log_evidence_, factor=1e5)


def test_marginal_functions_are_those_of_all_rows() -> None:
    X, y = table()
    first = splits(X)["slices between"]
    model = add(start(X[first], y[first], discrete=[2]), X[~first], y[~first])
    center, spread = y[first].mean(), y[first].std()
    points = scaled(X, X[first], model)
    grids = [np.unique(x) for x in points]
    for mode, x in enumerate(grids):
        mean, variance = twin(model).marginal(points, (y - center) / spread, mode, x, grids)
        _, got, std = model.mode_posterior(mode, np.unique(X[:, mode]))
        assert_below(np.abs((got - center) / spread - mean).max(), TOL, "mean")
        assert_below(np.abs((std / spread) ** 2 - variance).max(), TOL, "variance")


def test_a_model_learned_on_a_grid_streams() -> None:
    cells = np.stack(np.unravel_index(np.arange(12 * 9 * 9), (12, 9, 9)), axis=1) / 11
    y = np.sin(3 * cells @ [1.0, 2.0, 3.0])
    first = cells[:, 0] < 0.9  # the longest mode, the first of three, is the exact one
    model = start(cells[first], y[first], max_iter=2)
    assert model._learned.from_grid
    first_task, prediction = model._task, model._prediction
    add(model, cells[~first], y[~first], 30)
    latent = (y - y[first].mean()) / y[first].std()
    points = scaled(cells, cells[first], model)
    grids = (np.unique(points[0]), *first_task.grids[1:])
    task = replace(first_task, positions=tuple(points), y=latent, weights=np.ones(972), grids=grids)
    problem = task.on(prediction.problem.product, (), prediction.hyper)
    want = Prediction.build(problem, prediction.hyper)
    for got, one in zip(model._prediction.at(points), want.at(points), strict=True):
        assert_below(np.abs(got - one).max(), TOL, "difference")
    assert_close(model._prediction.left_out, want.left_out, factor=1e4)


# --- what is done, and when -------------------------------------------------------------------------------


def test_an_appended_slice_is_one_filter_step_and_the_rest_is_smoothed_when_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X, y = table()
    first = splits(X)["slices after the last"]
    model = start(X[first], y[first], discrete=[2])
    rest = np.flatnonzero(~first)[np.argsort(X[~first, 0], kind="stable")]
    later = np.unique(X[rest, 0])
    calls: list[str] = []
    see, solve = smoother.see, smoother.solve
    monkeypatch.setattr(smoother, "see", lambda *args: calls.append("see") or see(*args))
    monkeypatch.setattr(smoother, "solve", lambda *args: calls.append("solve") or solve(*args))

    def done(rows: np.ndarray) -> list[str]:
        calls.clear()
        model.partial_fit(X[rows], y[rows])
        return list(calls)

    done(rest[X[rest, 0] == later[0]])
    for time in later[1:]:
        assert_equal(done(rest[X[rest, 0] == time]), ["see"])
    assert_equal(done(rest[X[rest, 0] == later[-3]]), ["see"] * 3)
    calls.clear()
    at = everywhere(X)
    for move in (0.0, 0.3, 7.0):
        at[:, 0] = later[-1] + move
        model.predict(at, return_std=True)
    assert_equal(calls, [])
    forecast = model.predict(at, return_std=True)
    for _ in range(2):
        model.predict(X, return_std=True)
    assert_equal(calls.count("solve"), 1)
    for one, other in zip(model.predict(at, return_std=True), forecast, strict=True):
        assert_close(one, other, factor=1e4)


def test_the_first_call_is_fit() -> None:
    X, y = table()
    for weights in (None, np.arange(90) % 3):
        model, want = (FunctionalTucker(max_iter=3, tol=1e-2, discrete=[2]) for _ in range(2))
        quietly(want.fit, X, y, weights)
        assert quietly(model.partial_fit, X, y, weights) is model
        assert_equal(model.predict(X), want.predict(X))
        assert_equal(model.log_evidence_, want.log_evidence_)


def test_what_was_learned_stays_and_what_counts_rows_follows() -> None:
    X, y = table()
    first = splits(X)["slices between"]
    model = start(X[first], y[first], discrete=[2])
    names = ("lengthscales_", "constants_", "noise_", "n_iter_", "bounds_", "exact_mode_", "kinds_")
    before = {name: copy.deepcopy(getattr(model, name)) for name in names}
    info, hyper = model.info_, model._prediction.hyper
    add(model, X[~first], y[~first])
    assert_equal({name: getattr(model, name) for name in names}, before)
    assert model._prediction.hyper is hyper
    assert_equal(model.rank_, (20, *model.rank_[1:]))
    for index, column in zip(model.indices_, X.T, strict=True):
        assert_equal(index, np.unique(column))
    for name in ("converged", "reason", "n_iter", "n_evals", "history"):
        assert_equal(getattr(model.info_, name), getattr(info, name))
    assert_above(model.info_.seconds, info.seconds, "seconds")


def test_rows_of_no_weight_are_left_out() -> None:
    X, y = table()
    model, want = (start(X, y, discrete=[2]) for _ in range(2))
    far = np.vstack([X[:1] + np.array([100.0, 0.0, 0.0]), X[1:2]])
    model.partial_fit(far, y[:2], sample_weight=[0, 1])
    want.partial_fit(far[1:], y[1:2])
    assert_equal(model.predict(X), want.predict(X))
    assert_equal((model.log_evidence_, model.indices_[0].size), (want.log_evidence_, 20))


def test_fit_after_streaming_begins_again() -> None:
    X, y = table()
    first = splits(X)["slices after the last"]
    model = add(start(X[first], y[first], discrete=[2]), X[~first], y[~first])
    want = quietly(FunctionalTucker(max_iter=3, tol=1e-3, discrete=[2]).fit, X, y)
    assert_equal(quietly(model.fit, X, y).predict(X), want.predict(X))
    model.partial_fit(X[:5], y[:5])
    want.partial_fit(X[:5], y[:5])
    assert_equal(model.predict(X), want.predict(X))


def test_copies_stream_apart() -> None:
    X, y = table()
    first = splits(X)["slices after the last"]
    model = add(start(X[first], y[first], discrete=[2]), X[~first][:9], y[~first][:9])
    before, other = model.predict(X), copy.deepcopy(model)
    other.partial_fit(X[~first][9:], y[~first][9:])
    shallow = copy.copy(model).partial_fit(X[~first][9:], y[~first][9:])
    assert_equal(model.predict(X), before)
    assert_equal(other.predict(X), shallow.predict(X))
    assert_dense(other, X, y, first, everywhere(X))


def test_indices_too_close_to_tell_apart_are_one_and_the_first_seen_stays() -> None:
    far = ModeIndex("time", np.array([-1e30, 0.0, 1e30]), False)
    more = far.extended(np.array([1.0, 2.0, -1e30, 2e30, 3e30]))
    assert_equal(more.values, np.array([-1e30, 0.0, 1e30, 2e30, 3e30]))
    assert_close(more.positions(more.values), np.array([0.0, 0.5, 1.0, 1.5, 2.0]))
    assert far.extended(np.array([5.0])) is far


# --- files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("discrete", [(2,), (0,)])
def test_a_streamed_model_comes_back_and_streams_on(tmp_path: Path, discrete: tuple[int, ...]) -> None:
    X, y = table(discrete)
    first = np.arange(90) % 20 < 12 if discrete == (2,) else X[:, 0] < 20
    model = add(start(X[first], y[first], discrete=discrete), X[~first][:15], y[~first][:15], 4)
    for rest in (np.flatnonzero(~first)[15:22], np.flatnonzero(~first)[22:]):
        save(model, tmp_path / "model.tenfac")
        back = load(tmp_path / "model.tenfac")
        for name in ("n_iter_", "rank_", "lengthscales_", "noise_", "info_"):
            assert_equal(getattr(back, name), getattr(model, name))
        for got, want in zip(back.indices_, model.indices_, strict=True):
            assert_equal(got, want)
        assert_close(back.log_evidence_, model.log_evidence_, factor=1e5)
        seen = np.isin(X[:, 0], model.indices_[0])
        assert_close(back.predict(X[seen]), model.predict(X[seen]), factor=1e5)
        model = back.partial_fit(X[rest], y[rest])
    assert_dense(model, X, y, first, X)
