"""A fitted model comes back from its file with the same predictions, bit by bit."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from tenfac import DataError, FunctionalTucker, load, save
from tests.bayes.toys import smooth_table
from tests.checks import assert_equal, assert_says, quietly

X, Y = smooth_table((4, 12, 3), (0,), 80)
TABLE = {
    "tissue": np.array(["Leber", "Lunge", "Hände", "骨"])[X[:, 0].astype(int) - 10],
    "time": X[:, 1],
    "dose": X[:, 2],
}
MODELS: dict[str, tuple[dict[str, Any], Any]] = {
    "labels": ({"tol": 1e-2}, TABLE),
    "settings by name": (
        {"kernel": {"time": "matern12"}, "discrete": ["tissue"], "rank": [3, 2], "tol": 1e-2},
        TABLE,
    ),
    "settings by number": ({"kernel": {1: "matern52"}, "discrete": (0,), "max_iter": 0}, X),
    "settings in numpy": (
        {
            "rank": np.array([3, 2]),
            "discrete": np.array([0]),
            "max_iter": np.int64(0),
            "tol": np.float64(1e-6),
        },
        X,
    ),
    "exact discrete": ({"discrete": ["cell"], "tol": 1e-2}, {"cell": X[:, 1], "dose": X[:, 2]}),
    "one mode": ({"tol": 1e-2}, X[:, 1:2]),
    "alike labels": ({"label_rank": 2, "tol": 1e-2}, TABLE),
    "bent response": ({"response": "logit", "tol": 1e-2}, TABLE),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.tenfac"


def rewrite(path: Path, change: Any) -> None:
    """Change the header of a saved file and write it again."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    header = json.loads(parts["header.json"])
    change(header)
    parts["header.json"] = json.dumps(header).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(("settings", "table"), MODELS.values(), ids=MODELS.keys())
def test_a_model_comes_back_with_the_same_bits(path: Path, settings: dict[str, Any], table: Any) -> None:
    weights = np.random.default_rng(0).integers(0, 3, Y.size)
    model = FunctionalTucker(**settings).fit(table, Y, sample_weight=weights)
    rows = (
        {k: v[weights > 0] for k, v in table.items()}
        if isinstance(table, dict)
        else table[weights > 0] + [0.0]
    )
    save(model, path)
    back = load(path)
    assert type(back) is FunctionalTucker
    for got, want in zip(
        back.predict(rows, return_std=True), model.predict(rows, return_std=True), strict=True
    ):
        assert_equal(got, want)
    for mode in range(len(model.mode_names_)):
        for got, want in zip(back.mode_posterior(mode), model.mode_posterior(mode), strict=True):
            assert_equal(got, want)


def test_everything_that_was_learned_comes_back(path: Path) -> None:
    model = FunctionalTucker(kernel={"time": "matern12"}, tol=1e-2).fit(TABLE, Y)
    save(model, path)
    back = load(path)
    for name in ("mode_names_", "kinds_", "exact_mode_", "rank_", "lengthscales_", "constants_", "noise_"):
        assert_equal(getattr(back, name), getattr(model, name))
    assert_equal(back.log_evidence_, model.log_evidence_)
    assert_equal(back.info_, model.info_)
    assert_equal(back.n_features_in_, 3)
    assert_equal(back.feature_names_in_, model.feature_names_in_)
    for got, want in zip(back.indices_, model.indices_, strict=True):
        assert_equal(got, want)
    params = {k: v for k, v in model.get_params().items() if k != "random_state"}
    assert_equal({k: back.get_params()[k] for k in params}, params)


def test_a_model_that_came_back_can_be_fitted_and_saved_again(path: Path) -> None:
    model = FunctionalTucker(tol=1e-2).fit(TABLE, Y)
    save(model, path)
    once = load(path)
    save(once, path)
    assert_equal(load(path).predict(TABLE), model.predict(TABLE))
    assert_equal(once.fit(TABLE, Y).predict(TABLE), model.predict(TABLE))


def test_saving_changes_nothing(path: Path) -> None:
    model = FunctionalTucker(tol=1e-2).fit(TABLE, Y)
    before = model.predict(TABLE, return_std=True)
    save(model, path)
    for got, want in zip(model.predict(TABLE, return_std=True), before, strict=True):
        assert_equal(got, want)


def test_the_file_holds_the_labels_as_they_are_and_opens_without_tenfac(path: Path) -> None:
    save(FunctionalTucker(tol=1e-2).fit(TABLE, Y), path)
    with np.load(path, allow_pickle=False) as stored:
        assert any(
            set(stored[name].ravel().tolist()) == set(TABLE["tissue"])
            for name in stored.files
            if name != "header.json" and stored[name].dtype.kind == "U"
        )


def test_an_unfitted_model_cannot_be_saved(path: Path) -> None:
    with pytest.raises(NotFittedError):
        save(FunctionalTucker(), path)
    assert not path.exists()


def test_a_file_of_a_newer_format_version_is_refused(path: Path) -> None:
    save(FunctionalTucker(max_iter=0).fit(X, Y), path)
    rewrite(path, lambda header: header.update(format_version=header["format_version"] + 1))
    with pytest.raises(DataError) as error:
        load(path)
    assert_says(error, "format version", "pip install -U tenfac")


def test_a_file_that_lacks_an_array_or_an_entry_is_refused(path: Path) -> None:
    model = FunctionalTucker(max_iter=0).fit(X, Y)
    save(model, path)
    rewrite(path, lambda header: header["arrays"].pop("y"))
    with pytest.raises(DataError) as error:
        load(path)
    assert_says(error, "'y'", "Save the object again")
    save(model, path)
    rewrite(path, lambda header: header["state"].pop("modes"))
    with pytest.raises(DataError) as error:
        load(path)
    assert_says(error, "FunctionalTucker", "modes")


def test_a_search_that_was_cut_short_can_be_saved(path: Path) -> None:
    model = quietly(
        FunctionalTucker(likelihood="student_t", max_iter=41, tol=1e-300).fit, X[:12, 1:2], Y[:12]
    )
    save(model, path)
    assert_equal(load(path).info_.converged, False)
