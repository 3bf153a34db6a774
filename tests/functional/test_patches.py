"""Patches: the same function in boxes of smaller rank."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac import (
    CP,
    Chebyshev,
    DataError,
    Discrete,
    Patches,
    ShapeError,
    Tucker,
    TuckerTrain,
    load,
    save,
    split,
)
from tenfac.core.modes.chebyshev import coefficients
from tenfac.functional import patches as module
from tests.checks import (
    assert_above,
    assert_below,
    assert_close,
    assert_equal,
    assert_says,
    library_of,
    to_numpy,
)

SIZE = 40


def wave(make):
    """sin(6 x y) / (1.2 + x) of a discrete mode with amplitudes 1, 2, by interpolation and an SVD."""
    mode = Chebyshev(SIZE, (-1.0, 1.0))
    x = mode.nodes()
    values = np.sin(6 * np.outer(x, x)) / (1.2 + x[:, None])
    u, s, v = np.linalg.svd(coefficients(coefficients(values).T).T)
    rank = int((s > 1e-15 * s[0]).sum())
    core = np.diag(s[:rank])[:, None, :]
    factors = [u[:, :rank], np.array([[1.0], [2.0]]), v[:rank].T]
    return Tucker(make.asarray(core), [make.asarray(part) for part in factors], [mode, Discrete(2), mode])


def points(make, n=3000):
    x, y = np.random.default_rng(0).uniform(-1, 1, (2, n)).astype(make.dtype)
    return x, np.arange(n) % 2, y


def test_patches_hold_the_function_to_the_tolerance_with_smaller_ranks(make):
    t, at = wave(make), points(make)
    tol = 1e-9 if make.dtype == "float64" else 1e-4
    patches = split(t, [4, None, 3], tol=tol)
    want = to_numpy(t.at(*at))
    assert_below(np.abs(to_numpy(patches.at(*at)) - want).max(), tol * np.abs(want).max(), "error")
    assert_equal((patches.counts, len(patches.parts)), ((4, 1, 3), 12))
    assert_below(max(max(part.rank) for part in patches.parts), max(t.rank) - 2, "rank")
    assert_below(max(part.coef_shape[0] for part in patches.parts), 0.75 * SIZE, "coefficients")
    assert_equal((library_of(patches.at(*at)), patches.at(*at).dtype), (make.library, t.dtype))
    assert_equal(patches.n_params, sum(part.n_params for part in patches.parts))


def test_a_train_is_cut_into_trains_of_smaller_ranks(tmp_path):
    from tests.conftest import Make

    make = Make("numpy", "float64")
    t, at = wave(make).to_train(), points(make)
    patches = split(t, [4, None, 3], tol=1e-9)
    want = t.at(*at)
    assert_below(np.abs(patches.at(*at) - want).max(), 1e-9 * np.abs(want).max(), "error")
    assert_equal({type(part) for part in patches.parts}, {TuckerTrain})
    assert_below(max(max(part.train_rank) for part in patches.parts), max(t.rank) - 2, "rank")
    save(patches, tmp_path / "patches.tenfac")
    assert_equal(load(tmp_path / "patches.tenfac").at(*at), patches.at(*at))
    assert_below(max(part.coef_shape[0] for part in patches.parts), 0.75 * SIZE, "coefficients")


def test_points_on_edges_ends_and_single_points_have_values(make):
    t = wave(make)
    patches = split(t, [4, 1, 4], tol=1e-9 if make.dtype == "float64" else 1e-4)
    for at in (([-1.0, -0.5, 0.0, 0.5, 1.0], 1, 1.0), (0.3, 0, -0.7), ([[0.1], [0.9]], [0, 1], 0.0)):
        want = to_numpy(t.at(*at))
        assert_close(patches.at(*at), want, 1e8 if make.dtype == "float64" else 1e4, like=t.core, scale=1.0)
    assert_equal(tuple(patches.at(np.empty(0), np.empty(0, dtype=int), np.empty(0)).shape), (0,))


def test_torch_differentiates_through_patches():
    torch = pytest.importorskip("torch")
    from tests.conftest import Make

    t = wave(Make("torch", "float64"))
    x = torch.tensor([0.1, -0.9, 0.6], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(split(t, [2, 1, 2], tol=1e-12).at(x, 0, 0.3).sum(), x)
    want = t.value_and_grad(x.detach(), 0, 0.3)[1][:, 0]
    assert_below(np.abs(to_numpy(slope - want)).max(), 1e-9, "slope")


def test_points_outside_and_wrong_counts_are_refused():
    t = Tucker(np.ones((1, 1)), [np.ones((3, 1)), np.ones((2, 1))], [Chebyshev(3, (0.0, 1.0)), Discrete(2)])
    patches = split(t, 2)
    assert_says(repr(patches), "(2, 1) boxes", "[0, 1]")
    for x in ([0.5, 1.5], [0.5, np.nan]):
        with pytest.raises(DataError) as error:
            patches.at(x, 0)
        assert_says(error, "mode 0", "[0, 1]", "position 1")
    for counts in ([2], [0, 1], [2, 2], [2.0, 1], 0):
        with pytest.raises(ShapeError) as error:
            split(t, counts)
        assert_says(error, "split", "counts" if counts != [2, 2] else "Chebyshev")
    with pytest.raises(ShapeError) as error:
        split(t, [10**9, 1])
    assert_says(error, "split", "1,000,000 boxes", "1,000,000,000")
    with pytest.raises(ShapeError):
        split(CP(None, [np.ones((3, 1))], [Chebyshev(3)]), 2)


def test_the_zero_function_is_split_into_zeros():
    t = Tucker(np.zeros((1, 1)), [np.ones((3, 1))] * 2, [Chebyshev(3)] * 2)
    assert_equal(split(t, 2).at([0.5, -0.5], 0.1), np.zeros(2))


def test_patches_are_saved_and_loaded_bit_by_bit(make, tmp_path):
    patches, path = split(wave(make), [4, None, 3], tol=1e-4), tmp_path / "wave.tenfac"
    save(patches, path)
    back = load(path)
    assert type(back) is Patches
    for one, other in zip(back.edges, patches.edges, strict=True):
        assert_equal(one, other)
    for one, other in zip(back.parts, patches.parts, strict=True):
        assert_equal(one.modes, other.modes)
        for a, b in zip((one.core, *one.factors), (other.core, *other.factors), strict=True):
            assert_equal(a, b)
    at = points(make, 20)
    assert_equal(back.at(*at), patches.at(*at))
    assert_equal(len({back, patches, patches}), 2)  # told apart by identity, like every format


def test_a_file_that_lacks_a_part_is_called_so(tmp_path):
    path = tmp_path / "x.tenfac"
    patches = split(Tucker(np.ones(1), [np.ones((3, 1))], [Chebyshev(3)]), 2)
    state, arrays = patches._to_state()
    for header, held, word in (
        ({**state, "parts": [*state["parts"], state["parts"][0]]}, arrays, "'2'"),
        (state, {k: v for k, v in arrays.items() if k != "parts.1.core"}, "core"),
        (state, {k: v for k, v in arrays.items() if k != "edges.0"}, "edges.0"),
    ):
        broken = Patches(patches.edges, patches.parts)
        object.__setattr__(broken, "_to_state", lambda header=header, held=held: (header, held))
        save(broken, path)
        with pytest.raises(DataError) as error:
            load(path)
        assert_says(error, "load", word)


def test_too_few_parts_are_refused():
    patches = split(Tucker(np.ones(1), [np.ones((3, 1))], [Chebyshev(3)]), 2)
    with pytest.raises(ShapeError) as error:
        Patches(patches.edges, patches.parts[:1])
    assert_says(error, "2 boxes", "got 1", "split(")


def test_a_point_on_an_edge_belongs_to_the_box_above_it():
    parts = [
        Tucker(np.array([c]), [np.ones((1, 1))], [Chebyshev(1, ab)])
        for c, ab in ((1.0, (0, 1)), (2.0, (1, 2)))
    ]
    assert_equal(
        Patches((np.array([0.0, 1.0, 2.0]),), tuple(parts)).at([0.0, 1.0, 2.0]).tolist(), [1.0, 2.0, 2.0]
    )


@pytest.mark.parametrize("rows", [None, [1, 0, 1], 1])
def test_patches_on_a_grid_have_the_values_at_its_points(make, rows):
    patches = split(wave(make), [3, None, 2], tol=1e-4)
    x, y = np.array([0.9, -1.0, 0.1, 1.0, -0.2]), np.array([0.0, 0.5, -0.5])
    got = patches.on_grid(make.asarray(x), rows, make.asarray(y))
    index = np.arange(2) if rows is None else np.atleast_1d(rows)
    first, middle, last = np.meshgrid(x, index, y, indexing="ij")
    want = patches.at(make.asarray(first), middle, make.asarray(last))
    assert_close(got, want[:, 0] if rows == 1 else want, factor=1000)
    assert_close(patches.on_grid(0.3, 1, -0.3), patches.at(0.3, 1, -0.3), factor=1000)
    assert_equal(tuple(patches.on_grid(make.asarray([]), 1, make.asarray(y)).shape), (0, 3))
    assert_equal((patches.shape, patches.domain), ((None, 2, None), ((-1.0, 1.0), None, (-1.0, 1.0))))


def test_a_grid_that_patches_do_not_have_is_refused(make):
    patches = split(wave(make), [3, None, 2], tol=1e-4)
    for axes, error, parts in (
        (([0.0], None), ShapeError, ["one axis per mode, 3", "got 2"]),
        ((None, None, [0.0]), ShapeError, ["mode 0 is continuous", "None"]),
        (([0.0], None, [[0.0]]), ShapeError, ["1-way", "(1, 1)", "mode 2"]),
        (([0.0], None, [1.5]), DataError, ["mode 2", "[-1, 1]", "1.5"]),
        (([0.0], [2], [0.5]), DataError, ["mode 1", "2"]),
    ):
        with pytest.raises(error) as caught:
            patches.on_grid(*axes)
        assert_says(caught, *parts)
    with pytest.raises(DataError) as caught:
        patches.on_grid(np.zeros(9).tolist(), None, [0.5], max_bytes=10)
    assert_says(caught, "on_grid", "coarser")


def test_a_point_a_rounding_beyond_the_domain_is_in_the_last_box() -> None:
    mode = Chebyshev(4, (-1.0, 1.0))
    t = Tucker(
        np.ones((1, 1)), [np.array([[0.0], [1.0], [0.0], [0.0]]), np.ones((1, 1))], [mode, Discrete(1)]
    )
    pieces = split(t, (4, None))
    ends = np.array([-1.0, 1.0])
    assert_close(pieces.at(ends * (1 + 15 * 2.0**-52), 0), ends)
    for end in ends:
        with pytest.raises(DataError, match="mode 0"):
            pieces.at(end * (1 + 20 * 2.0**-52), 0)


def test_a_function_of_one_variable_may_stay_in_one_box(make) -> None:
    t = Tucker(make.asarray([1.0]), [make.asarray([[0.0], [1.0]])], [Chebyshev(2)])  # x
    for count in (1, 2):
        patches = split(t, count, tol=1e-5)
        assert_equal((patches.shape, patches.domain, patches.counts), ((None,), ((-1.0, 1.0),), (count,)))
        x = make.asarray([0.5, -0.25, 1.0])
        assert_close(patches.at(x), x)
        assert_close(patches.on_grid(x), x)
        assert_close(patches.on_grid(0.5)[()], x[0])
        for empty in (patches.at(make.asarray([])), patches.on_grid(make.asarray([]))):
            assert_equal(tuple(empty.shape), (0,))


def test_a_grid_has_the_bytes_of_its_values_and_no_more(make) -> None:
    patches = split(wave(make), [3, None, 2], tol=1e-4)
    x, y = [0.9, -1.0, 0.1], [0.0, 0.5, -0.5, 0.25]
    for axes, count in (((x, None, y), 24), ((x, [1, 0, 1], y), 36), ((0.3, None, y), 8), ((x, 1, 0.3), 3)):
        size = count * np.dtype(make.dtype).itemsize
        assert_equal(int(np.prod(patches.on_grid(*axes, max_bytes=size).shape)), count)
        with pytest.raises(DataError) as error:
            patches.on_grid(*axes, max_bytes=size - 1)
        assert_says(error, "on_grid", f"{size:,} bytes")


def test_a_single_row_of_many_keeps_the_tolerance() -> None:
    rows, tol = np.zeros((10_000, 2)), 1e-2
    rows[:, 0], rows[0, 1] = 1.0, 4 * tol  # was cut: of all rows together it is little
    core = np.zeros((2, 2, 2))
    core[0, 0, 0] = core[1, 1, 1] = 1.0
    t = Tucker(
        core, [rows, np.eye(8)[:, [1, 3]], np.eye(8)[:, [0, 2]]], [Discrete(10_000), *[Chebyshev(8)] * 2]
    )
    x, y = np.random.default_rng(0).uniform(-1, 1, (2, 500))
    assert_below(np.abs(split(t, 2, tol=tol).at(0, x, y) - t.at(0, x, y)).max(), tol, "error")


@pytest.mark.parametrize("slope", [0.0, 8.0])
def test_all_cuts_together_may_spend_the_tolerance_and_spend_a_third_at_least(monkeypatch, slope) -> None:
    spent, shortened = [], module._shortened
    monkeypatch.setattr(
        module, "_shortened", lambda t, budget: (spent.append(budget), shortened(t, budget))[1]
    )
    mode = Chebyshev(65)
    step = coefficients(np.tanh(slope * mode.nodes()) if slope else np.ones(65))[:, None]  # 1 at most, or 1
    t = Tucker(np.full((1, 1, 1), 3.0), [step, np.ones((5, 1)), step], [mode, Discrete(5), mode])
    split(t, 2, tol=1e-3)
    assert_equal(len(spent), 2 + 4)  # two halves, then two of each: a value passes two of the cuts
    assert_below(2 * max(spent), 3 * 1e-3, "budget")
    assert_above(2 * min(spent), 0.33 * 3 * 1e-3, "budget")


def test_a_box_where_the_function_is_below_the_tolerance_holds_one_coefficient() -> None:
    mode = Chebyshev(41)
    t = Tucker(np.ones(1), [coefficients(((1 + mode.nodes()) / 2) ** 40)[:, None]], [mode])
    patches = split(t, 2, tol=1e-8)
    assert_equal(patches.parts[0].coef_shape, (1,))
    x = np.linspace(-1, 1, 99)
    assert_below(np.abs(patches.at(x) - t.at(x)).max(), 1e-8, "error")
