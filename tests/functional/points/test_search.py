"""The search for the size of a model: which ranks are tried, which changes, and when it ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tenfac.functional.points import search as module
from tenfac.functional.points.search import Found, Model, Search
from tenfac.functional.points.start import PolynomialFit, Prior
from tests.checks import assert_above, assert_below, assert_close, assert_equal

RNG = np.random.default_rng(0)


class Told(Search):
    """A search in which models are not fitted but have the scores of a function."""

    def __init__(self, score: Callable[[Model], float], d: int = 3, fixed: Sequence[str] = ()) -> None:
        super().__init__([np.ones((400, 30))] * d, np.ones(400), np.ones(400), None, fixed)
        self.score, self.models, self.started = score, [], []

    def fit(self, model: Model, core: Any, _factors: Any) -> Found:
        self.tried += 1
        self.models.append(model)
        self.started.append(core)
        return Found(model, "old", (), self.score(model))

    def _more(self, _found: Found) -> Any:
        return "more", ()


def model_of(rank: tuple[int, ...], size: int = 6) -> Model:
    return Model(rank, (size,) * len(rank), Prior((1.5,) * len(rank)), 1e-3)


def begun(search: Told, model: Model) -> Found:
    return Found(model, "old", (), search.score(model))


# --- the path of ranks --------------------------------------------------------------------------------------


# scores of ranks 1, 2, ...; ranks tried; the best
PATHS = {
    "better and better": ([9, 8, 7, 6, 5, 4, 3], 7, 7),
    "one may fail": ([9, 5, 6, 3, 3, 3, 3], 6, 4),
    "the first may": ([5, 6, 3, 3, 3, 1, 1], 5, 3),
    "two may not": ([9, 5, 6, 6, 1, 1, 1], 4, 2),
    "hardly better is not better": ([9, 5, 4.995, 4.995, 1, 1, 1], 4, 2),
    "nothing is left": ([9, 1e-27, 0, 0, 0, 0, 0], 2, 2),
}


@pytest.mark.parametrize("name", PATHS)
def test_ranks_grow_until_two_in_a_row_are_no_better_or_nothing_is_left(name: str) -> None:
    scores, tried, best = PATHS[name]
    search = Told(lambda model: float(scores[model.rank[0] - 1]), 2)
    tensor = np.diag(5 * 0.5 ** np.arange(7))
    found = search._grown(model_of((1, 1), 7), tensor, [np.eye(7)] * 2)
    assert_equal([model.rank for model in search.models], [(r, r) for r in range(1, tried + 1)])
    assert_equal(found.model.rank, (best, best))
    assert_equal(search.started[1:], ["more"] * (tried - 1))


def test_ranks_are_those_of_each_mode_and_end_where_rows_do_not_suffice() -> None:
    tensor = np.zeros((4, 4, 4))
    tensor[0, 0, 0], tensor[1, 1, 0], tensor[0, 1, 0] = 4, 2, 1
    search = Told(lambda model: 1 / math.prod(model.rank))
    search._grown(model_of((1, 1, 1), 4), 1e-3 * tensor, [np.eye(4)] * 3)
    assert_equal([model.rank for model in search.models], [(1, 1, 1), (2, 2, 1)])
    full = Told(lambda model: 1 / math.prod(model.rank), 2)
    full._grown(model_of((1, 1), 30), np.diag(0.5 ** np.arange(30)), [np.eye(30)] * 2)
    assert_equal(full.models[-1].rank, (16, 16))  # shortened to as many coefficients: 256 numbers of 280
    fixed = Told(lambda model: 1 / math.prod(model.rank), 2, ["sizes"])
    fixed._grown(model_of((1, 1), 30), np.diag(0.5 ** np.arange(30)), [np.eye(30)] * 2)
    assert_equal(fixed.models[-1].rank, (5, 5))  # 275 numbers, and 324 of rank 6


def test_singular_values_are_seen_down_to_rounding_and_not_below() -> None:
    for least, rank in ((1e-13, 2), (1e-17, 1)):
        search = Told(lambda model: 1 / math.prod(model.rank), 2)
        found = search._grown(model_of((1, 1), 2), 1e3 * np.diag([1.0, least]), [np.eye(2)] * 2)
        assert_equal(found.model.rank, (rank, rank))


def test_ranks_are_cut_to_the_product_of_the_others_and_to_the_sizes() -> None:
    search = Told(lambda _: 1.0)
    for rank, allowed in (
        ((9, 2, 2), (4, 2, 2)),
        ((2, 9, 2), (2, 4, 2)),
        ((5, 1, 1), (1, 1, 1)),
        ((3, 3, 3), (3, 3, 3)),
        ((9, 8, 1), (6, 6, 1)),
        ((4, 2, 1), (2, 2, 1)),
    ):
        assert_equal(search._allowed(rank, model_of(rank)), allowed)


# --- changes ------------------------------------------------------------------------------------------------


def neighbors(search: Search, model: Model) -> list[Model]:
    """All models that one change away are worth a try."""
    d = len(model.rank)
    ranks = [tuple(r + s for r in model.rank) for s in (1, -1)]
    ranks += [tuple(r - (n == m) for n, r in enumerate(model.rank)) for m in range(d)]
    most = tuple(min(max(k + k // 3, k + 2), big) for k, big in zip(model.sizes, search.most, strict=True))
    others = [replace(model, rank=rank) for rank in ranks if search.fits(replace(model, rank=rank))]
    others += [replace(model, ridge=model.ridge * s) for s in module._RIDGED]
    others += [replace(model, prior=model.prior.changed(s)) for s in module._SMOOTHED]
    return others + [other for other in [replace(model, sizes=most)] if search.fits(other)]


def bowl(model: Model) -> float:
    """Least for a ridge of 1e-8, decays of 2, sizes about 15 and ranks (3, 2, 3)."""
    miss = sum((r - t) ** 2 for r, t in zip(model.rank, (3, 2, 3), strict=True))
    miss += sum((k - 15) ** 2 / 20 for k in model.sizes)
    return 1 + miss + math.log10(model.ridge / 1e-8) ** 2 + 9 * sum((b - 2) ** 2 for b in model.prior.decays)


def test_the_search_ends_where_no_single_change_helps() -> None:
    search = Told(bowl)
    best = search._improved(begun(search, model_of((2, 2, 2))))
    assert_equal(search.exhausted, False)
    worse = [search.score(other) / best.score for other in neighbors(search, best.model)]
    assert_above(len(worse), 8, "neighbors")
    assert_above(min(worse), module._GAIN, "score of a neighbor")
    assert_below(best.score, 2.5, "score")  # of more than 200 at the start
    assert_equal({"more" if m.rank > (2, 2, 2) else "old" for m in search.models}, {"more", "old"})


def test_every_change_is_tried_once_before_the_search_ends_and_again_after_one_that_helps() -> None:
    search = Told(lambda _: 1.0)
    start = begun(search, model_of((2, 2, 2)))
    best = search._improved(start)
    assert_equal((best.model, search.exhausted), (start.model, False))
    assert_equal(sorted(map(repr, search.models)), sorted(map(repr, neighbors(search, start.model))))
    last = Told(lambda model: 0.5 if model.rank == (2, 3, 2) else 1.0)
    best = last._improved(begun(last, model_of((2, 3, 3))))
    assert_equal(best.model.rank, (2, 3, 2))
    assert {repr(model) for model in neighbors(last, best.model)} <= {repr(model) for model in last.models}


def test_only_larger_ranks_start_from_a_fit_of_what_is_left() -> None:
    search = Told(lambda _: 1.0)
    search._improved(begun(search, model_of((2, 2, 2))))
    for model, core in zip(search.models, search.started, strict=True):
        assert_equal(core, "more" if max(model.rank) > 2 else "old")


def test_what_is_given_is_not_changed() -> None:
    for fixed, d in ((["rank"], 3), (["sizes"], 3), (["ridge"], 3), ([], 1)):
        search = Told(lambda _: 1.0, d, fixed)
        start = model_of((2,) * d if d > 1 else (1,))
        search._improved(begun(search, start))
        kept = {"rank", "sizes", "ridge"} & {*fixed, *(["rank"] if d == 1 else [])}
        for name in ("rank", "sizes", "ridge"):
            changed = any(getattr(model, name) != getattr(start, name) for model in search.models)
            assert_equal(changed, name not in kept)


def test_changes_that_change_nothing_are_not_tried() -> None:
    search = Told(lambda _: 1.0)
    start = replace(model_of((1, 1, 1), 30), prior=Prior((2.5,) * 3))
    search._improved(begun(search, start))
    assert start not in search.models
    assert_equal(len(search.models), 4)  # the ridge twice, slower decays, a rank more


def test_ranks_of_two_variables_are_changed() -> None:
    search = Told(lambda model: 1 / model.rank[0], 2)
    assert_above(search._improved(begun(search, model_of((2, 2), 5))).model.rank[0], 3, "rank")


def test_the_search_ends_at_80_models_and_says_that_changes_were_left() -> None:
    steps = iter(range(1000))
    search = Told(lambda _: 0.5 ** next(steps) * 1e9)  # each better than all before
    search._ridged = lambda model, factor: replace(model, ridge=model.ridge * factor)  # without end
    found = search._improved(Found(model_of((2, 2, 2)), "old", (), 1e10))
    assert_equal((search.tried, search.exhausted), (80, True))
    assert_above(found.score, 1e-26, "score")


def test_a_score_of_rounding_ends_the_search_once_what_led_there_helps_no_more() -> None:
    search = Told(lambda _: 1e-30)
    best = search._improved(Found(model_of((2, 2, 2)), "old", (), 1e-3))
    assert_equal((len(search.models), best.score, search.exhausted), (2, 1e-30, False))
    assert_equal(Told(lambda _: 1.0).tried, 0)
    assert_equal(Told(lambda _: 1.0).exhausted, False)


def test_a_ridge_is_never_zero_and_its_floor_grows_with_the_rows() -> None:
    search = Told(lambda _: 1.0)
    assert_close(search._ridged(model_of((1, 1, 1)), 0.5).ridge, 5e-4)
    floor = search._ridged(replace(model_of((1, 1, 1)), ridge=0.0), 0.5).ridge
    assert_above(floor, 1e-300, "ridge")
    assert_below(floor, 1e-13, "ridge")
    search.y = np.ones(800)
    assert_close(search._ridged(replace(model_of((1, 1, 1)), ridge=0.0), 0.5).ridge / floor, 2.0)


def test_more_coefficients_are_a_third_more_two_at_least_and_no_more_than_there_are() -> None:
    search = Told(lambda _: 1.0)
    sizes = search._longer(Model((1, 1, 1), (3, 18, 29), Prior((2.0,) * 3), 0.0))
    assert_equal(sizes, (5, 24, 30))


def test_a_model_of_the_same_size_may_be_tried_even_if_it_is_too_large() -> None:
    search = Told(lambda _: 1.0, 2, ["sizes"])
    large = Model((20, 20), (30, 30), Prior((2.0, 2.0)), 1.0)
    assert_equal(search.fits(large), False)
    assert_equal(search._may_try(replace(large, ridge=2.0), large), True)
    assert_equal(search._may_try(replace(large, rank=(21, 21)), large), False)
    assert_equal(search._may_try(replace(large, rank=(2, 2)), large), True)


# --- fits ---------------------------------------------------------------------------------------------------


def searched(y: np.ndarray, points: np.ndarray, prior: Prior, size: int) -> Search:
    bases = [np.polynomial.chebyshev.chebvander(x, size - 1) for x in points]
    return Search(bases, y, np.ones(len(y)), PolynomialFit(bases, np.ones(len(y)), prior))


def test_a_fit_and_a_polynomial_fit_of_what_it_leaves_add_up_to_the_values() -> None:
    prior, points = Prior((1.7, 1.7)), RNG.uniform(-1, 1, (2, 90))
    true = RNG.standard_normal((5, 5))
    bases = [np.polynomial.chebyshev.chebvander(x, 4) for x in points]
    y = np.einsum("ni,ij,nj->n", bases[0], true, bases[1])
    search = searched(y, points, prior, 5)
    factors = (RNG.standard_normal((3, 2)), RNG.standard_normal((4, 1)))
    found = Found(Model((2, 1), (3, 4), prior, 1e-13), RNG.standard_normal((2, 1)), factors, 1.0)
    core, more = search._more(found)
    assert_below(np.abs(more[0] @ core @ more[1].T - true).max(), 1e-7, "error")
    assert_equal([f.shape[1] for f in more], [7, 6])


def test_a_model_tried_counts_and_one_settled_is_at_rest() -> None:
    prior, points = Prior((1.7, 1.7)), RNG.uniform(-1, 1, (2, 90))
    search = searched(np.exp(points[0]) * np.cos(points[1]) + 0.1 * points[0] ** 2, points, prior, 6)
    model = Model((1, 1), (6, 6), prior, 1e-6)
    found = search.fit(model, np.ones((1, 1)), [np.eye(6, 1)] * 2)
    assert_equal(search.tried, 1)
    best, steps, at_rest = search.settled(found, 200, 1e-12)
    assert_equal(at_rest, True)
    again, more, _ = search.settled(best, 200, 1e-12)
    assert_equal(more, 1)
    assert_below(abs(again.score / best.score - 1), 1e-6, "relative difference of the score")
    assert_equal(search.settled(found, steps - 1, 1e-12)[1:], (steps - 1, False))
