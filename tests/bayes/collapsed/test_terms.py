"""Main effects, cells, residual, scales of slices: evidence and predictions equal those of N x N matrices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tenfac.bayes.collapsed.cells import CellBasis
from tenfac.bayes.collapsed.prediction import Prediction
from tenfac.bayes.collapsed.scales import widened
from tenfac.bayes.collapsed.terms import Cells, root_of
from tests.bayes.toys import TERM_TOYS, Toy
from tests.checks import assert_above, assert_below, assert_close, assert_draws, assert_equal, assert_relative
from tests.oracles import DenseGP, bent_axis

every_toy = pytest.mark.parametrize("case", TERM_TOYS.values(), ids=TERM_TOYS.keys())
STEP = 1e-5


def built(case: Toy) -> Prediction:
    return Prediction.build(case.problem(case.hyper(1)), case.hyper(1))


def dense_gradient(case: Toy, theta: np.ndarray) -> np.ndarray:
    """Difference quotients of order four, one hyperparameter at a time."""
    hyper = case.hyper(2)

    def value(at: np.ndarray) -> float:
        return case.dense(hyper.unpack(at)).log_evidence(case.points, case.y)

    out = []
    for e in 1e-3 * np.eye(theta.size):
        near, far = (value(theta + step * e) - value(theta - step * e) for step in (1, 2))
        out.append((8 * near - far) / 12e-3)
    return np.array(out)


def test_the_toys_have_what_they_say() -> None:
    for name, case in TERM_TOYS.items():
        problem = case.problem(case.hyper(1))
        assert_equal(isinstance(problem.basis, CellBasis), "cell" in name)
        assert_equal(problem.residual is not None, "residual" in name)
        assert_equal(set(case.hyper(1).terms), set(case.terms))
        assert case.task.is_complete(problem)
    kernels = {case.kernels[case.task.exact] for case in TERM_TOYS.values()}
    assert_equal(kernels, {"matern12", "matern32", "matern52", "oscillator"})


def test_a_covariance_far_from_its_basis_has_a_root_where_rounding_left_it_indefinite() -> None:
    # a search over values without noise went where the smallest eigenvalue was -4e-7 of the trace
    vectors = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
    cov = vectors @ np.diag([160.0, 0.1, 1e-5, -6e-5]) @ vectors.T
    root = root_of(cov)
    assert_close(root @ root.T, cov, factor=1e11)
    assert_above(np.diag(root).min(), 0, "diagonal of the root")


# --- evidence ---------------------------------------------------------------------------------------------


@every_toy
def test_evidence_and_every_derivative_are_the_dense_ones(case: Toy) -> None:
    problem, hyper = case.problem(case.hyper(2)), case.hyper(2)
    for shift in (0.0, 0.1):  # at the reference of the bases, and beside it
        theta = hyper.pack() + shift * np.random.default_rng(3).normal(size=hyper.pack().size)
        value, gradient = problem.value_and_gradient(hyper.unpack(theta))
        dense = case.dense(hyper.unpack(theta))
        assert_close(value, dense.log_evidence(case.points, case.y), factor=1e6)
    want = dense_gradient(case, theta)
    assert_equal(gradient.shape, want.shape)
    for number, (one, other) in enumerate(zip(gradient, want, strict=True)):
        assert_below(abs(one - other), 1e-6 * (1 + abs(other)), f"entry {number}")


@every_toy
def test_the_squares_of_a_slice_are_the_derivative_by_its_scale(case: Toy) -> None:
    if "residual" not in case.terms:
        assert case.problem(case.hyper(1)).residual is None
        return
    hyper, grid = case.hyper(1), case.task.grids[case.task.exact]
    scales = np.ones(grid.size) if case.task.scales is None else case.task.scales
    squares, counts = case.problem(hyper).slice_squares(hyper)
    repeats = np.bincount(np.searchsorted(grid, case.points[case.task.exact])).astype(float)
    assert_equal(counts, repeats)
    for t in (0, 3):
        value = [
            Toy(
                case.kernels,
                replace(case.task, scales=scales * np.exp(step * (np.arange(grid.size) == t))),
                case.terms,
            )
            .dense(hyper)
            .log_evidence(case.points, case.y)
            for step in (STEP, -STEP)
        ]
        slope = (value[0] - value[1]) / (2 * STEP)
        assert_relative(0.5 * (squares[t] / scales[t] - counts[t]), np.array(slope), 1e-6)


# --- predictions ------------------------------------------------------------------------------------------


def places(case: Toy, count: int) -> list[np.ndarray]:
    """Observed and new indices, several rows in one slice, a third at observed cells."""
    at = case.at(count)
    exact = case.task.exact
    at[exact] = np.where(np.arange(count) % 2 == 0, at[exact], np.resize(case.task.grids[exact][:3], count))
    at[exact][-4:] = -0.3
    return [
        np.where(np.arange(count) % 3 == 1, np.resize(x, count), own) if n != exact else own
        for n, (x, own) in enumerate(zip(case.task.positions, at, strict=True))
    ]


@every_toy
def test_means_covariances_and_noise_are_the_dense_ones(case: Toy) -> None:
    at, dense = places(case, 40), case.dense(case.hyper(1))
    want, want_cov = dense.predict(case.points, case.y, at)
    mean, cov, noise = built(case).cov(at)
    assert_close(mean, want, factor=1e6)
    assert_close(cov, want_cov, factor=1e6)
    want_noise = dense.noise_variance * dense.spreads(at) ** 2
    assert_close(noise, want_noise)
    mean, variance, noisy = built(case).at(at)
    assert_close(mean, want, factor=1e6)
    assert_close(variance, np.diag(want_cov).copy(), factor=1e6)
    assert_close(noisy, np.diag(want_cov) + want_noise, factor=1e6)


@every_toy
def test_draws_have_the_dense_moments(case: Toy) -> None:
    at, count = places(case, 16), 4000
    mean, cov = case.dense(case.hyper(1)).predict(case.points, case.y, at)
    draws = built(case).sample(at, count, np.random.default_rng(1))
    assert_draws(draws, mean, cov)


def stencil(f, step: float = 2e-4) -> np.ndarray:
    """Derivative at 0, to order four."""
    return (8 * (f(step) - f(-step)) - (f(2 * step) - f(-2 * step))) / (12 * step)


@every_toy
def test_derivatives_are_those_of_product_and_mains(case: Toy) -> None:
    smooth = replace(case.dense(case.hyper(1)), cells=None)
    for mode in (n for n, kernel in enumerate(case.kernels) if kernel in ("matern32", "matern52")):
        at, grid = places(case, 14), case.task.grids[mode]
        at[mode] = np.resize([-0.7, -0.1, 1.2, 2.0, *(grid[1:] + grid[:-1]) / 2], 14)
        want = dense_derivative(case, smooth, at, mode)
        for got, one in zip(built(case).derivative(at, mode), want, strict=True):
            assert_relative(got, one, 1e-7)


def dense_derivative(
    case: Toy, smooth: DenseGP, at: list[np.ndarray], mode: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the derivative; the prior's variance by the second derivative of its kernel."""
    own = smooth.modes[mode]
    slope = stencil(
        lambda step: smooth.shared([x + step * (n == mode) for n, x in enumerate(at)], case.points)
    )
    bent = stencil(lambda step: bent_axis(at[mode] + step, own.sharpness, own.center))
    pairs = zip(smooth.modes, at, strict=True)
    others = [other.covariance(x, x).diagonal() for n, (other, x) in enumerate(pairs) if n != mode]
    variance = smooth.scale * np.prod(others, axis=0) * curvature(own)
    if smooth.mains:
        variance = variance + smooth.mains[mode][0] * curvature(smooth.mains[mode][1])
    gain = np.linalg.solve(case.dense(case.hyper(1)).observed(case.points), slope.T).T
    return gain @ case.y, bent**2 * variance - np.einsum("ij,ij->i", gain, slope)


