"""Entries at scattered indices: the same numbers whatever way they take, and what the ways cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tenfac import CP, Chebyshev, Tucker
from tenfac.core import entries as module
from tenfac.core.arrays import namespace_of
from tests.checks import assert_close, assert_equal, to_numpy
from tests.core.test_formats import NAMES, Case
from tests.core.work import counted, multiplications
from tests.oracles import tucker_dense


def drawn(shape: tuple[int, ...], n: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, size, n) for size in shape]


@pytest.fixture(params=NAMES)
def case(request: Any) -> Case:
    return Case(request.param)


@pytest.mark.parametrize("n", [1, 40, 41, 90])
def test_entries_in_blocks_are_those_of_the_dense_tensor(
    make: Any, case: Case, n: int, monkeypatch: Any
) -> None:
    monkeypatch.setattr(module, "_POINTS", 40)
    for d in range(1, 5):
        shape = (4, 5, 3, 2)[:d]
        t, index = case.create(make, shape=shape, rank=(2, 3, 2, 2)[:d]), drawn(shape, n)
        dense = case.dense(t)
        assert_close(t.at(*index), dense[tuple(index)], like=t.factors[0], scale=float(np.abs(dense).max()))


@pytest.mark.parametrize(("n", "blocks"), [(13, [13]), (20, [13, 7]), (40, [13, 13, 13, 1])])
def test_entries_of_a_batch_are_gathered_within_the_numbers_allowed(
    make: Any, n: int, blocks: list[int], monkeypatch: Any
) -> None:
    monkeypatch.setattr(module, "_POINTS", 5)
    monkeypatch.setattr(module, "_NUMBERS", 500)  # 13 points of 2 * 3 * (2 + 4) numbers
    core, factors, index = make(2, 3, 2, 4), [make(2, 3, 5, 2), make(2, 3, 6, 4)], drawn((5, 6), n)
    seen, at_rows = [], Tucker._at_rows
    monkeypatch.setattr(Tucker, "_at_rows", lambda t, rows, xp: seen.append(rows) or at_rows(t, rows, xp))
    rows = [to_numpy(factor)[:, :, i] for factor, i in zip(factors, index, strict=True)]
    want = np.einsum("abpq,abnp,abnq->abn", to_numpy(core), *rows)
    assert_close(Tucker(core, factors).at(*index), want, like=core)
    numbers = [sum(int(np.prod(part.shape)) for part in rows) for rows in seen]
    assert_equal(numbers, [36 * block for block in blocks])


def test_values_of_a_batch_of_functions_are_those_of_each(make: Any) -> None:
    mode, factor, x = Chebyshev(3), make(2, 3, 2), np.array([-0.5, 0.0, 1.0])
    values = CP(None, [factor], [mode]).at(make.asarray(x))
    want = np.polynomial.chebyshev.chebvander(x, 2) @ to_numpy(factor).sum(axis=-1).T
    assert_close(values, want.T, like=factor)


def test_entries_of_rank_zero_are_zeros_however_many(case: Case, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "_POINTS", 5)
    empty = CP(np.ones(0), [np.ones((4, 0)), np.ones((5, 0))])
    t = {"cp": empty, "tucker": empty.to_tucker(), "train": empty.to_train()}[case.name]
    assert_equal(t.at(*drawn((4, 5), 300)), np.zeros(300))


@pytest.mark.parametrize("rank", [1, 2])
def test_many_entries_of_a_table_are_gathered_and_few_are_not(rank: int, monkeypatch: Any) -> None:
    t, seen, gathered = CP(None, [np.ones((4, rank))] * 2), [], CP._gathered
    monkeypatch.setattr(CP, "_gathered", lambda *parts: seen.append(parts) or gathered(*parts))
    for n in (1, module._POINTS, module._POINTS + 1):
        t.at(*drawn((4, 4), n))
    assert_equal(len(seen), 1)


def test_many_entries_under_jit_are_those_outside_of_it(monkeypatch: Any) -> None:
    jax = pytest.importorskip("jax")
    monkeypatch.setattr(module, "_POINTS", 5)
    rng = np.random.default_rng(0)
    t = Tucker(
        *(
            jax.numpy.asarray(rng.standard_normal((2, 2))),
            [jax.numpy.asarray(rng.standard_normal((3, 2)))] * 2,
        )
    )
    index = [jax.numpy.asarray(x) for x in drawn((3, 3), 300)]
    want = to_numpy(t.at(*index))
    assert_close(to_numpy(jax.jit(lambda *x: t.at(*x))(*index)), want)


@pytest.mark.parametrize("n", [130, 700])
@pytest.mark.parametrize(
    "shapes", [((3, 2), (9, 3)), ((90, 3), (2, 2), (80, 3)), ((9, 3), (8, 2), (2, 2), (7, 4))]
)
def test_grouped_entries_are_those_of_the_dense_tensor(
    make: Any, shapes: Any, n: int, monkeypatch: Any
) -> None:
    monkeypatch.setattr(module, "_POINTS", 50)
    monkeypatch.setattr(module, "_GROUP", 1)
    core, factors = make(*(rank for _, rank in shapes)), [make(*shape, seed=3) for shape in shapes]
    index = drawn(tuple(size for size, _ in shapes), n)
    short = min(range(len(shapes)), key=lambda n: shapes[n][0])
    index[short][index[short] == 0] = 1  # no point has the first value
    want = tucker_dense(core, factors)[tuple(index)]
    got = module.tucker_entries(core, factors, [make.index(x) for x in index], namespace_of(core))
    assert_close(got, want, like=core, scale=10 * float(np.abs(want).max()))


def test_points_are_grouped_by_an_index_of_more_values_than_a_byte_holds(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "_GROUP", 1)
    rng = np.random.default_rng(0)
    for size in (255, 256, 257, 300):
        a, b, index = (
            rng.standard_normal((size, 1)),
            rng.standard_normal((size + 1, 1)),
            drawn((size, size + 1), 500),
        )
        got = module.tucker_entries(np.ones((1, 1)), [a, b], index, np)
        assert_close(got, a[index[0], 0] * b[index[1], 0])


@pytest.mark.parametrize("size", [1000, 20])
def test_a_slice_of_few_points_multiplies_their_rows_only(size: int) -> None:
    n, core = 256, np.ones((2, 3, 5))  # 128 points for each of two values
    factors = [np.ones((2, 2)), np.ones((size, 3)), np.ones((size, 5))]
    index = [np.arange(n) % 2, *drawn((size, size), n)]
    parts = counted(core), [counted(factor) for factor in factors], index, np
    work = multiplications(lambda: module.tucker_entries(*parts))
    grouped = 2 * 2 * 15  # the core for each value, then rows of the mode with the most columns
    assert_equal(work, grouped + 2 * min(n // 2, size) * 15)
