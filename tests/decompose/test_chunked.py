"""Arrays that are read slab by slab give the numbers of the same arrays in memory."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac import DataError, RankError, ShapeError, tucker
from tenfac.decompose import chunked
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_says


class Stored:
    """What zarr and h5py show: shape, dtype, chunks, slicing. Remembers what was read."""

    def __init__(self, data: np.ndarray, chunks: tuple[int, ...]) -> None:
        self.data, self.chunks = data, chunks
        self.shape, self.dtype = data.shape, data.dtype
        self.largest = self.total = 0

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        part = self.data[index]
        self.largest, self.total = max(self.largest, part.size), self.total + part.size
        return part


def low_rank(shape: tuple[int, ...], rank: int, noise: float, dtype: str = "float64") -> np.ndarray:
    rng = np.random.default_rng([3, *shape])
    X = rng.standard_normal((rank,) * len(shape))
    for n, size in enumerate(shape):
        X = np.moveaxis(np.tensordot(rng.standard_normal((size, rank)), X, axes=(1, n)), 0, n)
    X = X / np.linalg.norm(X) + noise * rng.standard_normal(shape) / np.sqrt(X.size)
    return X.astype(dtype)


def error_of(t: object, X: np.ndarray) -> float:
    return float(np.linalg.norm(t.to_tensor() - X) / np.linalg.norm(X))


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_ranks_give_the_tensor_of_the_array_in_memory(monkeypatch, dtype):
    monkeypatch.setattr(chunked, "_SLAB", 500)
    X = low_rank((9, 14, 11), 4, 0.05, dtype)
    t, want = tucker(Stored(X, (3, 4, 11)), rank=(3, 4, 2)), tucker(X, rank=(3, 4, 2))
    assert_equal(str(t.dtype), dtype)
    assert_below(t.info.rel_error, 1.1 * want.info.rel_error, "relative error")
    assert_below(abs(t.info.rel_error - error_of(t, X)), 1e-2 * t.info.rel_error, "distance from the truth")


@pytest.mark.parametrize("tol", [1e-1, 1e-3, 1e-6, 1e-9, 1e-12])
def test_the_tolerance_is_kept_and_the_error_is_true(monkeypatch, tol):
    monkeypatch.setattr(chunked, "_SLAB", 500)
    x, y, z = (
        np.linspace(0.1, 1, 20)[:, None, None],
        np.linspace(0.1, 1, 14)[:, None],
        np.linspace(0.1, 1, 11),
    )
    X = 1 / (x + y + z)
    t = tucker(Stored(X, (4, 14, 3)), tol=tol)
    true = error_of(t, X)
    assert_below(true, tol, "relative error")
    assert_below(abs(t.info.rel_error - true), 1e-2 * true + 1e-15, "distance from the truth")
    assert_below(np.max(np.subtract(t.rank, tucker(X, tol=tol).rank)), 1, "excess rank")


@pytest.mark.parametrize("tol", [0.2, 0.5, 0.8])
def test_noise_keeps_the_tolerance_and_uses_it(tol):
    X = np.random.default_rng(0).standard_normal((20, 14, 11))
    t = tucker(Stored(X, (5, 14, 3)), tol=tol)
    assert_below(error_of(t, X), tol, "relative error")
    assert_above(error_of(t, X), 0.85 * tol, "relative error")


def test_slabs_are_small_whole_chunks_and_everything_is_read_twice(monkeypatch):
    monkeypatch.setattr(chunked, "_SLAB", 600)
    X = low_rank((20, 12, 10), 3, 0.0)
    stored = Stored(X, (5, 4, 10))
    tucker(stored, rank=3)
    assert_equal(stored.total, 2 * X.size)
    assert_equal(stored.largest, 20 * 4 * 10)  # all of mode 0, a chunk of the others
    monkeypatch.setattr(chunked, "_SLAB", 1700)
    tucker(stored, rank=3)
    assert_equal(stored.largest, 20 * 8 * 10)  # two chunks of mode 1


def test_vectors_and_matrices_work(monkeypatch):
    monkeypatch.setattr(chunked, "_SLAB", 20)
    X = low_rank((8, 6), 2, 0.0)
    assert_close(tucker(Stored(X, (2, 2)), rank=2).to_tensor(), X, factor=1e3)
    v = np.arange(1.0, 6.0)
    assert_close(tucker(Stored(v, (2,)), tol=1e-3).to_tensor(), v, factor=1e3)


def test_zeros_have_rank_one_and_no_error():
    t = tucker(Stored(np.zeros((3, 4, 5)), (3, 4, 5)), tol=1e-3)
    assert_equal((t.rank, t.info.rel_error), ((1, 1, 1), 0.0))


@pytest.mark.parametrize("scale", [1e-170, 1e-130, 1e160])
def test_huge_and_tiny_entries_are_decomposed_as_ordinary_ones(monkeypatch, scale):
    monkeypatch.setattr(chunked, "_SLAB", 500)
    X = low_rank((9, 14, 11), 3, 0.1)
    for settings in ({"rank": 3}, {"tol": 0.3}):
        t, want = tucker(Stored(X * scale, (3, 4, 11)), **settings), tucker(Stored(X, (3, 4, 11)), **settings)
        assert_equal(t.rank, want.rank)
        assert_below(abs(t.info.rel_error - want.info.rel_error), 1e-6, "distance of the relative errors")
        assert_close(t.to_tensor() / scale, want.to_tensor(), factor=1e6)


def test_a_shape_that_is_not_known_is_refused():
    stored = Stored(np.ones((3, 4)), (3, 4))
    stored.shape = (float("nan"), 4)
    with pytest.raises(ShapeError) as error:
        tucker(stored, rank=1)
    assert_says(error, "tucker:", "nan", "compute_chunk_sizes")


def test_integers_become_float64():
    X = np.arange(24).reshape(2, 3, 4)
    t = tucker(Stored(X, (2, 3, 4)), rank=(2, 2, 2))
    assert_equal(str(t.dtype), "float64")
    assert_below(error_of(t, X.astype(float)), 1e-12, "relative error")


def test_bad_input_is_refused_as_for_arrays_in_memory(monkeypatch):
    X = np.ones((3, 4, 5))
    X[1, 2, 3] = np.nan
    with pytest.raises(DataError) as error:
        tucker(Stored(X, (3, 4, 5)), rank=1)
    assert_says(error, "tucker:", "NaN")
    with pytest.raises(ShapeError) as error:
        tucker(Stored(np.ones((3, 0)), (3, 1)), rank=1)
    assert_says(error, "tucker:", "(3, 0)")
    with pytest.raises(RankError) as error:
        tucker(Stored(np.ones((3, 4)), (3, 4)), rank=(2, 9))
    assert_says(error, "tucker:", "9")
    with pytest.raises(ShapeError) as error:
        tucker(Stored(np.ones((3, 4)), (3, 4)), rank=1, batch=1)
    assert_says(error, "tucker:", "batch")
    monkeypatch.setattr(chunked, "_MOST_BYTES", 100)
    with pytest.raises(DataError) as error:
        tucker(Stored(np.ones((6, 7, 8)), (6, 7, 8)), rank=1)
    assert_says(error, "tucker", "bytes", "Lower the rank")


@pytest.mark.parametrize("library", ["zarr", "h5py", "dask.array"])
def test_arrays_of_the_libraries_are_read(tmp_path, library):
    module = pytest.importorskip(library)
    X = low_rank((12, 9, 10), 3, 1e-3)
    if library == "h5py":
        stored = module.File(tmp_path / "x.h5", "w").create_dataset("x", data=X, chunks=(4, 3, 5))
    elif library == "zarr":
        stored = module.create_array(store={}, data=X, chunks=(4, 3, 5))
    else:
        stored = module.from_array(X, chunks=(4, 3, 5))
    t = tucker(stored, tol=1e-2)
    assert_equal(t.rank, (3, 3, 3))
    assert_below(error_of(t, X), 1e-2, "relative error")
    assert_above(error_of(t, X), 1e-4, "relative error")


def test_the_fewest_values_are_kept_whose_others_are_within_the_share():
    squares = np.array([4.0, 2.0, 1.0])
    for share, count in ((0.0, 3), (0.99, 3), (1.0, 2), (2.99, 2), (3.0, 1), (7.0, 1), (100.0, 1)):
        assert_equal(chunked._kept(squares, share), count)


def test_the_mode_that_shrinks_most_is_projected_first(monkeypatch):
    X = low_rank((40, 10, 3), 3, 0.1)
    monkeypatch.setattr(chunked, "_MOST_BYTES", 40 * 1 * 3 * 8)
    assert_equal(tucker(Stored(X, (4, 10, 3)), rank=(20, 1, 3)).rank, (20, 1, 3))
    monkeypatch.setattr(chunked, "_MOST_BYTES", 2 * 10 * 3 * 8)
    assert_equal(tucker(Stored(X, (4, 10, 3)), rank=(2, 1, 3)).rank, (2, 1, 3))


def test_an_array_without_chunks_is_read_in_rows_of_the_first_mode(monkeypatch):
    X = low_rank((7, 5, 4), 2, 0.0)
    for slab, largest in ((1, 7), (15, 14), (28, 28), (140, 140)):
        monkeypatch.setattr(chunked, "_SLAB", slab)
        stored = Stored(X, (7, 5, 4))
        stored.chunks = None  # as of a contiguous data set of h5py
        assert_close(tucker(stored, rank=2).to_tensor(), X, factor=1e4)
        assert_equal((stored.largest, stored.total), (largest, 2 * X.size))
