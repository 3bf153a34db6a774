"""What a newcomer's slip is told, the same way at every door: names, orders of arguments, wrong kinds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tenfac
from tests.checks import assert_equal, assert_says

X = np.arange(24.0).reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("tuker", "tucker"),
        ("KroneckerSbl", "KroneckerSBL"),
        ("functional_tucker", "FunctionalTucker"),
        ("Tuker", "Tucker"),
    ],
)
def test_a_misspelled_name_of_the_package_is_told_the_nearest(slip: str, meant: str) -> None:
    with pytest.raises(AttributeError) as error:
        getattr(tenfac, slip)
    assert_says(error, slip, f"Did you mean {meant!r}?")


def test_a_name_like_no_other_is_told_nothing_more() -> None:
    with pytest.raises(AttributeError) as error:
        tenfac.zzz  # noqa: B018
    assert_equal(str(error.value), "module 'tenfac' has no attribute 'zzz'.")


@pytest.mark.parametrize(
    "call",
    [
        lambda: tenfac.cp(X, 1, verbose=7),
        lambda: tenfac.FunctionalTucker(verbose=7).fit([[0.0], [1.0]], [0.0, 1.0]),
        lambda: tenfac.KroneckerSBL(verbose=7).fit([np.eye(2), np.eye(3)], np.ones((2, 3))),
    ],
    ids=["cp", "FunctionalTucker", "KroneckerSBL"],
)
def test_verbose_is_refused_in_the_same_words_at_every_door(call: Callable[[], Any]) -> None:
    with pytest.raises(tenfac.DataError) as error:
        call()
    assert_says(error, "`verbose` must be 0 (silence), 1 (a progress bar) or 2 (a line per stage); got 7.")


def test_a_rank_that_is_text_is_not_read_letter_by_letter() -> None:
    with pytest.raises(tenfac.RankError) as error:
        tenfac.tucker(X, rank="234")
    assert_says(error, "one int per mode; got str")


@pytest.mark.parametrize(
    ("f", "kind", "parts"),
    [
        (X, TypeError, ("must be a function of 3 variables", "got ndarray", "chebyshev_from_grid")),
        (lambda x, y: x * y, tenfac.ShapeError, ("one argument per interval", "3", "(x, y)")),
    ],
    ids=["array", "two arguments"],
)
def test_what_cannot_be_called_on_the_domain_is_refused(f: Any, kind: Any, parts: tuple[str, ...]) -> None:
    with pytest.raises(kind) as error:
        tenfac.chebyshev_tucker(f, [(0, 1)] * 3)
    assert_says(error, *parts)


def test_save_tells_the_order_of_its_arguments_and_who_saves_what_it_does_not(tmp_path: Path) -> None:
    t = tenfac.tucker(X, rank=1)
    for wrong, path, part in ((str(tmp_path / "t"), t, "save(obj, path)"), (X, tmp_path / "t", "numpy.save")):
        with pytest.raises(tenfac.DataError) as error:
            tenfac.save(wrong, path)
        assert_says(error, part)
    with pytest.raises(FileNotFoundError) as missing:
        tenfac.save(t, tmp_path / "none" / "t")
    assert_says(missing, "no folder", str(tmp_path / "none"), "Make it first")


def test_adapters_are_sent_to_their_own_save_and_load(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    layer, path = tenfac.tucker_adapter(torch.nn.Linear(8, 8), rank=1), tmp_path / "a.safetensors"
    with pytest.raises(tenfac.DataError) as error:
        tenfac.save(layer, path)
    assert_says(error, "tenfac.save_adapter")
    tenfac.save_adapter(layer, path)
    with pytest.raises(tenfac.DataError) as error:
        tenfac.load(path)
    assert_says(error, "load_adapter(model, path)")
    with pytest.raises(tenfac.DataError) as error:
        tenfac.load_adapter(path, layer)
    assert_says(error, "The model comes first")


def test_a_column_that_is_not_there_is_told_in_whole_sentences() -> None:
    model = tenfac.FunctionalTucker(max_iter=0).fit({"time": [0.0, 1.0, 2.0]}, [0.0, 1.0, 0.5])
    with pytest.raises(tenfac.DataError) as error:
        model.predict({"tim": [0.5]})
    assert_says(error, "no column 'time'. Did you mean tim? Its columns are tim.")
