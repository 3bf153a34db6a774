"""The evidence of every solver is the dense log marginal likelihood, and so are its derivatives."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac.bayes.evidence import Hyper, log_prior, maximize
from tenfac.bayes.grid_evidence import GridProblem
from tests.bayes.toys import TOYS, Toy, dense_gp, toy
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_relative
from tests.oracles import DenseGP

every_toy = pytest.mark.parametrize("case", TOYS.values(), ids=TOYS.keys())


def moved(hyper: Hyper, size: float, seed: int) -> Hyper:
    theta = hyper.pack()
    return Hyper.unpack(theta + size * np.random.default_rng(seed).normal(size=theta.size))


def dense_gradient(kernels, theta: np.ndarray, points: list[np.ndarray], y: np.ndarray) -> np.ndarray:
    """Central differences of the dense formula, one hyperparameter at a time."""

    def value(at: np.ndarray) -> float:
        return dense_gp(kernels, Hyper.unpack(at)).log_evidence(points, y)

    step = 1e-5
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
    for hyper in (case.hyper(seed=2), moved(case.hyper(seed=2), 0.1, 3)):
        value, gradient = problem.value_and_gradient(hyper.pack())
        want = dense_gradient(case.kernels, hyper.pack(), case.points, case.y)
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
    case = toy(("matern32", "matern52", None), 0, (9, 5, 4))
    hyper = case.hyper(4)
    small = Toy(case.kernels, _with(case, most=6))
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


def _with(case: Toy, **changes):
    from dataclasses import replace

    return replace(case.task, **changes)


# --- complete grids ---------------------------------------------------------------------------------------


GRIDS = {
    "D = 1": (("matern52",), (9,)),
    "D = 2": ((None, "matern32"), (4, 6)),
    "D = 3": (("matern12", None, "matern52"), (4, 3, 5)),
    "one index": (("matern32", "matern32"), (5, 1)),
}


@pytest.mark.parametrize(("kernels", "shape"), GRIDS.values(), ids=GRIDS.keys())
def test_evidence_and_gradient_on_a_complete_grid_are_the_dense_ones(kernels, shape) -> None:
    rng = np.random.default_rng(3)
    grids = tuple(
        np.arange(m) * 1.0 if k is None else np.sort(rng.random(m)) for k, m in zip(kernels, shape, strict=True)
    )
    values = rng.normal(size=shape)
    mesh = [part.ravel() for part in np.meshgrid(*grids, indexing="ij")]
    theta = np.concatenate([[0.3, -1.0], (rng.normal(size=(len(shape), 4)) * 0.3 + [0, -0.5, 0, 0.5]).ravel()])
    problem = GridProblem(kernels, grids, values)
    value, gradient = problem.value_and_gradient(theta)
    assert_equal(problem.n_obs, float(values.size))
    want = dense_gp(kernels, Hyper.unpack(theta)).log_evidence(mesh, values.ravel())
    assert_close(value, want, factor=1e4)
    assert_relative(gradient, dense_gradient(kernels, theta, mesh, values.ravel()), 1e-7)


@pytest.mark.parametrize("shape", [(12,), (5, 7), (7, 5), (3, 6, 4), (6, 3, 4)])
def test_a_complete_grid_in_any_row_order_is_found_and_has_the_same_evidence(shape) -> None:
    case = full_grid(shape, seed=1)
    grid = case.task.complete_grid()
    assert grid is not None
    assert_equal(grid.values.shape, shape)
    hyper = case.hyper(1)
    want = case.dense(hyper).log_evidence(case.points, case.y)
    assert_close(grid.value_and_gradient(hyper.pack())[0], want, factor=1e5)


def test_a_grid_with_a_missing_cell_keeps_its_complete_slices() -> None:
    case = full_grid((8, 3, 4), seed=2)
    row = 17
    keep = np.arange(case.y.size) != row
    task = _with(
        case, positions=tuple(x[keep] for x in case.task.positions), y=case.y[keep], weights=np.ones(keep.sum())
    )
    grid = task.complete_grid()
    whole = case.task.complete_grid()
    gone = np.searchsorted(case.task.grids[0], case.task.positions[0][row])
    assert_equal(grid.values, np.delete(whole.values, gone, axis=0))
    assert_equal(grid.grids[0], np.delete(whole.grids[0], gone))


def test_repeats_weights_ranks_and_scattered_rows_are_no_complete_grid() -> None:
    case = full_grid((5, 4), seed=1)
    twice = {
        "positions": tuple(np.append(x, x[0]) for x in case.task.positions),
        "y": np.append(case.y, 1.0),
        "weights": np.ones(case.y.size + 1),
    }
    assert _with(case, weights=np.full(case.y.size, 2.0)).complete_grid() is None
    assert _with(case, rank=(None, 2)).complete_grid() is None
    assert TOYS["exact continuous and last, D = 2"].task.complete_grid() is None
    swapped = [x.copy() for x in case.task.positions]
    swapped[1][:] = swapped[1][0]  # every slice has the right number of rows, in one cell
    assert _with(case, positions=tuple(swapped)).complete_grid() is None
    kept = _with(case, **twice).complete_grid()
    assert kept is None or kept.values.shape == (4, 4)


def full_grid(shape: tuple[int, ...], seed: int) -> Toy:
    """Every cell once, in random order; the exact mode is the longest."""
    rng = np.random.default_rng([seed, *shape])
    kernels = ("matern32", None, "matern52")[: len(shape)]
    grids = tuple(
        np.arange(m) * 1.0 if k is None else np.sort(rng.random(m)) for k, m in zip(kernels, shape, strict=True)
    )
    order = rng.permutation(int(np.prod(shape)))
    positions = tuple(part.ravel()[order] for part in np.meshgrid(*grids, indexing="ij"))
    rank, exact = (None,) * len(shape), int(np.argmax(shape))
    base = toy(kernels, exact, tuple(max(m, 3) for m in shape)).task
    from dataclasses import replace

    task = replace(
        base, grids=grids, positions=positions, y=rng.normal(size=order.size), weights=np.ones(order.size), rank=rank
    )
    return Toy(kernels, task)


# --- the search -------------------------------------------------------------------------------------------


def test_hyperparameters_survive_packing() -> None:
    hyper = TOYS["exact discrete, D = 3"].hyper(3)
    back = Hyper.unpack(hyper.pack())
    assert_equal((back.scale, back.noise), (hyper.scale, hyper.noise))
    assert_equal(back.modes, hyper.modes)


def test_the_start_has_prior_variance_one() -> None:
    for size in (1, 2, 4):
        start = dense_gp(("matern32",) * size, Hyper.start(size))
        x = [np.array([0.4])] * size
        assert_close(start.covariance(x, x), np.ones((1, 1)))


def test_gradient_of_the_hyperprior_is_its_difference_quotient() -> None:
    theta = np.random.default_rng(0).normal(size=10)
    _, gradient = log_prior(theta)
    step = 1e-6 * np.eye(10)
    want = np.array([(log_prior(theta + e)[0] - log_prior(theta - e)[0]) / 2e-6 for e in step])
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
    prior, slope = log_prior(best.pack())
    assert_close(value, dense.log_evidence(case.points, case.y) + prior, factor=1e7)
    total = problem.value_and_gradient(best.pack())[1] + slope
    inside = (best.modes.ravel()[3::4] > 1e-6) & (best.modes.ravel()[3::4] < 1 - 1e-6)
    free = np.ones(total.size, dtype=bool)
    free[5::4] = inside  # a center may end at the edge of the axis
    assert_below(np.abs(total[free]).max(), 1e-2, "gradient at the maximum")
    assert_above(value, problem.log_evidence(hyper) + log_prior(hyper.pack())[0] + 1, "objective")
