"""Products in the format, norms at the ends of the range, and many scattered entries."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac import CP, DataError, Discrete, ShapeError, Tucker
from tests.checks import assert_below, assert_close, assert_equal, assert_relative, assert_says, to_numpy
from tests.core.test_formats import RANK, SHAPE, Case, Line, case
from tests.oracles import mode_product_dense

__all__ = ["case"]  # the fixture


def test_a_mode_product_equals_that_of_the_dense_tensor(make, case):
    t = case.create(make)
    for mode in (0, 1, 2, -1):
        matrix = make(6, SHAPE[mode])
        got = t.mode_product(matrix, mode)
        assert_equal(got.modes[mode], Discrete(6))
        want = mode_product_dense(t.to_tensor(), matrix, mode % 3)
        assert_close(got.to_tensor(), want, like=matrix, factor=200)


def test_contraction_with_vectors_equals_einsum_and_leaves_the_tensor_alone(make, case):
    t = case.create(make)
    dense, before = case.dense(t), [to_numpy(f).copy() for f in t.factors]
    u, v, w = (make(size, seed=9) for size in SHAPE)
    scale = 30 * float(np.abs(dense).max())
    want = np.einsum("ijk,j->ik", dense, to_numpy(v).astype(float))
    assert_close(t.contract({1: v}).to_tensor(), want, like=v, scale=scale)
    want = np.einsum("ijk,i,k->j", dense, to_numpy(u).astype(float), to_numpy(w).astype(float))
    assert_close(t.contract({-1: w, 0: u}).to_tensor(), want, like=v, scale=scale)
    want = np.einsum("ijk,i,j,k->", dense, *(to_numpy(a).astype(float) for a in (u, v, w)))
    assert_close(t.contract({0: u, 1: v, 2: w}), want, like=v, scale=scale)
    assert_equal(t.shape, SHAPE)
    for factor, kept in zip(t.factors, before, strict=True):
        assert_equal(to_numpy(factor), kept)


def test_sums_equal_those_of_the_dense_tensor(make, case):
    t = case.create(make)
    dense = case.dense(t)
    scale = 60 * float(np.abs(dense).max())
    assert_close(t.sum(), dense.sum(), like=t.factors[0], scale=scale)
    assert_close(t.sum([0, -1]).to_tensor(), dense.sum((0, 2)), like=t.factors[0], scale=scale)


def test_sums_take_one_mode_and_refuse_the_same_twice(make, case):
    t = case.create(make)
    assert_equal(to_numpy(t.sum(1).to_tensor()), to_numpy(t.sum([1]).to_tensor()))
    with pytest.raises(ShapeError) as error:
        t.sum([0, 1, -3])
    assert_says(error, "sum:", "[0, 1, -3]", "once")
    for vectors in (None, [make(4)], make(4)):
        with pytest.raises(TypeError) as error:
            t.contract(vectors)
        assert_says(error, "contract:", "dict", "{0: v}")


def test_a_number_of_another_library_is_refused_by_both_names(case):
    torch = pytest.importorskip("torch")
    t = CP(None, [np.ones((2, 1))]) if case.name == "cp" else Tucker(np.ones(1), [np.ones((2, 1))])
    for call in (lambda: t * torch.tensor(2.0), lambda: t / torch.tensor(2.0)):
        with pytest.raises(TypeError) as error:
            call()
        assert_says(error, "numpy", "torch", "Convert")


def test_the_product_entry_by_entry_equals_that_of_the_dense_tensors(make, case):
    a, b = case.create(make), case.create(make, seed=7)
    product = a * b
    assert_equal(product.rank, 9 if case.name == "cp" else tuple(r * r for r in RANK))
    want = case.dense(a) * case.dense(b)
    assert_close(product.to_tensor(), want, like=a.factors[0], factor=1000)


def test_conversion_to_cp_is_exact_and_has_a_term_for_every_fiber(make):
    for shape, rank in ((SHAPE, RANK), ((3,), (2,)), ((3, 4), (2, 3)), ((2, 3, 2, 4), (2, 1, 2, 3))):
        t = Case("tucker").create(make, shape=shape, rank=rank)
        cp = t.to_cp()
        assert isinstance(cp, CP)
        assert_equal(cp.rank, int(np.prod(rank)) // max(rank))
        assert_close(cp.to_tensor(), Case("tucker").dense(t), like=t.core, factor=300)
        assert_close(cp.to_tucker().to_tensor(), Case("tucker").dense(t), like=t.core, factor=300)


def test_conversion_to_cp_guards_its_size():
    with pytest.raises(DataError) as error:
        Tucker(np.ones((5, 5, 5)), [np.ones((10, 5))] * 3).to_cp(max_bytes=5999)
    assert_says(error, "to_cp", "6,000", "Round")


@pytest.mark.parametrize("scale", [1e200, 1e-200, 1e150, 1e-160])
@pytest.mark.parametrize("where", ["first", "factor"])
def test_norm_and_inner_of_huge_and_tiny_tensors_neither_overflow_nor_vanish(case, scale, where):
    from tests.conftest import Make

    t = case.create(Make("numpy", "float64"))
    first, factors = next(iter(t)), list(t.factors)
    if where == "first":
        scaled = type(t)(case.scaled(t, scale), factors)
    else:
        scaled = type(t)(first, [factors[0] * scale, *factors[1:]])
    assert_close(scaled.norm() / scale, t.norm())
    assert_close(scaled.inner(t) / scale, t.inner(t))
    assert_close((scaled * (1 / scale)).norm(), t.norm())


def test_float32_norms_reach_beyond_the_root_of_its_range(case):
    from tests.conftest import Make

    t = case.create(Make("numpy", "float32"))
    assert_close((t * 1e30).norm() / np.float32(1e30), t.norm())
    assert_close((t * 1e-30).norm() / np.float32(1e-30), t.norm())


def test_scales_that_cancel_do_not_overflow_on_the_way(case):
    from tests.conftest import Make

    t = case.create(Make("numpy", "float64"))
    factors = [t.factors[0] * 1e200, t.factors[1] * 1e-200, t.factors[2] * 1e150]
    odd = type(t)(case.scaled(t, 1e-150), factors)
    assert_close(odd.norm(), t.norm())


def test_the_norm_of_zero_is_zero_with_a_gradient_that_is_no_nan():
    torch = pytest.importorskip("torch")
    factors = [
        torch.zeros(3, 2, dtype=torch.float64, requires_grad=True),
        torch.ones(4, 2, dtype=torch.float64),
    ]
    norm = CP(None, factors).norm()
    assert_equal(float(norm.detach()), 0.0)
    norm.backward()
    assert_equal(factors[0].grad, torch.zeros_like(factors[0]))


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda t: t.mode_product(np.ones((2, 3)), 0), ["mode_product", "(J, 4)", "(2, 3)", "transpose"]),
        (lambda t: t.mode_product(np.ones(4), 0), ["(J, 4)", "(4,)"]),
        (lambda t: t.mode_product(np.ones((2, 4)), 3), ["`mode`", "0 to 2"]),
        (lambda t: t.contract({0: np.ones(5)}), ["contract", "(4,)", "(5,)"]),
        (lambda t: t.contract({0: np.ones(4), -3: np.ones(4)}), ["once", "[0, -3]"]),
        (lambda t: t.sum([3]), ["sum", "0 to 2"]),
        (lambda t: t * t[1:], ["*", "(4, 5, 3)", "(3, 5, 3)"]),
    ],
)
def test_what_does_not_fit_is_answered_with_both_shapes(case, call, parts):
    from tests.conftest import Make

    with pytest.raises(ShapeError) as error:
        call(case.create(Make("numpy", "float64")))
    assert_says(error, *parts)


def test_continuous_modes_have_no_sums_and_products_of_rows(make, case):
    t = case.create(make)
    t = type(t)(next(iter(t)), t.factors, (Line(4), Discrete(5), Line(3)))
    for call in (lambda: t.sum(), lambda: t.mode_product(make(2, 4), 0)):
        with pytest.raises(ShapeError) as error:
            call()
        assert_says(error, "None", "t.at(")
    assert_equal(t.mode_product(make(2, 5), 1).modes[1], Discrete(2))


# --- entries ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sizes", [(4, 5, 3), (40, 50, 30), (3000, 5, 4), (300, 400, 500), (6, 7), (5, 4, 3, 6)]
)
def test_many_scattered_entries_equal_those_of_the_dense_tensor(make, case, sizes):
    rank = (2, 3, 2, 1)[: len(sizes)]
    t = case.create(make, shape=sizes, rank=rank)
    rng = np.random.default_rng(1)
    index = [rng.integers(0, size, 5000) for size in sizes]
    cores, factors = ([to_numpy(a).astype(float) for a in part] for part in (t._cores, t.factors))
    letters, ranks = "abcd"[: len(sizes)], "wxyz"[: len(sizes)]
    rows = [factor[i] for factor, i in zip(factors, index, strict=True)]
    if case.name == "tucker":
        want = np.einsum(f"{ranks},{','.join('n' + r for r in ranks)}->n", *cores, *rows, optimize=True)
    elif case.name == "train":
        want = np.ones((5000, 1))
        for core, row in zip(cores, rows, strict=True):
            want = np.einsum("na,arb,nr->nb", want, core, row, optimize=True)
        want = want[:, 0]
    else:
        want = np.einsum(f"r,{','.join('nr' for _ in letters)}->n", *cores, *rows, optimize=True)
    assert_close(t.at(*map(make.index, index)), want, like=t.factors[0], factor=300)


def test_an_index_outside_among_many_is_refused(make, case):
    t = case.create(make)
    index = np.zeros(5000, dtype=int)
    for wrong in (-1, 4):
        bad = index.copy()
        bad[777] = wrong
        with pytest.raises(DataError) as error:
            t.at(bad, index, index)
        assert_says(error, "0 to 3", str(wrong))


def test_a_million_entries_of_a_huge_tensor_need_a_fraction_of_their_rows():
    import tracemalloc

    rng = np.random.default_rng(0)
    factors = [rng.standard_normal((10**5, 4)) for _ in range(3)]
    index = [rng.integers(0, 10**5, 10**5) for _ in range(3)]
    for t in (Tucker(rng.standard_normal((4, 4, 4)), factors), CP(None, factors)):
        tracemalloc.start()
        t.at(*index)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert_below(peak, 40e6, "peak bytes")


def test_gradients_pass_through_many_entries(case):
    torch = pytest.importorskip("torch")
    from tests.conftest import Make

    t = case.create(Make("torch", "float64"))
    index = [torch.from_numpy(np.random.default_rng(n).integers(0, s, 3000)) for n, s in enumerate(SHAPE)]
    leaves = [array.clone().requires_grad_() for array in t._arrays().values()]
    type(t)._build(leaves[:-3], leaves[-3:]).at(*index).sum().backward()
    many = [leaf.grad.clone() for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    type(t)._build(leaves[:-3], leaves[-3:]).to_tensor()[tuple(index)].sum().backward()
    for got, leaf in zip(many, leaves, strict=True):
        assert_relative(got, leaf.grad, 1e-12)
