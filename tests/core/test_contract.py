"""The contraction kernel against one einsum."""

from __future__ import annotations

import itertools
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfac.core import contract as module
from tenfac.core.contract import contract
from tests.checks import assert_below, assert_close, assert_equal, to_numpy
from tests.core.work import counted, multiplications
from tests.oracles import least_product_work, product_work, tucker_dense

RANK, SIZE, N = (2, 3, 4), (5, 1, 6), 7


def einsum(core, matrices, paired=()):
    """Dense oracle with any set of open, grid and paired modes, and batch axes by the ellipsis."""
    d = len(matrices)
    ranks, sizes = "pqrstu"[:d], "ijklmn"[:d]
    terms, operands, out = [f"...{ranks}"], [to_numpy(core).astype(np.complex128)], ""
    for n, matrix in enumerate(matrices):
        if matrix is None:
            out += ranks[n]
            continue
        letter = "z" if n in paired else sizes[n]
        out += "" if n in paired else letter
        terms.append(f"...{letter}{ranks[n]}")
        operands.append(to_numpy(matrix).astype(np.complex128))
    out = ("z" if paired else "") + out
    return np.einsum(f"{','.join(terms)}->...{out}", *operands).real


@pytest.mark.parametrize("kinds", list(itertools.product(["open", "grid", "paired"], repeat=3)), ids="-".join)
def test_every_mix_of_open_grid_and_paired_modes_equals_einsum(make, kinds):
    core = make(*RANK)
    paired = [n for n, kind in enumerate(kinds) if kind == "paired"]
    matrices = [
        None if kind == "open" else make(N if kind == "paired" else SIZE[n], RANK[n], seed=n)
        for n, kind in enumerate(kinds)
    ]
    got = contract(core, matrices, paired=paired)
    assert_close(got, einsum(core, matrices, paired), like=core)


@pytest.mark.parametrize("paired", [(), (0, 2), (0, 1, 2), (1,)])
def test_batch_axes_lead_and_broadcast(make, paired):
    core = make(2, 1, *RANK)
    sizes = [N if n in paired else SIZE[n] for n in range(3)]
    matrices = [make(2, 3, sizes[0], 2), make(1, 3, sizes[1], 3), make(sizes[2], 4)]
    got = contract(core, matrices, paired=paired)
    assert_close(got, einsum(core, matrices, paired), like=core)
    assert_equal(tuple(got.shape[:2]), (2, 3))


@pytest.mark.parametrize("block", [1, 40, 100])
@pytest.mark.parametrize("paired", [(0, 1, 2), (0, 2), (1, 2)])
def test_points_taken_in_blocks_equal_points_taken_at_once(make, block, paired):
    core = make(*RANK)
    matrices = [make(50, r, seed=n) if n in paired else make(3, r) for n, r in enumerate(RANK)]
    whole = contract(core, matrices, paired=paired)
    with mock.patch.object(module, "_BLOCK", block):
        assert_close(contract(core, matrices, paired=paired), whole)


def test_evaluation_at_many_points_stays_within_its_memory():
    import tracemalloc

    rows = [np.ones((200_000, 12)) for _ in range(3)]
    core = np.ones((12, 12, 12))
    tracemalloc.start()
    contract(core, rows, paired=(0, 1, 2))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert_below(peak, 60e6, "peak bytes (the whole intermediate would be 230e6)")


def test_the_longest_mode_of_the_core_is_contracted_first_to_keep_intermediates_small():
    core, rows = np.ones((2, 3, 30)), [np.ones((10, r)) for r in (2, 3, 30)]
    with (
        mock.patch.object(module, "_BLOCK", 60),  # ten points of 2 * 3 numbers
        mock.patch.object(module, "_at_points", wraps=module._at_points) as blocks,
    ):
        contract(core, rows, paired=(0, 1, 2))
    assert_equal(blocks.call_count, 1)


@pytest.mark.parametrize(("paired", "blocks"), [((0,), 1), ((0, 1), 10), ((0, 1, 2), 10)])
def test_points_are_cut_into_blocks_where_an_intermediate_would_be_large(paired, blocks):
    core, rows = np.ones((5, 3, 2)), [np.ones((100, r)) for r in (5, 3, 2)]
    with (
        mock.patch.object(module, "_BLOCK", 60),  # ten points of 3 * 2 numbers
        mock.patch.object(module, "_at_points", wraps=module._at_points) as calls,
    ):
        contract(core, [row if n in paired else None for n, row in enumerate(rows)], paired=paired)
    assert_equal(calls.call_count, blocks)


def test_no_points_give_an_empty_result(make):
    got = contract(make(*RANK), [make(0, r) for r in RANK], paired=(0, 1, 2))
    assert_equal(tuple(got.shape), (0,))


def test_complex_numbers_are_not_conjugated(make):
    core, a, b = make.complex(2, 3), make.complex(4, 2), make.complex(5, 3)
    assert_close(contract(core, [a, b]), tucker_dense(core, [a, b]), like=core)


def test_the_order_of_mode_products_is_the_cheapest_of_all():
    rng = np.random.default_rng(0)
    for most in (30,) * 20 + (4,) * 40:
        rank, size = rng.integers(1, most, 4), rng.integers(1, most, 4)
        seen = []

        def record(tensor, _matrix, axis, *_, seen=seen):
            seen.append(axis)
            return tensor

        with mock.patch.object(module, "_along", record):
            contract(np.ones(rank), [np.ones((i, r)) for i, r in zip(size, rank, strict=True)])
        assert_equal(product_work(seen, rank, size), least_product_work(rank, size))


@pytest.mark.parametrize(("rank", "size"), [(20, 1), (2, 50)])
def test_a_mode_that_shrinks_is_multiplied_before_the_points_and_one_that_grows_after(rank, size):
    n, first = 100, 5
    core, rows, matrix = (counted(np.ones(shape)) for shape in ((first, rank), (n, first), (size, rank)))
    before = first * rank * size + n * first * size
    after = n * first * rank + n * rank * size
    got = multiplications(lambda: contract(core, [rows, matrix], paired=(0,)))
    assert_equal(got, min(before, after))


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=5), st.integers(0, 99))
def test_grid_and_points_agree_for_any_shape(sizes, seed):
    rng = np.random.default_rng(seed)
    core = rng.standard_normal([r for r, _ in sizes])
    matrices = [rng.standard_normal((i, r)) for r, i in sizes]
    dense = contract(core, matrices)
    assert_close(dense, tucker_dense(core, matrices), like=core)
    index = [rng.integers(0, i, 6) for _, i in sizes]
    at = contract(core, [m[i] for m, i in zip(matrices, index, strict=True)], paired=range(len(sizes)))
    assert_close(at, dense[tuple(index)], scale=float(np.abs(dense).max()))


def test_gradients_pass_through_the_kernel():
    torch = pytest.importorskip("torch")
    arrays = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((2, 3), (4, 2), (4, 3))]
    for paired in ((), (0, 1), (0,)):
        assert torch.autograd.gradcheck(lambda c, a, b, p=paired: contract(c, [a, b], paired=p), arrays)
