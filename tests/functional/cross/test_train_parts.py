"""The parts of a core found as a train: the order of its modes, its sweeps, the entries it is checked at."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

import numpy as np
import pytest

from tenfac.core.modes.chebyshev import lobatto
from tenfac.functional.cross import train_core as module
from tenfac.functional.cross.chain_order import chain_order
from tenfac.functional.cross.core_grid import WholeCore, grown, noise, span
from tenfac.functional.cross.evaluator import Evaluator
from tenfac.functional.cross.train_core import TrainCore
from tests.checks import assert_above, assert_below, assert_close, assert_equal


class Watched(Evaluator):
    """Remembers the points that were asked for."""

    def __init__(self, f: Any, ndim: int) -> None:
        super().__init__(f, [(-1, 1)] * ndim, 10**6, True)
        self.seen: list[np.ndarray] = []

    def __call__(self, points: np.ndarray) -> np.ndarray:
        self.seen.append(points.copy())
        return super().__call__(points)


def begun(f: Any, ndim: int, tol: float = 1e-8) -> TrainCore:
    return TrainCore(Watched(f, ndim), ndim, tol, np.random.default_rng(0))


def grid(lengths: Any) -> list[np.ndarray]:
    return [np.linspace(-1, 1, n) if n > 1 else np.array([0.5]) for n in lengths]


def trained(f: Any, lengths: Any, tol: float = 1e-8) -> tuple[TrainCore, np.ndarray]:
    """A train of a tensor of values on a grid, and the tensor."""
    train, places = begun(f, len(lengths), tol), grid(lengths)
    train.grow(places)
    return train, f(*np.meshgrid(*places, indexing="ij"))


def reciprocal(*x: Any) -> Any:
    return 50 / (7 + sum(x))


def dense(train: TrainCore) -> np.ndarray:
    """All entries, modes in their own order."""
    full = train.cores[0]
    for core in train.cores[1:]:
        full = np.tensordot(full, core, axes=1)
    return full[0, ..., 0].transpose([train.order.index(n) for n in range(train.ndim)])


# --- order --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ndim", [2, 3, 4, 5, 6])
def test_each_set_of_modes_is_weighed_once_and_single_modes_never(ndim: int) -> None:
    asked: list[tuple[int, ...]] = []

    def weight(modes: Any) -> float:
        asked.append(tuple(modes))
        return 1.0

    assert_equal(chain_order(weight, range(ndim)), list(range(ndim)))
    sides = [frozenset({frozenset(part), frozenset(range(ndim)) - set(part)}) for part in asked]
    assert_equal(len(set(sides)), len(sides))
    assert_equal({len(part) for part in asked}, set(range(2, ndim // 2 + 1)))


def cut_by(links: Any, modes: Any) -> float:
    """The links, with their weights, between some modes and the others."""
    return float(sum(w for (a, b), w in links.items() if (a in modes) != (b in modes)))


@pytest.mark.parametrize("ndim", [4, 5, 6])
def test_a_chain_that_was_shuffled_is_found_again(ndim: int) -> None:
    for seed in range(5):
        hidden = np.random.default_rng(seed).permutation(ndim).tolist()
        links = dict.fromkeys(itertools.pairwise(hidden), 1.0)
        order = chain_order(lambda modes, links=links: cut_by(links, modes), range(ndim))
        worst = max(cut_by(links, order[:k]) for k in range(2, ndim - 1))
        given = max(cut_by(links, range(k)) for k in range(2, ndim - 1))
        assert_equal(sorted(order), list(range(ndim)))
        assert_equal(worst, 1.0 if given > 1 / 0.8 else given)


@pytest.mark.parametrize(("weight", "moves"), [(0.7, True), (0.9, False)])
def test_an_order_is_left_for_one_that_is_a_fifth_better(weight: float, moves: bool) -> None:
    def cost(modes: Any) -> float:
        return weight if {0, 2} in (set(modes), {0, 1, 2, 3} - set(modes)) else 1.0

    assert_equal(chain_order(cost, range(4)), [0, 2, 1, 3] if moves else [0, 1, 2, 3])


@pytest.mark.parametrize("ndim", [5, 6, 8, 10])
def test_orders_are_compared_once_blocks_are_larger_than_that_costs(ndim: int) -> None:
    train = begun(reciprocal, ndim)
    train._reorder()
    spent = train.evaluate.n_evals
    for entries, large in ((spent, False), (2.5 * spent, True)):
        train.blocks = [np.empty((int(entries), 1, 1)), np.empty((0, 2, 1))]
        assert_equal(train._large(), large)
    assert_below(np.abs(np.concatenate(train.evaluate.seen)).max(), 1.0, "largest coordinate")


def test_orders_are_compared_once_and_only_if_blocks_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(module, "chain_order", lambda _, given: calls.append(given) or list(given))
    for tol, compared in ((0.3, 0), (1e-6, 1)):
        calls.clear()
        train = begun(reciprocal, 5, tol)
        train.grow(grid((5,) * 5))
        train.grow(grid((6,) * 5))
        assert_equal((len(calls), train._large()), (compared, compared > 0))


def test_modes_that_depend_on_each_other_become_neighbors_and_the_train_begins_again() -> None:
    def f(*x: Any) -> Any:
        return np.exp(2 * x[0] * x[3] + x[1] * x[4] - 2 * x[2] * x[5])

    train = begun(f, 6, 1e-7)
    places = grid((7, 6, 7, 7, 6, 7))
    train.grow(places)
    pairs = {frozenset(train.order[k : k + 2]) for k in (0, 2, 4)}
    assert_equal(pairs, {frozenset({n, n + 3}) for n in range(3)})
    assert_equal(train.bonds[1::2], (1, 1))
    assert_equal(train.shape, (7, 6, 7, 7, 6, 7))
    want = f(*np.meshgrid(*places, indexing="ij"))
    assert_below(np.abs(dense(train) - want).max() / want.max(), 1e-6, "error")
    rows = [np.random.default_rng(n).uniform(-1, 1, (3, k)) for n, k in enumerate(want.shape)]
    values = np.einsum("abcdef,na,nb,nc,nd,ne,nf->n", want, *rows, optimize=True)
    assert_below(np.abs(train.at(rows) - values).max() / np.abs(values).max(), 1e-4, "error at rows")


def test_the_zero_function_has_no_order_and_no_warning() -> None:
    train = begun(lambda *x: 0 * sum(x), 5)
    train.places = grid((2,) * 5)
    train._reorder()
    assert_equal(train.chain, [0, 1, 2, 3, 4])


# --- contractions -------------------------------------------------------------------------------------------


def test_rows_times_the_train_are_those_times_the_tensor_one_mode_left_open_or_none() -> None:
    train, want = trained(reciprocal, (3, 4, 1, 4, 2), 1e-12)
    rows = [np.random.default_rng(n).uniform(-1, 1, (3, k)) for n, k in enumerate(want.shape)]
    assert_close(train.at(rows), np.einsum("abcde,na,nb,nc,nd,ne->n", want, *rows), 1e5)
    for mode, letter in enumerate("abcde"):
        others = ",".join("n" + other for other in "abcde" if other != letter)
        some = [None if n == mode else row for n, row in enumerate(rows)]
        lines = np.einsum(f"abcde,{others}->n{letter}", want, *(row for row in some if row is not None))
        assert_close(train.along(mode, some), lines, 1e5)


def test_a_train_that_has_not_grown_is_zero() -> None:
    train = begun(reciprocal, 5)
    assert_equal((train.shape, train.bonds), ((0,) * 5, (1,) * 4))
    assert_equal(train.at([np.empty((3, 0))] * 5), np.zeros(3))
    assert_equal(train.evaluate.n_evals, 0)


def test_a_whole_core_has_all_entries_and_evaluates_each_once() -> None:
    evaluate = Watched(lambda x, y, z: x + 10 * y + 100 * z, 3)
    core = WholeCore(evaluate, 3)
    assert_equal(core.shape, (0, 0, 0))
    for lengths in ((2, 1, 3), (2, 3, 3), (3, 3, 4)):
        core.grow([np.linspace(-1, 1, 4)[:n] for n in lengths])
        x, y, z = (np.linspace(-1, 1, 4)[:n] for n in lengths)
        assert_close(core.entries, x[:, None, None] + 10 * y[:, None] + 100 * z)
        assert_equal(evaluate.n_evals, int(np.prod(lengths)))
    assert_above(min(map(len, evaluate.seen)), 1, "points of a call")
    rows = [np.random.default_rng(n).uniform(-1, 1, (5, k)) for n, k in enumerate(core.shape)]
    assert_close(core.at(rows), np.einsum("abc,na,nb,nc->n", core.entries, *rows), 1e3)
    lines = core.along(1, [rows[0], None, rows[2]])
    assert_close(lines, np.einsum("abc,na,nc->nb", core.entries, rows[0], rows[2]), 1e3)


def test_a_block_grown_in_every_mode_asks_for_new_entries_only() -> None:
    asked = np.zeros((3, 4, 2), dtype=int)

    def values(spans: Any) -> float:
        asked[tuple(spans)] += 1
        return 7.0

    new = grown(np.ones((2, 4, 1)), (3, 4, 2), values)
    known = np.zeros((3, 4, 2), dtype=int)
    known[:2, :, :1] = 1
    assert_equal(asked, 1 - known)
    assert_equal(new, np.where(known, 1.0, 7.0))


def test_columns_of_noise_alone_leave_one_direction() -> None:
    assert_equal(span(np.zeros((5, 3)), 1e-9).shape, (5, 1))
    assert_equal(span(np.diag([3.0, 2.0, 1.0]), 1.5).shape, (3, 2))
    tracemalloc.start()
    span(np.ones((3000, 2)), 1e-9)
    assert_below(tracemalloc.get_traced_memory()[1], 1e6, "bytes for 6000 numbers")
    tracemalloc.stop()
    columns = 1e-3 * np.random.default_rng(0).standard_normal((40_000, 1))
    assert_below(abs(np.linalg.norm(columns) / noise(1e-4, 40_000, 10.0) - 1), 0.02, "relative difference")
    assert_equal(noise(0.0, 100, 1e6) > 0, True)


# --- sweeps -------------------------------------------------------------------------------------------------


def test_blocks_hold_the_entries_at_their_prefixes_and_suffixes_and_prefixes_are_nested() -> None:
    train, want = trained(reciprocal, (4, 5, 3, 4, 5))
    for p, block in enumerate(train.blocks):
        for (i, before), (j, after) in itertools.product(
            enumerate(train.prefixes[p]), enumerate(train.suffixes[p])
        ):
            assert_close(block[i, :, j], want[(*before, slice(None), *after)], 10)
        if p < 4:
            old = {tuple(prefix) for prefix in train.prefixes[p]}
            assert {tuple(prefix[:-1]) for prefix in train.prefixes[p + 1]} <= old
    assert_equal(train.bonds, tuple(map(len, train.prefixes[1:])))


def test_a_bond_has_one_prefix_for_each_dimension_and_fits_its_block() -> None:
    train, want = trained(lambda *x: np.cos(sum(x)) + x[0] * x[1] * (1 + x[4]), (4, 4, 3, 3, 4), 1e-10)
    ranks = [np.linalg.matrix_rank(want.reshape(int(np.prod(want.shape[:p])), -1), 1e-9) for p in range(1, 5)]
    assert_equal(train.bonds, tuple(map(int, ranks)))
    assert_below(np.abs(dense(train) - want).max(), 1e-9, "error")


def test_first_suffixes_are_climbed_to_along_the_modes() -> None:
    def f(*x: Any) -> Any:
        return np.exp(-sum((v - c) ** 2 for v, c in zip(x, (0.5, -0.5, 0.0, 1.0, -1.0), strict=True)))

    train = begun(f, 5)
    train.places = grid((5, 5, 5, 5, 5))
    train._start()
    top = [3, 1, 2, 4, 0]
    for p in range(4):
        assert_equal(train.suffixes[p].tolist(), [top[p + 1 :]])
    train, first = begun(reciprocal, 5), np.array([[0.9, -0.4, 0.6, 0.1, -0.9]])
    train.places, train.evaluate.place = grid((5,) * 5), first[0]
    train._start()  # begins at the entry next to the largest value seen
    line = train.evaluate.seen[0]
    assert_equal(line[:, 1:], np.repeat([[-0.5, 0.5, 0.0, -1.0]], 5, axis=0))


class Steps(TrainCore):
    """Sweeps that change nothing but for given ones, and misses one entry always."""

    def __init__(self, adds: Any) -> None:
        super().__init__(Watched(reciprocal, 5), 5, 1e-8, np.random.default_rng(0))
        self.adds, self.sweeps = adds, 0
        self.missed_before: list[int] = []

    def _start(self) -> None:
        self.suffixes[0] = np.zeros((1, 4), dtype=int)

    def _sweep(self) -> None:
        self.missed_before.append(len(self.missed))
        if self.adds(self.sweeps):
            self.suffixes[0] = np.concatenate([self.suffixes[0], self.suffixes[0][:1]])
        self.sweeps += 1

    def _misses(self) -> np.ndarray:
        return np.zeros((1, 5), dtype=int)


def test_entries_that_no_bond_can_carry_lower_the_noise_three_times_and_no_more() -> None:
    train = Steps(lambda _: False)
    before = train.cut
    train.grow(grid((2,) * 5))
    assert_equal(train.sweeps, 2 + module._LOWERED)
    assert_close(train.cut / before, module._LOWER**module._LOWERED)
    assert_equal(train.missed_before, [0] + [1] * (1 + module._LOWERED))
    train.grow(grid((2,) * 5), 1e-9)
    assert_below(train.cut, 1e-9, "share that is noise")


def test_sweeps_go_on_while_bonds_grow_and_what_was_missed_is_looked_for_anew() -> None:
    train = Steps(lambda k: k in (0, 1, 3))
    train.grow(grid((2,) * 5))
    assert_equal(train.missed_before[:6], [0, 0, 0, 1, 0, 1])
    endless = Steps(lambda _: True)
    endless.grow(grid((2,) * 5))
    assert_equal(endless.sweeps, module._MAX_SWEEPS)


# --- checks -------------------------------------------------------------------------------------------------


def test_entries_next_to_doubtful_points_are_checked_and_the_worst_come_first() -> None:
    train, _ = trained(reciprocal, (5, 5, 5, 5, 5))
    spots = np.array([[4, 0, 3, 1, 2], [1, 1, 4, 4, 0], [2, 3, 0, 0, 4]])
    heights = np.array([1.0, 3.0, 2.0])
    places = np.stack([np.linspace(-1, 1, 5)[spots[:, n]] for n in range(5)], axis=1)

    def spiked(*x: Any) -> Any:
        same = (np.abs(np.stack(x, axis=1)[:, None] - places) < 1e-9).all(axis=2)
        return reciprocal(*x) + same @ heights

    train.evaluate.function = spiked
    train.look(places + np.random.default_rng(0).uniform(-0.2, 0.2, places.shape))
    before = train.evaluate.n_evals
    found = train._misses()
    assert_equal(found, spots[[1, 2]])  # two at least
    assert_equal(train.evaluate.n_evals - before, 103)
    train._misses()
    assert_equal(train.evaluate.n_evals - before, 203)  # looked at once


def test_the_larger_the_bonds_the_more_entries_are_looked_into_at_once() -> None:
    tensor = np.random.default_rng(0).uniform(-1, 1, (4,) * 4)

    def at(*x: Any) -> Any:
        return tensor[tuple(np.rint((v + 1) * 1.5).astype(int) for v in x)]

    train, _ = trained(at, (4,) * 4)
    assert_equal(train.bonds, (4, 16, 4))
    train.evaluate.function = lambda *x: at(*x) + 1.0
    assert_equal(len(train._misses()), 3)  # a fifth


def test_a_train_of_two_modes_is_a_matrix() -> None:
    train, want = trained(lambda x, y: np.exp(x * y), (6, 7), 1e-12)
    assert_below(np.abs(dense(train) - want).max(), 1e-11, "error")


def test_random_entries_are_checked_to_a_share_of_the_tolerance() -> None:
    for height, some in ((0.1, False), (0.9, True)):
        train, _ = trained(reciprocal, (5, 5, 5, 5, 5))
        unit = train.tol * train.evaluate.largest
        train.evaluate.function = lambda *x, h=height * unit: reciprocal(*x) + h * np.sign(x[1] - x[4])
        train.evaluate.seen.clear()
        found = train._misses()
        assert_equal(len(found) > 0, some)
        (points,) = train.evaluate.seen
        for n in range(5):  # every index of every mode is drawn
            assert_equal(np.unique(points[:, n]), np.linspace(-1, 1, 5))


def test_a_core_of_few_entries_is_not_checked_at_more() -> None:
    train, _ = trained(lambda *x: sum(x) + 7, (2, 2, 1, 2, 2))
    train.evaluate.seen.clear()
    train._misses()
    assert_below(len(np.concatenate(train.evaluate.seen)), 16, "evaluations")


def test_rows_and_suffixes_that_are_tried_are_new_and_as_many_as_said() -> None:
    train, want = trained(reciprocal, (4, 5, 3, 4, 5))
    for p in range(4):
        count = train._count(p)
        assert_above(count, 4 + len(train.prefixes[p + 1]) / 4, "rows tried")
        assert_below(count, 4 + len(train.prefixes[p + 1]), "rows tried")
        rows, prefixes = train._tried_rows(p)
        taken = {tuple(prefix) for prefix in train.prefixes[p + 1]}
        assert not taken & {tuple(prefix) for prefix in prefixes}
        assert_below(len(rows), count, "rows tried")
        flat = [(*before, i) for before in train.prefixes[p].tolist() for i in range(want.shape[p])]
        assert_equal([tuple(prefix) for prefix in prefixes.tolist()], [flat[row] for row in rows])
        suffixes, known = train._tried_suffixes(p)
        assert not {tuple(s) for s in train.suffixes[p]} & {tuple(s) for s in suffixes}
        assert_below(len(suffixes), count, "suffixes tried")
        for i, before in enumerate(train.prefixes[p + 1]):
            assert_close(known[i], np.array([want[(*before, *after)] for after in suffixes]), 10, scale=50.0)


def test_entries_that_are_not_met_are_tried_at_every_bond() -> None:
    train, want = trained(reciprocal, (4, 5, 3, 4, 5))
    train.missed = np.array([[3, 2, 1, 3, 4], [0, 4, 2, 0, 1]])
    train._count = lambda _: 0  # nothing else
    for p in range(4):
        rows, prefixes = train._tried_rows(p)
        assert {prefix[-1] for prefix in prefixes.tolist()} <= set(train.missed[:, p].tolist())
        around = {(*before, i) for before in train.prefixes[p].tolist() for i in train.missed[:, p].tolist()}
        new = around - {tuple(prefix) for prefix in train.prefixes[p + 1].tolist()}
        assert_equal({tuple(prefix) for prefix in prefixes.tolist()}, new)
        assert_equal(len(rows), len(new))
        suffixes, known = train._tried_suffixes(p)
        ends = {tuple(end) for end in train.missed[:, p + 1 :].tolist()}
        assert_equal({tuple(s) for s in suffixes.tolist()}, ends - {tuple(s) for s in train.suffixes[p]})
        for i, before in enumerate(train.prefixes[p + 1]):
            assert_close(known[i], np.array([want[(*before, *after)] for after in suffixes]), 10, scale=50.0)


def test_a_bond_carries_what_its_prefixes_tell_and_asks_for_the_rest() -> None:
    train, _ = trained(reciprocal, (4, 5, 3, 4, 5))
    unit = train.tol * train.evaluate.largest
    assert_equal(len(train._uncarried(1)), 0)

    def f(*x: Any, h: float) -> Any:
        return reciprocal(*x) + h * (x[0] > 0) * np.sign(x[3])

    for height, some in ((0.01, False), (10.0, True)):
        train.evaluate.function = lambda *x, h=height * unit: f(*x, h=h)
        asked = sum(len(train._uncarried(1)) for _ in range(4))
        assert_equal(asked > 0, some)
    train.rows[1] = np.stack(np.divmod(np.arange(len(train.prefixes[1]) * 5), 5), axis=1)  # all rows known
    assert_equal(len(train._uncarried(1)), 0)


def test_values_of_many_entries_come_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    train, want = trained(reciprocal, (4, 5, 3, 4, 5))
    monkeypatch.setattr(module, "_CHUNK", 100)
    index = np.stack(np.unravel_index(np.arange(want.size), want.shape), axis=1)
    train.evaluate.seen.clear()
    assert_close(train._values(index), want.ravel())
    assert_equal([len(points) for points in train.evaluate.seen], [100] * 12)
    assert_close(train._met(index), dense(train).ravel(), 1e3)


def test_lobatto_coordinates_may_grow_and_known_entries_are_kept() -> None:
    coarse, fine = lobatto(5), lobatto(9)
    fine = np.concatenate([coarse, np.setdiff1d(fine, coarse)])
    train = begun(reciprocal, 5)
    train.grow([coarse[:3]] * 5)
    train.grow([fine[:6]] * 5)
    want = reciprocal(*np.meshgrid(*[fine[:6]] * 5, indexing="ij"))
    assert_below(np.abs(dense(train) - want).max() / want.max(), 1e-7, "error")
    points = np.concatenate(train.evaluate.seen)
    assert_below(len(points) - len(np.unique(points, axis=0)), 600, "points that were evaluated twice")
