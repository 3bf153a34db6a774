"""To TensorLy and back, numbers untouched, whatever backend TensorLy is set to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorly as tl
from tensorly.cp_tensor import CPTensor, cp_to_tensor
from tensorly.tr_tensor import TRTensor
from tensorly.tt_tensor import TTTensor
from tensorly.tucker_tensor import TuckerTensor

from tenfac import CP, Chebyshev, Discrete, ShapeError, Tucker, from_tensorly, load, save, tucker
from tenfac.core.arrays import tensorly_backend
from tenfac.core.interchange import refuse_decomposed
from tests.checks import assert_close, assert_equal, assert_says, to_numpy
from tests.oracles import cp_dense, tucker_dense


def tucker_of(make):
    return Tucker(make(2, 3), [make(4, 2), make(5, 3)])


def cp_of(make):
    return CP(make(3), [make(4, 3), make(5, 3), make(2, 3)])


def test_tensorly_functions_take_a_format_as_it_is(make):
    t, c = tucker_of(make), cp_of(make)
    with tensorly_backend(t.core):
        assert_close(tl.tucker_to_tensor(t), tucker_dense(t.core, t.factors), like=t.core)
        assert_close(cp_to_tensor(c), cp_dense(c.weights, c.factors), like=c.weights)


def test_the_round_trip_through_tensorly_shares_every_array(make):
    for t, kind in ((tucker_of(make), TuckerTensor), (cp_of(make), CPTensor)):
        there = t.to_tensorly()
        assert isinstance(there, kind)
        assert_equal(tuple(there.shape), t.shape)
        back = from_tensorly(there)
        assert isinstance(back, type(t))
        assert all(a is b for a, b in zip(back.factors, t.factors, strict=True))


def test_tuples_are_told_apart_by_their_first_entry(make):
    t, c = tucker_of(make), cp_of(make)
    assert isinstance(from_tensorly(tuple(t)), Tucker)
    assert isinstance(from_tensorly(tuple(c)), CP)
    assert isinstance(from_tensorly((None, c.factors)), CP)
    assert isinstance(from_tensorly((make(2), [make(4, 2), make(5, 2)])), CP)
    assert isinstance(from_tensorly((make(2), [make(4, 2)])), Tucker)
    assert from_tensorly(t) is t


def test_a_train_of_theirs_has_the_least_rank_its_bonds_allow(make):
    bonds, sizes = (1, 2, 3, 2, 1), (2, 7, 5, 3)
    cores = [make(*shape) for shape in zip(bonds, sizes, bonds[1:], strict=False)]
    t = from_tensorly(TTTensor(cores))
    assert_equal(t.rank, (2, 6, 5, 2))  # of sizes 2, 7, 5, 3 and bonds 1*2, 2*3, 3*2, 2*1
    want = np.einsum("aib,bjc,ckd,dle->ijkl", *map(to_numpy, cores))
    assert_close(t.to_tensor(), want, like=cores[0])


def test_conversion_works_under_another_backend_and_leaves_it_set(make):
    other = {"numpy": "pytorch", "torch": "numpy"}[make.library]
    before = tl.get_backend()
    try:
        tl.set_backend(other, local_threadsafe=True)
        there = cp_of(make).to_tensorly()
        assert_equal(tl.get_backend(), other)
    finally:
        tl.set_backend(before, local_threadsafe=True)
    assert_equal(tuple(there.shape), (4, 5, 2))


def test_a_core_that_is_no_array_is_refused():
    with pytest.raises(ShapeError) as error:
        from_tensorly((3, [np.ones((2, 2))]))
    assert_says(error, "from_tensorly", "core or weights", "int")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (3, TypeError),
        ("ab", TypeError),
        (np.ones(3), TypeError),
        ((np.ones(2),), ShapeError),
        ((np.ones(2), np.ones((2, 2))), ShapeError),
    ],
    ids=str,
)
def test_other_things_are_refused(value, kind):
    with pytest.raises(kind) as error:
        from_tensorly(value)
    assert_says(error, "from_tensorly", "factors")


# --- their tensors where formats go -----------------------------------------------------------------------


def theirs_and_ours(make):
    """One tensor of each kind as TensorLy holds it, and the same as a format."""
    with tensorly_backend(make(1, 1)):
        trains = TTTensor([make(1, 4, 2), make(2, 5, 1)])
        ours = [tucker_of(make), CP(make(3), [make(4, 3), make(5, 3)])]
        return [(t.to_tensorly(), t) for t in ours] + [(trains, from_tensorly(trains))]


def test_their_tensors_take_part_in_sums_products_and_inner_products(make):
    t = Tucker(make(3, 2), [make(4, 3), make(5, 2)])
    dense = t.to_tensor()
    for theirs, ours in theirs_and_ours(make):
        other = ours.to_tensor()
        assert_close((t + theirs).to_tensor(), dense + other)
        assert_close((theirs + t).to_tensor(), dense + other)
        assert_close((t - theirs).to_tensor(), dense - other)
        assert_close((theirs - t).to_tensor(), other - dense)
        assert_close((t * theirs).to_tensor(), dense * other)
        assert_close((theirs * t).to_tensor(), dense * other)
        assert_close(t.inner(theirs), (dense * other).sum(), scale=1e3)


def test_their_tensors_are_saved_and_come_back_as_formats(make, tmp_path: Path):
    for theirs, ours in theirs_and_ours(make):
        save(theirs, tmp_path / "x.tenfac")
        back = load(tmp_path / "x.tenfac")
        assert isinstance(back, type(ours))
        assert_equal(back.to_tensor(), ours.to_tensor())


def test_a_tuple_that_is_no_core_and_factors_is_no_operand(make):
    t = tucker_of(make)
    for other in ((1.0, 2.0), tuple(t.factors), (t.core, ()), (t.core, list(t.factors), 1)):
        with pytest.raises(TypeError):
            t + other


def test_what_is_no_format_of_theirs_is_named(make):
    ring = TRTensor([np.ones((2, 4, 3)), np.ones((3, 5, 2))])
    with pytest.raises(TypeError) as error:
        tucker_of(make) + ring
    assert_says(error, "TuckerTensor", "TRTensor")


def test_where_an_array_is_needed_the_way_to_one_is_named(make):
    t = tucker_of(make)
    for decomposed in (t, t.to_tensorly()):
        with pytest.raises(TypeError) as error:
            tucker(decomposed, rank=1)
        assert_says(error, "to_tensor()", "round", "from_tensorly")


@pytest.mark.parametrize(
    ("turn", "remedy"),
    [
        (lambda t: t, "Pass t.to_tensor()."),
        (Tucker.to_tensorly, "Pass tenfac.from_tensorly(t).to_tensor()."),
        (tuple, "Pass tenfac.from_tensorly(t).to_tensor()."),
        (lambda t: Tucker(t.core, t.factors, [Discrete(4), Chebyshev(5)]), "Evaluate it at points"),
    ],
)
def test_what_is_decomposed_already_is_refused_with_the_way_to_numbers(make, turn, remedy):
    with pytest.raises(TypeError) as error:
        refuse_decomposed(turn(tucker_of(make)), "fit", "Y")
    assert_says(error, "fit: `Y` must be an array", remedy)
    refuse_decomposed(make(3), "fit")
