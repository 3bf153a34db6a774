"""Gradients of values at points, in the points and in the numbers of the format; jit; half precision."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac import CP, Chebyshev, DataError, Discrete, Tucker, TuckerTrain
from tenfac.core.entries import tucker_entries
from tests.checks import assert_below, assert_close, assert_equal, to_numpy
from tests.oracles import tucker_dense

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