def curvature(mode) -> float:
    """Prior variance of the slope on the bent axis."""
    return {1.5: 3.0, 2.5: 5 / 3}[mode.smoothness] / mode.lengthscale**2


@every_toy
def test_mode_posteriors_are_averages_of_what_the_slices_share(case: Toy) -> None:
    dense, prediction, exact = case.dense(case.hyper(1)), built(case), case.task.exact
    others = case.problem(case.hyper(1)).others
    cells = case.task.cells
    if cells is None:
        cells = [part.ravel() for part in np.meshgrid(*[case.task.grids[n] for n in others], indexing="ij")]
    for mode in range(len(case.kernels)):
        x = case.at(5, seed=mode)[mode]
        along = x if mode == exact else case.task.grids[exact]
        times, rows = (
            part.ravel()
            for part in np.meshgrid(np.arange(along.size), np.arange(cells[0].size), indexing="ij")
        )
        got = prediction.marginal(mode, x)
        for i, one in enumerate(x):
            keep = np.flatnonzero(times == i) if mode == exact else np.arange(times.size)
            at: list[np.ndarray] = [along[times[keep]]] * len(case.kernels)
            for n, part in zip(others, cells, strict=True):
                at[n] = np.full(keep.size, one) if n == mode else part[rows[keep]]
            mean, cov = dense.predict_shared(case.points, case.y, at)
            assert_below(abs(got[0][i] - mean.mean()), 1e-8, f"mean of mode {mode}")
            assert_below(abs(got[1][i] - cov.mean()), 1e-8, f"variance of mode {mode}")


