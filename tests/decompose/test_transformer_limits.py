"""Scales, precisions and inputs at which a transformer of samples could go wrong in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tenfac import DataError, ShapeError, TuckerTransformer, load, save
from tests.checks import assert_below, assert_close, assert_equal, assert_says

X = np.random.default_rng(0).standard_normal((20, 4, 3))


def test_the_mean_of_many_float32_samples_keeps_its_digits():
    Y = (1000 + np.random.default_rng(1).standard_normal((200_000, 4))).astype("float32")
    model = TuckerTransformer(rank=2).fit(Y)
    assert_close(model.mean_, Y.mean(axis=0, dtype=float).astype("float32"))
    want = TuckerTransformer(rank=2).fit(Y.astype(float)).info_.rel_error
    assert_below(abs(model.info_.rel_error - want), 1e-3, "distance of the relative error")


@pytest.mark.parametrize("scale", [1e-170, 1e160])
def test_the_score_does_not_depend_on_the_scale(scale):
    want = TuckerTransformer(rank=2).fit(X).score(X[:7])
    got = TuckerTransformer(rank=2).fit(X * scale).score(X[:7] * scale)
    assert_below(abs(got - want), 1e-9, "distance of the score")


def test_masked_arrays_empty_modes_and_a_wrong_center_are_refused():
    model = TuckerTransformer(rank=2).fit(X)
    for call in (TuckerTransformer().fit, model.transform, model.score):
        with pytest.raises(DataError) as error:
            call(np.ma.masked_greater(X, 1))
        assert_says(error, "masked", "tucker_complete")
    with pytest.raises(ShapeError) as error:
        TuckerTransformer().fit(np.ones((3, 2, 0)))
    assert_says(error, "TuckerTransformer", "(2, 0)")
    with pytest.raises(DataError) as error:
        TuckerTransformer(center="no").fit(X)
    assert_says(error, "center", "'no'")


@pytest.mark.parametrize(
    "settings", [{"rank": np.int64(2)}, {"rank": np.array([2, 1])}, {"tol": np.float32(0.5)}]
)
def test_settings_of_numpy_are_saved(tmp_path: Path, settings):
    model = TuckerTransformer(**settings).fit(X)
    save(model, tmp_path / "m.tenfac")
    assert_equal(load(tmp_path / "m.tenfac").transform(X), model.transform(X))


def test_names_of_columns_are_saved(tmp_path: Path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X[:, :, 0], columns=list("abcd"))
    model = TuckerTransformer(rank=2).fit(frame)
    save(model, tmp_path / "m.tenfac")
    back = load(tmp_path / "m.tenfac")
    assert_equal(list(back.feature_names_in_), list("abcd"))
    assert_equal(back.transform(frame), model.transform(frame))


def test_samples_that_are_all_the_mean_are_explained_fully():
    Y = np.broadcast_to(X[:1], X.shape)
    assert_equal(TuckerTransformer(rank=1).fit(X).score(Y * 0 + TuckerTransformer(rank=1).fit(X).mean_), 0.0)
