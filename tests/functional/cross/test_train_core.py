"""Functions of five variables and more: trains, their order, their evaluations, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tenfac import ConvergenceWarning, Tucker, TuckerTrain, chebyshev_tucker, compose
from tenfac.functional.build import _aim
from tenfac.functional.cross.chain_order import chain_order
from tenfac.functional.cross.core_grid import grown
from tenfac.functional.cross.evaluator import Evaluator
from tenfac.functional.cross.train_core import TrainCore, chain_values
from tenfac.functional.finish import shortened_train
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_relative, quietly
from tests.functional.battery import points_of

SIX = [(-1.0, 1.0)] * 6
RATES = np.random.default_rng(5).uniform(-1, 1, (4, 6))


def coulomb(*x: Any) -> Any:
    return 1 / np.sqrt(sum((x[n] - x[n + 3]) ** 2 for n in range(3)) + 1)


def exponentials(*x: Any) -> Any:
    return sum(np.exp(sum(r * v for r, v in zip(row, x, strict=False))) for row in RATES)


def gaussian(*x: Any) -> Any:
    far = sum((v - c) ** 2 for v, c in zip(x, (0.3, -0.2, 0.5, 0.1, -0.5, 0.0), strict=True))
    return np.exp(-20 * far - 10 * (x[0] - 0.3) * (x[3] - 0.1))


def corner(*x: Any) -> Any:
    return np.exp(10 * sum(x) - 60) + np.sin(x[0] * x[4])


def error_of(F: Any, f: Any, domain: Any, peak: Any = None, count: int = 20_000) -> float:
    points = points_of(domain, peak, count)
    true = f(*points)
    return float(np.abs(F.at(*points) - true).max() / np.abs(true).max())


# --- errors, evaluations, ranks -----------------------------------------------------------------------------


# name: (function, variables, evaluations allowed at tol=1e-6, multilinear rank)
SEVERAL = {
    "exponentials of 5": (exponentials, 5, 2_500, (4,) * 5),
    "exponentials of 6": (exponentials, 6, 3_000, (4,) * 6),
    "product": (
        lambda *x: np.prod([np.cos(n + n * v) for n, v in enumerate(x, 1)], axis=0),
        6,
        800,
        (1,) * 6,
    ),
    "sine of the sum": (lambda *x: np.sin(sum(x)), 6, 1_500, (2,) * 6),
    "sine of ten": (lambda *x: np.sin(sum(x)), 10, 3_000, (2,) * 10),
    "reciprocal": (lambda *x: 1 / (7 + sum(x)), 6, 10_000, None),
    "gaussian": (gaussian, 6, 10_000, None),
    "corner": (corner, 6, 6_000, None),
    "constant": (lambda *_: 3.0, 6, 510, (1,) * 6),
    "of one variable": (lambda *x: np.exp(x[2]), 6, 510, (1,) * 6),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_functions_of_many_variables_keep_the_tolerance_and_the_number_of_evaluations(name: str) -> None:
    f, d, allowed, rank = SEVERAL[name]
    domain = [(-1.0, 1.0)] * d
    F = chebyshev_tucker(f, domain, 1e-6)
    assert F.info.converged
    assert_below(F.info.n_evals, allowed, "evaluations")
    peak = {"gaussian": (0.3, -0.2, 0.5, 0.1, -0.5, 0.0), "corner": (1,) * 6}.get(name)
    assert_below(error_of(F, f, domain, peak), 2e-6, "error")
    if rank is not None:
        assert_equal(F.rank, rank)


def test_a_distance_of_two_points_in_space_takes_few_evaluations_and_pairs_their_coordinates() -> None:
    F = chebyshev_tucker(coulomb, SIX, 1e-6)
    assert F.info.converged
    assert isinstance(F, TuckerTrain)
    assert_below(F.info.n_evals, 80_000, "evaluations")
    assert_below(error_of(F, coulomb, SIX), 2e-6, "error")
    assert_below(F.n_params, 20_000, "numbers")
    pairs = {frozenset(n % 3 for n in F.order[k : k + 2]) for k in (0, 2, 4)}
    assert_equal(pairs, {frozenset({n}) for n in range(3)})


@pytest.mark.parametrize(
    ("tol", "ndim", "want"),
    [
        (1e-6, 3, 1e-6),
        (1e-6, 4, 1e-6),
        (1e-6, 5, 8e-7),
        (1e-6, 8, 5e-7),
        (1.5e-12, 8, 1e-12),
        (1e-13, 8, 1e-13),
    ],
)
def test_less_is_aimed_at_where_points_see_less_of_the_box(tol: float, ndim: int, want: float) -> None:
    assert_relative(_aim(tol, ndim), want, 1e-15)


def test_the_distance_in_four_dimensions_keeps_the_tolerance_where_few_points_look() -> None:
    def distance(*x: Any) -> Any:
        return 1 / (1 + sum((x[n] - x[n + 4]) ** 2 for n in range(4)))

    domain = [(-1.0, 1.0)] * 8
    F = chebyshev_tucker(distance, domain, 1e-4)
    assert F.info.converged
    assert_below(error_of(F, distance, domain, count=100_000), 1e-4, "error")


@pytest.mark.slow
@pytest.mark.parametrize("tol", [1e-6, 1e-10])
@pytest.mark.parametrize("seed", range(4))
def test_the_distance_keeps_the_tolerance_whatever_the_seed(tol: float, seed: int) -> None:
    F = chebyshev_tucker(coulomb, SIX, tol, random_state=seed)
    assert F.info.converged
    assert_below(F.info.n_evals, 300_000, "evaluations")
    assert_below(error_of(F, coulomb, SIX, count=100_000), 2 * tol, "error")


def test_the_smaller_of_the_two_formats_is_returned() -> None:
    few = chebyshev_tucker(lambda *x: np.sin(sum(x)), [(-1, 1)] * 5)  # 32 numbers in a core, or in a train
    many = chebyshev_tucker(lambda *x: np.sin(sum(x)), SIX)
    assert_equal((type(few), type(many)), (Tucker, TuckerTrain))


def test_the_same_seed_gives_the_same_train() -> None:
    a, b = (chebyshev_tucker(lambda *x: 1 / (7 + sum(x)), SIX, 1e-6, random_state=2) for _ in range(2))
    for got, want in zip([*a.cores, *a.factors], [*b.cores, *b.factors], strict=True):
        assert_equal(got, want)


def test_factors_of_a_train_are_orthonormal() -> None:
    F = chebyshev_tucker(exponentials, SIX, 1e-8)
    for factor in F.factors:
        assert_below(np.abs(factor.T @ factor - np.eye(factor.shape[1])).max(), 1e-14, "distance from I")


def test_compose_finds_trains() -> None:
    F = chebyshev_tucker(lambda *x: sum(x), SIX)
    G = compose(lambda v: 1 / (7 + v), F, tol=1e-6)
    assert isinstance(G, TuckerTrain)
    assert_below(error_of(G, lambda *x: 1 / (7 + sum(x)), SIX), 2e-6, "error")
    assert_below(error_of(F * G, lambda *x: sum(x) / (7 + sum(x)), SIX), 2e-6, "error of a product")


# --- what it cannot do --------------------------------------------------------------------------------------


REFUSED = {
    "|x - y|": lambda *x: np.abs(x[0] - x[1]),
    "|sum|": lambda *x: np.abs(sum(x)),
    "cusp": lambda *x: np.exp(-np.sqrt(sum(v * v for v in x))),
    "step": lambda *x: (x[0] + x[1] * x[2] + x[5] > 0.1) * 1.0,
    "pole": lambda *x: 1 / (sum(x) + 0.123),
    "noise": lambda *x: np.cos(x[0]) + 1e-4 * np.sin(1e8 * x[0] * (x[1] + 2) * (x[5] + 3)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_smooth_in_many_variables_never_counts_as_converged(name: str) -> None:
    with pytest.warns(ConvergenceWarning):
        F = chebyshev_tucker(REFUSED[name], SIX, 1e-6, max_evals=50_000)
    assert not F.info.converged
    assert_below(F.info.n_evals, 50_000, "evaluations")


@pytest.mark.parametrize("max_evals", [1, 200, 2_000, 20_000])
def test_the_limit_of_evaluations_is_kept_and_what_was_found_is_of_use(max_evals: int) -> None:
    spent = []

    def counted(*x: Any) -> Any:
        spent.append(len(x[0]))
        return coulomb(*x)

    with pytest.warns(ConvergenceWarning, match=f"max_evals={max_evals} reached"):
        F = chebyshev_tucker(counted, SIX, 1e-6, max_evals=max_evals)
    assert_equal(F.info.n_evals, sum(spent))
    assert_below(F.info.n_evals, max_evals, "evaluations")
    if max_evals == 20_000:
        assert_below(error_of(F, coulomb, SIX), 0.05, "error")


def test_a_function_of_high_rank_stops_at_the_limit() -> None:
    root = np.random.default_rng(3).standard_normal((6, 6))

    def f(*x: Any) -> Any:
        return 1 / np.sqrt(1 + np.sum((root @ np.array(x)) ** 2, axis=0) / 6)

    F = quietly(chebyshev_tucker, f, SIX, 1e-8, max_evals=40_000)
    assert not F.info.converged
    assert_above(F.info.rel_error, 1e-8, "residual")


# --- the parts ----------------------------------------------------------------------------------------------


def train_of(f: Any, lengths: Any, tol: float = 1e-8) -> tuple[TrainCore, np.ndarray]:
    """A train of a tensor of values on a grid, and the tensor."""
    places = [np.linspace(-1, 1, n) for n in lengths]
    evaluate = Evaluator(f, [(-1, 1)] * len(lengths), 10**6, True)
    train = TrainCore(evaluate, len(lengths), tol, np.random.default_rng(0))
    train.grow(places)
    return train, f(*np.meshgrid(*places, indexing="ij"))


def test_a_train_meets_the_entries_of_the_core_it_stands_for() -> None:
    train, want = train_of(lambda *x: 1 / (7 + sum(x)), (4, 5, 3, 4, 5))
    got = train.at([np.eye(n)[i.ravel()] for n, i in zip(want.shape, np.indices(want.shape), strict=True)])
    assert_below(np.abs(got - want.ravel()).max(), 1e-8 * want.max(), "error")
    assert_below(train.evaluate.n_evals, want.size, "evaluations")
    assert_equal(train.shape, want.shape)


def test_one_mode_left_open_gives_the_lines_through_the_core() -> None:
    train, want = train_of(lambda *x: np.exp(x[0] * x[3]) + x[1] * x[2] * x[4], (3, 4, 3, 4, 2))
    ends = [np.eye(n)[:2] for n in want.shape]
    for mode in range(5):
        lines = train.along(mode, [None if n == mode else rows for n, rows in enumerate(ends)])
        places = [slice(None) if n == mode else None for n in range(5)]
        exact = [want[tuple(k if place is None else place for place in places)] for k in range(2)]
        assert_close(lines, np.stack(exact), factor=1e4)


def test_growing_evaluates_only_what_is_new() -> None:
    train, _ = train_of(lambda *x: np.sin(sum(x)), (3, 3, 3, 3, 3))
    seen = train.evaluate.n_evals
    train.grow([*train.places[:4], np.linspace(-1, 1, 3)])
    assert_below(train.evaluate.n_evals - seen, 400, "evaluations")  # those of the checks
    old = np.arange(6.0).reshape(2, 3)
    asked = []
    new = grown(old, (3, 4), lambda spans: asked.append(spans) or -1.0)
    assert_equal(new[:2, :3], old)
    assert_equal((len(asked), float(new.sum())), (2, 15.0 - 6))


def test_the_only_entry_of_a_core_is_evaluated_once_for_each_bond_and_no_other() -> None:
    evaluate = Evaluator(lambda *x: np.cos(sum(x)), SIX, 1000, True)
    core = TrainCore(evaluate, 6, 1e-8, np.random.default_rng(0))
    core.grow([np.array([0.1])] * 6)
    assert_equal(evaluate.n_evals, 6)
    assert_close(core.at([np.ones((1, 1))] * 6), np.cos([0.6]))


def test_modes_that_depend_on_each_other_become_neighbors_and_a_symmetric_function_keeps_its_order() -> None:
    linked = ({0, 4}, {1, 3}, {2, 5})

    def weight(modes: Any) -> float:
        return float(sum(len(pair & set(modes)) == 1 for pair in linked))

    order = chain_order(weight, range(6))
    assert_equal({frozenset(order[k : k + 2]) for k in (0, 2, 4)}, {frozenset(pair) for pair in linked})
    assert_equal(chain_order(lambda _: 1.0, range(6)), list(range(6)))


def test_a_shortened_train_moves_by_no_more_than_the_budget() -> None:
    rng = np.random.default_rng(0)
    cores = [rng.standard_normal(shape) for shape in ((1, 3, 4), (4, 3, 4), (4, 3, 1))]
    factors = [rng.standard_normal((9, 3)) * np.geomspace(1, 1e-12, 9)[:, None] for _ in range(3)]
    short, lower, lost = shortened_train(cores, factors, 1e-5)
    assert_below(lost, 1e-5, "largest change")
    assert_below(max(len(factor) for factor in lower), 6, "coefficients")
    x = rng.uniform(-1, 1, (500, 3))
    before, after = (
        chain_values(
            c, [np.polynomial.chebyshev.chebvander(x[:, n], len(f) - 1) @ f for n, f in enumerate(fs)]
        )
        for c, fs in ((cores, factors), (short, lower))
    )
    assert_below(np.abs(after - before).max(), 2e-5, "change")
