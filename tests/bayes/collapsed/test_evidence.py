"""The evidence of every solver is the dense log marginal likelihood, and so are its derivatives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tenfac.bayes.collapsed.evidence import maximize
from tenfac.bayes.collapsed.grid_evidence import GridProblem
from tenfac.bayes.collapsed.hyper import Hyper, log_prior
from tenfac.bayes.collapsed.search import Task
from tests.bayes.toys import TOYS, Kernels, Toy, dense_gp, loadings_of, toy
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_relative
from tests.oracles import DenseGP

every_toy = pytest.mark.parametrize("case", TOYS.values(), ids=TOYS.keys())


def moved(hyper: Hyper, size: float, seed: int) -> Hyper:
    theta = hyper.pack()
    return hyper.unpack(theta + size * np.random.default_rng(seed).normal(size=theta.size))


def dense_gradient(kernels, hyper: Hyper, points: list[np.ndarray], y: np.ndarray) -> np.ndarray:
    """Central differences of the dense formula, one hyperparameter at a time."""

    def value(at: np.ndarray) -> float:
        return dense_gp(kernels, hyper.unpack(at)).log_evidence(points, y)

    step, theta = 1e-5, hyper.pack()
    return np.array([(value(theta + e) - value(theta - e)) / (2 * step) for e in step * np.eye(theta.size)])


# --- scattered observations -------------------------------------------------------------------------------


@every_toy
def test_evidence_is_the_dense_log_marginal_likelihood_at_the_reference(case: Toy) -> None:
    hyper = case.hyper(seed=1)
    want = case.dense(hyper).log_evidence(case.points, case.y)
    assert_close(case.problem(hyper).log_evidence(hyper), want, factor=1e5)


@every_toy
def test_evidence_is_the_dense_log_marginal_likelihood_at_moved_hyperparameters(case: Toy) -> None:
    problem = case.problem(case.hyper(seed=1))
    for seed in range(3):
        hyper = moved(case.hyper(seed=1), 0.2, seed)
        want = case.dense(hyper).log_evidence(case.points, case.y)
        assert_close(problem.log_evidence(hyper), want, factor=1e6)


@every_toy
def test_gradient_is_the_difference_quotient_of_the_dense_formula(case: Toy) -> None:
    problem = case.problem(case.hyper(seed=2))
    hyper = moved(case.hyper(seed=2), 0.1, 3)  # not those of the basis
    value, gradient = problem.value_and_gradient(hyper)
    want = dense_gradient(case.kernels, hyper, case.points, case.y)
    assert_close(value, problem.log_evidence(hyper), factor=1e4)
    assert_equal(gradient.shape, want.shape)
    for number, (one, other) in enumerate(zip(gradient, want, strict=True)):
        assert_below(abs(one - other), 1e-6 * (1 + abs(other)), f"entry {number}")


@every_toy
def test_a_different_reference_basis_gives_the_same_evidence(case: Toy) -> None:
    hyper = case.hyper(seed=1)
    elsewhere = case.problem(moved(hyper, 0.3, 8))
    assert_close(elsewhere.log_evidence(hyper), case.problem(hyper).log_evidence(hyper), factor=1e6)


def test_evidence_counts_repeats_as_rows() -> None:
    case = TOYS["exact continuous, D = 3"]
    assert_equal(case.problem(case.hyper(1)).n_obs, float(case.y.size))
    assert_above(case.y.size, case.task.y.size + 1, "rows with their repeats")


def test_evidence_of_a_truncated_basis_is_that_of_the_truncated_covariance() -> None:
    case = toy(("matern32", "matern52", "matern12"), 0, (9, 5, 4))  # labels: equal variances, no six largest
    hyper = case.hyper(4)
    small = Toy(case.kernels, replace(case.task, most=6))
    dense = case.dense(hyper)
    # products of eigenfunctions of the other modes on their indices, the six of largest variance
    pairs = [np.linalg.eigh(dense.modes[n].covariance(*[case.task.grids[n]] * 2)) for n in (1, 2)]
    variance = np.multiply.outer(pairs[0][0], pairs[1][0])
    kept = np.argsort(-variance.ravel())[:6]
    vectors = np.kron(pairs[0][1], pairs[1][1])[:, kept]
    cells = [np.searchsorted(case.task.grids[n], case.points[n]) for n in (1, 2)]
    rows = (vectors * np.sqrt(variance.ravel()[kept]))[cells[0] * 4 + cells[1]]
    exact = dense.modes[0].covariance(case.points[0], case.points[0])
    cov = dense.scale * exact * (rows @ rows.T) + dense.noise_variance * np.eye(case.y.size)
    fit = case.y @ np.linalg.solve(cov, case.y)
    want = -0.5 * float(fit + np.linalg.slogdet(cov)[1] + case.y.size * np.log(2 * np.pi))
    # products beyond 64 may be dropped for being negligible; these 20 may only be dropped for `most`
    problem = small.problem(hyper)
    assert_equal(problem.basis.size, 6)
    assert_close(problem.log_evidence(hyper), want, factor=1e5)


# --- grids ------------------------------------------------------------------------------------------------


GRIDS = {
    "D = 1": (("matern52",), (9,)),
    "D = 2": ((None, "matern32"), (4, 6)),
    "D = 3": (("matern12", None, "matern52"), (4, 3, 5)),
    "oscillator, D = 2": (("oscillator", None), (6, 4)),
    "one index": (("matern32", "matern32"), (5, 1)),
}


@pytest.mark.parametrize(("kernels", "shape"), GRIDS.values(), ids=GRIDS.keys())
def test_evidence_and_gradient_on_a_complete_grid_are_the_dense_ones(kernels, shape) -> None:
    rng = np.random.default_rng(3)
    grids = grids_of(kernels, shape, rng)
    values = rng.normal(size=shape)
    mesh = [part.ravel() for part in np.meshgrid(*grids, indexing="ij")]
    sizes = [m if kernel is None else 0 for kernel, m in zip(kernels, shape, strict=True)]
    modes = rng.normal(size=(len(shape), 4)) * 0.3 + [0, -0.5, 0, 0.5]
    hyper = Hyper(0.3, -1.0, modes, loadings_of(sizes, rng))
    problem = GridProblem(kernels, grids, values, np.zeros(shape, dtype=bool))
    value, gradient = problem.value_and_gradient(hyper)
    assert_equal(problem.n_obs, float(values.size))
    want = dense_gp(kernels, hyper).log_evidence(mesh, values.ravel())
    assert_close(value, want, factor=1e4)
    assert_relative(gradient, dense_gradient(kernels, hyper, mesh, values.ravel()), 1e-7)


@pytest.mark.parametrize("shape", [(5, 7), (7, 5), (3, 6, 4), (6, 3, 4)])
def test_a_complete_grid_in_any_row_order_is_found_and_has_the_same_evidence(shape) -> None:
    case = full_grid(shape, seed=1)
    grid = case.task.grid()
    assert grid is not None
    assert_equal(grid.values.shape, shape)
    assert not grid.missing.any()
    hyper = case.hyper(1)
    want = case.dense(hyper).log_evidence(case.points, case.y)
    assert_close(grid.value_and_gradient(hyper)[0], want, factor=1e5)


def test_a_grid_knows_its_missing_cells_and_holds_the_others() -> None:
    case = full_grid((8, 3, 4), seed=2)
    keep = np.random.default_rng(0).random(case.y.size) < 0.9
    grid, whole = part_of(case, keep).grid(), case.task.grid()
    assert_equal(int(grid.missing.sum()), int((~keep).sum()))
    assert_equal(grid.values[~grid.missing], whole.values[~grid.missing])
    codes = [np.searchsorted(g, x[~keep]) for g, x in zip(case.task.grids, case.task.positions, strict=True)]
    assert grid.missing[tuple(codes)].all()


def test_repeats_weights_ranks_and_sparse_rows_are_no_grid() -> None:
    case = full_grid((5, 4), seed=1)
    task, ones = case.task, np.ones(case.y.size)
    assert task.grid() is not None
    assert replace(task, weights=2 * ones).grid() is None
    assert replace(task, rank=(2, None)).grid() is None
    assert part_of(case, np.arange(case.y.size) < 8).grid() is None
    positions = tuple(np.append(x[1:], x[-1]) for x in task.positions)  # one row twice, one cell missing
    assert replace(task, positions=positions).grid() is None


def test_missing_cells_are_drawn_from_their_posterior_and_the_others_are_kept() -> None:
    case = full_grid((5, 7), seed=3)
    hyper = replace(case.hyper(1), noise=-2.0)
    keep = np.random.default_rng(1).random(case.y.size) < 0.85
    task = part_of(case, keep)
    grid = task.grid()
    draws = [grid.redrawn(hyper, np.random.default_rng(seed)).values for seed in range(400)]
    for values in draws[:3]:
        assert_equal(values[~grid.missing], grid.values[~grid.missing])
    drawn = np.array([values[grid.missing] for values in draws])
    cells = [g[code] for g, code in zip(task.grids, np.nonzero(grid.missing), strict=True)]
    mean, cov = case.dense(hyper).predict(task.positions, task.y, cells)
    std = np.sqrt(np.diag(cov) + np.exp(hyper.noise))
    error = 5 / np.sqrt(
        len(draws)
    )  # five standard errors, in units of std; of a std they are 1 / sqrt(2) of it
    assert_below(np.abs((drawn.mean(axis=0) - mean) / std).max(), error, "distance of the mean")
    assert_below(np.abs(drawn.std(axis=0) / std - 1).max(), error / np.sqrt(2), "distance of the std")


def test_a_complete_grid_has_nothing_to_redraw() -> None:
    case = full_grid((5, 7), seed=3)
    grid = case.task.grid()
    assert grid.redrawn(case.hyper(1), np.random.default_rng(0)) is grid


def grids_of(kernels: Kernels, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    return tuple(
        np.arange(m) * 1.0 if k is None else np.sort(rng.random(m))
        for k, m in zip(kernels, shape, strict=True)
    )


def part_of(case: Toy, keep: np.ndarray) -> Task:
    """The task with some of its rows (every index still known)."""
    positions = tuple(x[keep] for x in case.task.positions)
    return replace(case.task, positions=positions, y=case.y[keep], weights=np.ones(int(keep.sum())))


def full_grid(shape: tuple[int, ...], seed: int) -> Toy:
    """Every cell once, in random order; the exact mode is the longest."""
    rng = np.random.default_rng([seed, *shape])
    kernels = ("matern32", None, "matern52")[: len(shape)]
    grids = grids_of(kernels, shape, rng)
    order = rng.permutation(int(np.prod(shape)))
    positions = tuple(part.ravel()[order] for part in np.meshgrid(*grids, indexing="ij"))
    rank, exact = (None,) * len(shape), int(np.argmax(shape))
    base = toy(kernels, exact, tuple(max(m, 3) for m in shape)).task
    task = replace(
        base,
        grids=grids,
        positions=positions,
        y=rng.normal(size=order.size),
        weights=np.ones(order.size),
        rank=rank,
    )
    return Toy(kernels, task)


# --- the search -------------------------------------------------------------------------------------------


def test_hyperparameters_survive_packing() -> None:
    hyper = TOYS["exact discrete, alike levels"].hyper(3)
    back = hyper.unpack(hyper.pack())
    assert_equal(hyper.loadings[0].shape, (7, 2))
    for got, want in zip(back.loadings, hyper.loadings, strict=True):
        assert_equal(got, want)
    assert_equal((back.scale, back.noise), (hyper.scale, hyper.noise))
    assert_equal(back.modes, hyper.modes)


def test_the_start_has_prior_variance_one() -> None:
    for size in (1, 2, 4):
        start = dense_gp(("matern32",) * size, Hyper.start(size))
        x = [np.array([0.4])] * size
        assert_close(start.covariance(x, x), np.ones((1, 1)))


def test_gradient_of_the_hyperprior_is_its_difference_quotient() -> None:
    hyper = TOYS["exact discrete, alike levels"].hyper(3)
    theta = hyper.pack()
    _, gradient = log_prior(hyper)
    at = [(hyper.unpack(theta + e), hyper.unpack(theta - e)) for e in 1e-6 * np.eye(theta.size)]
    want = np.array([(log_prior(above)[0] - log_prior(below)[0]) / 2e-6 for above, below in at])
    assert_relative(gradient, want, 1e-7)


def test_maximize_ends_where_the_gradient_of_the_posterior_vanishes() -> None:
    case = TOYS["exact continuous, D = 3"]
    hyper = case.hyper(1)
    problem = case.problem(hyper)
    ticks: list[int] = []
    best, value, n_iter, n_evals, converged = maximize(problem, hyper, 200, 1e-12, lambda: ticks.append(1))
    assert converged
    assert_equal(len(ticks), n_iter)
    assert_above(n_evals, n_iter, "evaluations")
    dense: DenseGP = case.dense(best)
    prior, slope = log_prior(best)
    assert_close(value, dense.log_evidence(case.points, case.y) + prior, factor=1e7)
    total = problem.value_and_gradient(best)[1] + slope
    inside = (best.modes.ravel()[3::4] > 1e-6) & (best.modes.ravel()[3::4] < 1 - 1e-6)
    free = np.ones(total.size, dtype=bool)
    free[5::4] = inside  # a center may end at the edge of the axis
    assert_below(np.abs(total[free]).max(), 1e-2, "gradient at the maximum")
    assert_above(value, problem.log_evidence(hyper) + log_prior(hyper)[0] + 1, "objective")


@pytest.mark.parametrize("name", ["exact discrete, D = 3", "exact continuous and last, D = 2"])
def test_precisions_of_rows_are_noise_variances_that_differ(name: str) -> None:
    case = TOYS[name]
    hyper, rng = case.hyper(2), np.random.default_rng(0)
    precision = rng.gamma(2.0, 0.5, case.task.y.size)
    problem = replace(case.task, precision=precision).problem(hyper)
    repeated = np.repeat(precision, case.task.weights.astype(int))

    def dense(theta: np.ndarray) -> float:
        gp = case.dense(hyper.unpack(theta))
        cov = gp.covariance(case.points, case.points) + gp.noise_variance * np.diag(1 / repeated)
        fit = case.y @ np.linalg.solve(cov, case.y)
        return -0.5 * float(fit + np.linalg.slogdet(2 * np.pi * cov)[1])

    value, gradient = problem.value_and_gradient(hyper)
    theta = hyper.pack()
    assert_close(value, dense(theta), factor=1e6)
    want = [(dense(theta + e) - dense(theta - e)) / 2e-5 for e in 1e-5 * np.eye(theta.size)[:2]]
    assert_relative(gradient[:2], np.array(want), 1e-5)


def test_maximize_leaves_alone_what_is_fixed() -> None:
    case = TOYS["exact continuous and last, D = 2"]
    task = replace(case.task, fixed_noise=True)
    hyper = replace(case.hyper(1), noise=0.0)
    assert_equal((task.start().noise, case.task.start().noise, case.task.fixed(hyper)), (0.0, -3.0, None))
    best = maximize(case.problem(hyper), hyper, 50, 1e-9, lambda: None, task.fixed(hyper))[0]
    assert_equal(best.noise, 0.0)
    assert_above(abs(best.scale - hyper.scale), 0.1, "move of the scale")
    free = maximize(case.problem(hyper), hyper, 50, 1e-9, lambda: None)[0]
    assert_above(abs(free.noise), 0.01, "move of the noise")


def test_one_continuous_mode_alone_is_left_to_the_filter() -> None:
    assert full_grid((12,), seed=1).task.grid() is None