def test_far_away_the_prior_comes_back() -> None:
    case = TERM_TOYS["mains, residual, scales, precisions"]
    dense, (label,) = case.dense(case.hyper(1)), np.ones(1)
    far = [np.array([1e9]), np.array([1e9]), np.array([label])]
    mean, variance, _ = built(case).at(far)
    want, cov = dense.predict(case.points, case.y, far)
    assert_close(mean, want, factor=1e6)
    assert_close(variance, np.diag(cov).copy(), factor=1e6)
    constants = dense.scale * dense.modes[0].constant * dense.modes[1].constant
    assert_above(
        variance[0], dense.covariance(far, far)[0, 0] - constants * 2 - dense.mains[2][0], "variance"
    )


def test_scales_with_few_degrees_of_freedom_widen_noise_and_residual() -> None:
    case = TERM_TOYS["residual, scales"]
    hyper, grid = case.hyper(1), case.task.grids[0]
    task = replace(case.task, slice_dof=6.0)
    wide = Prediction.build(Toy(case.kernels, task, case.terms).problem(hyper), hyper)
    at = [np.array([grid[2], grid[5], 0.31415]), np.array([0.1, 0.7, 0.5])]
    mean, variance, _ = built(case).at(at)
    wide_mean, wide_variance, wide_noisy = wide.at(at)
    assert_close(wide_mean, mean, factor=1e4)
    counts = [case.task.weights[case.task.positions[0] == t].sum() for t in (grid[2], grid[5])]
    factors = widened(6.0 + np.array([*counts, 0.0]))
    dense = case.dense(hyper)
    own = []
    for t in range(3):
        point = [x[t : t + 1] for x in at]
        inside = case.points[0] == at[0][t]
        seen = [x[inside] for x in case.points]
        cross, among = dense.within(point, seen), dense.within(seen, seen)
        among += np.diag(dense.noise_variance * dense.spreads(seen) ** 2)
        own.append((dense.within(point, point) - cross @ np.linalg.solve(among, cross.T))[0, 0])
    assert_close(wide_variance - variance, (factors - 1) * np.array(own), factor=1e7)
    noise = dense.noise_variance * dense.spreads(at) ** 2
    assert_close(wide_noisy - wide_variance, factors * noise, factor=1e4)
    assert_above(factors.min(), 1.01, "widening")


def test_a_repeat_is_a_row_given_twice_also_for_scales_of_slices() -> None:
    case = TERM_TOYS["residual, scales"]
    task, hyper = replace(case.task, slice_dof=5.0), case.hyper(1)
    again = np.repeat(np.arange(task.y.size), task.weights.astype(int))
    positions = tuple(x[again] for x in task.positions)
    rows = replace(task, positions=positions, y=task.y[again], weights=np.ones(again.size))
    one, other = (Toy(case.kernels, part, case.terms).problem(hyper) for part in (task, rows))
    for got, want in zip(one.slice_squares(hyper), other.slice_squares(hyper), strict=True):
        assert_close(got, want, factor=1e6)
    at = places(case, 20)
    for got, want in zip(
        Prediction.build(one, hyper).at(at), Prediction.build(other, hyper).at(at), strict=True
    ):
        assert_close(got, want, factor=1e6)


def test_a_covariance_that_rounding_left_indefinite_has_a_root() -> None:
    cov = np.diag([1.0, 1e-3, -1e-15])
    root = root_of(cov)
    assert_below(np.abs(root @ root.T - cov).max(), 1e-12, "error")


def test_an_unseen_cell_is_unknown_whatever_the_residual_took_up() -> None:
    case = next(toy for toy in TERM_TOYS.values() if {"cells", "residual"} <= set(toy.terms))
    prediction, points = built(case), case.at(40)
    # as if everything that the product's functions leave out had been met at the observations
    prediction = replace(prediction, problem=replace(prediction.problem, usual_gap=1e12))
    found = prediction.affine(points).gap
    (cells,) = (term for term in prediction.problem.mains if isinstance(term, Cells))
    others = np.column_stack([points[n] for n in cells.others])
    seen = (others[:, None] == np.column_stack(cells.nodes)).all(axis=2).any(axis=1)
    rates, cov = np.exp(-prediction.hyper.cells[1:]), np.exp(prediction.hyper.cells[0])

    def kernel(x: np.ndarray, z: np.ndarray) -> np.ndarray:
        gaps = np.abs(x[:, None] - z)
        gaps = np.where(cells.discrete, gaps > 0, gaps)
        return cov * np.exp(-gaps @ rates[list(cells.others)])

    nodes = np.column_stack(cells.nodes)
    cross = kernel(others, nodes)
    want = cov - np.einsum("nu,un->n", cross, np.linalg.solve(kernel(nodes, nodes), cross.T))
    assert_close(found, np.where(seen, 0.0, want), 1e6)
    assert_above(found[~seen].min(), 0.0, "variance left at cells that were not seen")
