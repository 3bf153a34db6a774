"""Gradients of values at points, in the points and in the numbers of the format; jit; half precision."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from tenfac import CP, GP, Chebyshev, DataError, Discrete, Tucker, TuckerTrain
from tenfac.core.arrays import namespace_of
from tenfac.core.entries import tucker_entries
from tenfac.core.points import Scratch, _outer, points_in_block
from tests.checks import assert_above, assert_below, assert_close, assert_equal, to_numpy
from tests.oracles import cp_dense, tucker_dense

MODES = (Chebyshev(5, (0.0, 2.0)), Discrete(3), Chebyshev(4))


def parts(name, library):
    rng = np.random.default_rng(0)
    ranks = (2, 2, 2) if name == "cp" else (2, 2, 3)
    sizes = {"tucker": [ranks], "cp": [2], "train": [(1, 2, 2), (2, 2, 3), (3, 3, 1)]}[name]
    arrays = [
        *map(rng.standard_normal, sizes),
        *(rng.standard_normal((m.size, r)) for m, r in zip(MODES, ranks, strict=True)),
    ]
    return [library(array) for array in arrays]


def made(name, arrays):
    kind = {"tucker": Tucker, "cp": CP, "train": TuckerTrain}[name]
    return kind._build(arrays[:-3], arrays[-3:], MODES)


@pytest.mark.parametrize("name", ["tucker", "cp", "train"])
def test_gradients_reach_the_points_and_every_array(name):
    torch = pytest.importorskip("torch")
    arrays = [array.requires_grad_() for array in parts(name, torch.tensor)]
    x = torch.tensor([0.2, 1.3], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([-0.4, 0.9], dtype=torch.float64, requires_grad=True)

    def run(x, y, *arrays):
        t = made(name, arrays)
        value, gradient = t.value_and_grad(x, [0, 2], y)
        return t.at(x, [1, 1], y), value, gradient, t.on_grid(x, None, y), t.norm(), t.integrate().to_tensor()

    assert torch.autograd.gradcheck(run, (x, y, *arrays))


@pytest.mark.parametrize("name", ["tucker", "cp", "train"])
def test_the_gradient_by_autograd_is_that_of_value_and_grad(name):
    torch = pytest.importorskip("torch")
    t = made(name, parts(name, torch.tensor))
    x = torch.linspace(0, 2, 7, dtype=torch.float64, requires_grad=True)  # with both ends
    (slope,) = torch.autograd.grad(t.at(x, 1, 0.5).sum(), x)
    assert_close(slope, to_numpy(t.value_and_grad(x.detach(), 1, 0.5)[1])[:, 0], like=x)


@pytest.mark.parametrize("modes", [(Chebyshev(12, (0.0, 2.0)), Chebyshev(11), Chebyshev(13)), MODES])
@pytest.mark.parametrize("ranks", [(9, 8, 10), (3, 8, 9), (2, 3, 2)])
def test_values_and_slopes_in_blocks_are_the_full_sum(make, modes, ranks, monkeypatch):
    monkeypatch.setattr("tenfac.core.points._POINTS", 70)
    monkeypatch.setattr("tenfac.core.points._CACHED", 64)
    rng = np.random.default_rng(0)
    core, factors = (
        rng.standard_normal(ranks),
        [rng.standard_normal((m.size, r)) for m, r in zip(modes, ranks, strict=True)],
    )
    t = Tucker(make.asarray(core), [make.asarray(f) for f in factors], modes)
    x = rng.uniform(0, 1, (3, 150))
    x[1] = rng.integers(0, 3, 150) if isinstance(modes[1], Discrete) else x[1]
    given = [x[n].astype(int) if isinstance(m, Discrete) else make.asarray(x[n]) for n, m in enumerate(modes)]
    rows = [m.rows(f, v if m.domain else v.astype(int)) for m, f, v in zip(modes, factors, x, strict=True)]
    want = np.einsum("pqr,np,nq,nr->n", core, *rows)
    value, slopes = t.value_and_grad(*given)
    for got in (t.at(*given), value):
        assert_close(got, want, 1000, like=value)
    wanted = [n for n, m in enumerate(modes) if m.domain]
    for k, n in enumerate(wanted):
        turned = [
            m.rows(f, x[i] if m.domain else x[i].astype(int), derivative=int(i == n)) if m.domain else rows[i]
            for i, (m, f) in enumerate(zip(modes, factors, strict=True))
        ]
        assert_close(slopes[:, k], np.einsum("pqr,np,nq,nr->n", core, *turned), 2000, like=value)


@pytest.mark.parametrize("d", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", [Tucker, CP])
def test_values_and_slopes_of_any_number_of_modes_are_the_full_sum(make, kind, d, monkeypatch):
    monkeypatch.setattr("tenfac.core.points._POINTS", 64)
    rng = np.random.default_rng(0)
    ranks = (3,) * d if kind is CP else (3, 2, 4, 2)[:d]
    core, factors = (
        rng.standard_normal(ranks[:1] if kind is CP else ranks),
        [rng.standard_normal((5, r)) for r in ranks],
    )
    t = kind(make.asarray(core), [make.asarray(factor) for factor in factors], [Chebyshev(5)] * d)
    x = rng.uniform(-1, 1, (d, 150))
    dense = (cp_dense if kind is CP else tucker_dense)(core, factors)
    columns = [np.polynomial.chebyshev.chebvander(v, 4).T for v in x]
    slopes = [
        np.stack([np.polynomial.chebyshev.chebval(v, np.polynomial.chebyshev.chebder(e)) for e in np.eye(5)])
        for v in x
    ]

    def total(*rows):
        return np.einsum(
            dense, list(range(d)), *(part for n, row in enumerate(rows) for part in (row, [n, d])), [d]
        )

    want = total(*columns)
    value, gradient = t.value_and_grad(*map(make.asarray, x))
    for got in (t.at(*map(make.asarray, x)), value):
        assert_close(got, want, 1000, like=t.factors[0])
    for n in range(d):
        turned = total(*(slopes[m] if m == n else column for m, column in enumerate(columns)))
        assert_close(gradient[:, n], turned, 1000, like=t.factors[0])


@pytest.mark.parametrize("ranks", [(9, 8, 10), (2, 3, 2)])
@pytest.mark.parametrize("last", [Chebyshev(11), Discrete(10)])
def test_slopes_of_modes_that_evaluate_themselves_are_those_of_the_derivatives(ranks, last):
    rng, mode = np.random.default_rng(0), GP("matern52", np.linspace(0, 2, 6), lengthscale=1.0)
    modes = (mode, Chebyshev(11), last)
    factors = [rng.standard_normal((m.size, r)) for m, r in zip(modes, ranks, strict=True)]
    t = Tucker(rng.standard_normal(ranks), factors, modes)
    x = [
        rng.uniform(0, 2, 80),
        rng.uniform(-1, 1, 80),
        rng.integers(0, 10, 80) if last.domain is None else rng.uniform(-1, 1, 80),
    ]
    value, gradient = t.value_and_grad(*x)
    rows = [m.rows(f, v) for m, f, v in zip(modes, factors, x, strict=True)]
    want = np.einsum("pqr,np,nq,nr->n", t.core, *rows)
    assert_close(value, want, 1e4)
    assert_close(t.at(*x), want, 1e4)
    continuous = [n for n, m in enumerate(modes) if m.domain]
    assert_equal(gradient.shape, (80, len(continuous)))
    for k, n in enumerate(continuous):
        assert_close(gradient[:, k], t.diff(n).at(*x), 1e6)


@pytest.mark.parametrize("call", [lambda t, x: t.at(*x), lambda t, x: t.value_and_grad(*x)])
@pytest.mark.parametrize(("size", "ranks"), [(13, (12, 12, 12)), (7, (6, 6, 6, 6))])
def test_memory_at_many_points_is_that_of_a_block(call, size, ranks):
    rng = np.random.default_rng(0)
    t = Tucker(
        rng.standard_normal(ranks),
        [rng.standard_normal((size, r)) for r in ranks],
        [Chebyshev(size)] * len(ranks),
    )
    x = rng.uniform(-1, 1, (len(ranks), 10_000))
    call(t, x[:, :1])
    tracemalloc.start()
    call(t, x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert_below(peak, 1e7, "peak bytes")


@pytest.mark.parametrize("size", [3, 300, 10_000, 10**6])
def test_polynomials_are_evaluated_at_so_many_points_that_they_fill_eight_megabytes_at_most(size):
    t = CP(None, [np.ones((2, 1)), np.ones((size, 1))])
    points = _outer(t)
    assert_equal(64 <= points <= 4096 and (points == 64 or points * size <= 2**20), True)
    assert_above(points, min(4096, 2**20 / size - 1), "points")


@pytest.mark.parametrize(
    ("ranks", "width", "by_rows"),
    [
        ((5,), 5, False),
        ((5, 3), 15, False),
        ((5, 2, 3), 6, False),
        ((20, 2, 3), 20, False),
        ((4, 3, 2, 5), 20, False),
        ((8, 9, 8), 64, True),
        ((7, 10, 10), 70, True),
        ((16, 16, 8, 8), 256, False),
    ],
)
def test_blocks_are_measured_by_the_largest_array_at_a_point_and_large_cores_of_three_modes_enter_first(
    ranks, width, by_rows
):
    t = Tucker(np.ones(ranks), [np.ones((20, rank)) for rank in ranks])
    kernel = t._kernel(namespace_of(t.core))
    assert_equal((kernel.width, kernel.by_rows), (width, by_rows))
    assert_equal([ranks[n] for n in kernel.order], sorted(ranks, reverse=True))
    for count in (1, 10, 10**4, 10**9):
        points = points_in_block(count)
        assert_equal(64 <= points <= 4096 and (points == 64 or points * count <= 2**17), True)
    assert_equal((points_in_block(0), points_in_block(2**9)), (4096, 2**8))


def test_scratch_is_written_into_again_and_grows():
    scratch = Scratch(np.ones(1, dtype="float32"))
    first = scratch.get("a", 2, 3)
    first[...] = 1
    assert_equal((first.dtype.name, np.shares_memory(first, scratch.get("a", 3, 2))), ("float32", True))
    assert_equal(np.shares_memory(first, scratch.get("a", 2)), True)
    assert_equal(np.shares_memory(first, scratch.get("b", 2, 3)), False)
    assert_equal((scratch.get("a", 7).shape, Scratch(None).get("a", 2)), ((7,), None))


@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("kind", ["tucker", "cp", "train"])
@pytest.mark.parametrize("d", [1, 3])
def test_a_number_is_added_to_every_value(kind, d, batch):
    rng = np.random.default_rng(0)
    t = CP(
        rng.standard_normal((*batch, 2)),
        [rng.standard_normal((*batch, 4, 2)) for _ in range(d)],
        [Chebyshev(4)] * d,
    )
    t = {"cp": lambda: t, "tucker": t.to_tucker, "train": t.to_train}[kind]()
    x = rng.uniform(-1, 1, (d, 5))
    assert_close((t + 2.5).at(*x), t.at(*x) + 2.5, 1000)
    assert_equal(type(t + 2.5), type(t))


def test_half_precision_is_computed_in_float32(make):
    t = made("tucker", parts("tucker", lambda a: make.asarray(a)))
    half = t._cast(np.float16) if make.library == "numpy" else t._cast(__import__("torch").bfloat16)
    got, want = to_numpy(half._wide().at(0.5, 1, 0.5)), to_numpy(half.value_and_grad(0.5, 1, 0.5)[0])
    assert_below(abs(float(got) - float(want)), 1e-5, "difference")
    assert_equal(half.on_grid([0.5], None, [0.5]).dtype, half.dtype)


def test_jax_differentiates_and_compiles_values_at_points():
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        t, plain = (
            made("tucker", parts("tucker", jax.numpy.asarray)),
            made("tucker", parts("tucker", np.asarray)),
        )
        x = np.array([0.25, 1.5])
        compiled = jax.jit(lambda t, x: t.value_and_grad(x, 1, 0.5))
        for got, want in zip(compiled(t, jax.numpy.asarray(x)), plain.value_and_grad(x, 1, 0.5), strict=True):
            assert_close(np.asarray(got), want, 1000)
        leaves, static = jax.tree_util.tree_flatten(t)
        assert_equal((len(leaves), static == jax.tree_util.tree_structure(t)), (4, True))


def test_empty_points_give_empty_values_and_no_point_slips_through():
    t = made("tucker", parts("tucker", np.asarray))
    assert_equal(t.at(np.empty(0), np.empty(0, dtype=int), np.empty(0)).shape, (0,))
    x = np.full(10_000, 0.5)
    x[7777] = np.nan
    with pytest.raises(DataError, match="position 7777 of 10000"):
        t.at(x, 0, 0.0)


@pytest.mark.parametrize("shapes", [((100, 1), (2, 3)), ((2, 3), (100, 1)), ((3, 2), (2, 2), (5, 4))])
def test_entries_are_grouped_by_the_shortest_mode_once_it_has_64_points_for_each_row(shapes):
    rng = np.random.default_rng(0)
    core = rng.standard_normal([rank for _, rank in shapes])
    factors = [rng.standard_normal(shape) for shape in shapes]
    indices = [rng.integers(0, size, 128) for size, _ in shapes]
    assert tucker_entries(core, factors, [index[:127] for index in indices], np) is None
    want = tucker_dense(core, factors)[tuple(indices)]
    assert_close(tucker_entries(core, factors, indices, np), want, scale=10 * np.abs(want).max())
