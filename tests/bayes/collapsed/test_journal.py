"""A fit that was killed goes on where it was, to the same bits."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenfac import ConvergenceWarning, DataError, FunctionalTucker
from tenfac.bayes.collapsed import journal
from tenfac.bayes.collapsed.evidence import Problem
from tenfac.bayes.collapsed.grid_evidence import GridProblem
from tests.bayes.toys import smooth_table
from tests.checks import assert_above, assert_equal, assert_says, quietly

X, Y = smooth_table((4, 12, 3), (0,), 80)
LINE, VALUES = smooth_table((30, 5), (), 90)
POSITIVE = np.exp(0.3 * Y)
# a grid that has more products than are kept in full, with cells missing
CELLS = np.stack(np.unravel_index(np.arange(9 * 9 * 8), (9, 9, 8)), axis=1) / 8
FILLED = np.sin(3 * CELLS @ [1.0, 2.0, 3.0]) + 0.1 * np.random.default_rng(0).normal(size=648)

FITS: dict[str, tuple[dict[str, Any], np.ndarray, np.ndarray]] = {
    "bases": ({"max_functions": 3, "max_iter": 30}, LINE, VALUES),
    "a grid with cells missing": ({"max_iter": 4}, CELLS[:-3], FILLED[:-3]),
    "exact labels": ({"discrete": [1], "max_iter": 5}, X, Y),
    "trials of the exact mode": ({"discrete": [1], "max_functions": 3, "max_iter": 6}, LINE, VALUES),
    "margins of a response": ({"response": "log", "max_iter": 3, "tol": 1e-3}, X[:20, 1:], POSITIVE[:20]),
    "loadings of labels": ({"discrete": [0], "label_rank": 1, "max_iter": 3}, X, Y),
}


class KilledError(Exception):
    """Stands for the end of a process."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fit.journal"


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], list[int]]:
    """Counts evaluations of the evidence from now on, and raises in the one of a number."""

    def start(last: int | None = None) -> list[int]:
        count = [0]
        for kind in (Problem, GridProblem):
            original = getattr(kind, "value_and_gradient_of_old", None) or kind.value_and_gradient
            monkeypatch.setattr(kind, "value_and_gradient_of_old", original, raising=False)

            def counted(self: Any, hyper: Any, original: Any = original) -> Any:
                if count[0] == last:
                    raise KilledError
                count[0] += 1
                return original(self, hyper)

            monkeypatch.setattr(kind, "value_and_gradient", counted)
        return count

    return start


def fit(settings: dict[str, Any], x: np.ndarray, y: np.ndarray, **keywords: Any) -> FunctionalTucker:
    return quietly(FunctionalTucker(**settings).fit, x, y, **keywords)


@cache
def whole(name: str) -> tuple[FunctionalTucker, FunctionalTucker, int]:
    """One of the fits without a file, the same with one, and the evaluations in that (one a line)."""
    settings, x, y = FITS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fit.journal"
        filed = fit(settings, x, y, checkpoint=path)  # trials and the fit share evaluations
        return fit(settings, x, y), filed, len(path.read_bytes().splitlines()) - 1


def assert_same_model(got: FunctionalTucker, want: FunctionalTucker, x: np.ndarray) -> None:
    for one, other in zip(got.predict(x, return_std=True), want.predict(x, return_std=True), strict=True):
        assert_equal(one, other)
    for name in (
        "log_evidence_",
        "noise_",
        "bounds_",
        "lengthscales_",
        "constants_",
        "exact_mode_",
        "n_iter_",
    ):
        assert_equal(getattr(got, name), getattr(want, name))
    for name in ("history", "n_evals", "converged"):
        assert_equal(getattr(got.info_, name), getattr(want.info_, name))


@pytest.mark.parametrize(
    ("name", "share"), [*[(name, 0.6) for name in FITS], ("bases", 0.0), ("bases", 0.99)]
)
def test_a_killed_fit_goes_on_to_the_same_bits_and_repeats_nothing(
    path: Path, evaluations: Any, name: str, share: float
) -> None:
    settings, x, y = FITS[name]
    want, _, in_all = whole(name)
    last = int(share * in_all)
    evaluations(last)
    with pytest.raises(KilledError):
        fit(settings, x, y, checkpoint=path)
    assert_equal(len(path.read_bytes().splitlines()), 1 + last)
    done = evaluations()
    got = fit(settings, x, y, checkpoint=path)
    assert_equal(done[0], in_all - last)
    assert_same_model(got, want, x)


def test_the_fits_tried_pass_through_every_stage() -> None:
    models = {name: whole(name)[0] for name in FITS}
    assert models["a grid with cells missing"]._learned.from_grid
    assert_above(len(models["bases"].info_.history), 2, "bases")
    assert_equal(models["exact labels"].exact_mode_, 1)
    assert np.isfinite(models["margins of a response"].bounds_[0])
    assert_equal(models["loadings of labels"]._learned.hyper.n_loadings, 4)


def test_a_finished_file_repeats_the_fit_without_an_evaluation(path: Path, evaluations: Any) -> None:
    settings, x, y = FITS["bases"]
    want = fit(settings, x, y, checkpoint=path)
    before, done = path.read_bytes(), evaluations()
    assert_same_model(fit(settings, x, y, checkpoint=str(path)), want, x)
    assert_equal(done[0], 0)
    assert_equal(path.read_bytes(), before)


@pytest.mark.parametrize("name", FITS)
def test_a_checkpoint_changes_no_bit_of_the_fit(name: str) -> None:
    want, filed, _ = whole(name)
    assert_same_model(filed, want, FITS[name][1])


def test_a_line_cut_by_the_kill_is_dropped(path: Path, evaluations: Any) -> None:
    settings, x, y = FITS["bases"]
    want = fit(settings, x, y, checkpoint=path)
    lines = path.read_bytes().splitlines(keepends=True)
    for cut in (b"{", lines[5][:-1]):
        path.write_bytes(b"".join(lines[:5]) + cut)
        done = evaluations()
        assert_same_model(fit(settings, x, y, checkpoint=path), want, x)
        assert_equal(done[0], len(lines) - 5)
        assert_equal(path.read_bytes().splitlines(keepends=True), lines)


def test_raising_max_iter_goes_on_from_the_file(path: Path, evaluations: Any) -> None:
    _, x, y = FITS["bases"]
    one = {"terms": (), "kernel": "matern32"}  # nothing to choose: the longer search begins like the shorter
    with pytest.warns(ConvergenceWarning, match="Raise max_iter"):
        FunctionalTucker(max_iter=5, **one).fit(x, y, checkpoint=path)
    known = len(path.read_bytes().splitlines()) - 1
    done = evaluations()
    want = fit({"max_iter": 30, **one}, x, y)
    in_all = done[0]
    done = evaluations()
    assert_same_model(fit({"max_iter": 30, "verbose": 2, **one}, x, y, checkpoint=path), want, x)
    assert_equal(done[0], in_all - known)


def test_a_fitted_model_has_nothing_of_its_file(path: Path) -> None:
    settings, x, y = FITS["bases"]
    model = fit(settings, x, y, checkpoint=path)
    path.unlink()
    assert_equal(pickle.loads(pickle.dumps(model)).predict(x), model.predict(x))  # noqa: S301
    assert model._task.journal is None


# --- refusals ---------------------------------------------------------------------------------------------


def refused(path: Any, x: Any = LINE, y: Any = VALUES, weights: Any = None, **settings: Any) -> Any:
    with pytest.raises(DataError) as error:
        FunctionalTucker(**{"max_iter": 0, **settings}).fit(x, y, weights, checkpoint=path)
    return error


def test_a_file_of_other_data_or_settings_is_refused_and_says_what_differs(path: Path) -> None:
    FunctionalTucker(max_iter=0).fit(LINE, VALUES, checkpoint=path)
    before = path.read_bytes()
    moved = LINE.copy()
    moved[3, 1] += 1e-9
    again = "delete the file"
    assert_says(refused(path, x=moved), "other data in mode '1'.", "same data", again)
    assert_says(refused(path, y=VALUES + 1e-12), "other data in y.", again)
    assert_says(refused(path, weights=np.full(90, 2.0)), "other data in sample_weight.", again)
    assert_says(refused(path, x=LINE[:, :1]), "other data in mode '1'.", again)
    assert_says(refused(path, kernel="matern12"), "`kernel` was 'auto' and is 'matern12'", again)
    assert_says(refused(path, random_state=1, rank=3), "`random_state` was 0", "`rank` was 'auto' and is 3")
    assert_equal(path.read_bytes(), before)


def test_a_file_of_another_version_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FunctionalTucker(max_iter=0).fit(LINE, VALUES, checkpoint=path)
    monkeypatch.setattr("tenfac.__version__", "99.0")
    assert_says(refused(path), "tenfac_version was", "and is 99.0")
    monkeypatch.undo()
    monkeypatch.setattr(journal, "_VERSION", 2)
    assert_says(refused(path), "version was 1 and is 2")


@pytest.mark.parametrize("content", [b"time,dose\n1,2\n", b"no end", b"{}\n", b"[1]\n", b"\x00\xff\n"])
def test_a_file_that_is_something_else_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert_says(refused(path), "something else", "Give another path")
    assert_equal(path.read_bytes(), content)


@pytest.mark.parametrize("line", [b"{", b"", b"[]", b'{"of": "a"}'])
def test_a_damaged_line_inside_is_refused(path: Path, line: bytes) -> None:
    fit({"max_iter": 5}, LINE, VALUES, checkpoint=path)
    lines = path.read_bytes().splitlines()
    lines[3] = line
    path.write_bytes(b"\n".join(lines) + b"\n")
    assert_says(refused(path), "line 4 is damaged", "delete the file")


def test_an_empty_file_is_a_new_one(path: Path) -> None:
    path.touch()
    FunctionalTucker(max_iter=0).fit(LINE, VALUES, checkpoint=path)
    assert_equal(json.loads(path.read_text())["format"], "tenfac journal")


def test_a_missing_folder_and_a_folder_are_refused(tmp_path: Path) -> None:
    for bad in (tmp_path / "no" / "fit.journal", tmp_path):
        assert_says(refused(bad), "a file in an existing folder", repr(str(bad)))


@pytest.mark.parametrize("seed", [None, np.random.default_rng(0)])
def test_a_random_state_that_cannot_be_repeated_is_refused(path: Path, seed: Any) -> None:
    assert_says(refused(path, random_state=seed), "an integer", type(seed).__name__[:4], "random_state=0")
    assert not path.exists()


def test_values_of_unknown_kinds_have_no_fingerprint() -> None:
    with pytest.raises(TypeError, match="no rule for object"):
        journal.fingerprint(object())


def test_fingerprints_tell_values_apart_that_differ_in_a_bit_a_shape_or_a_kind() -> None:
    zeros = np.zeros(4)
    arrays = [zeros, -zeros, zeros.reshape(2, 2), zeros.astype(np.float32), np.nextafter(zeros, 1)]
    values = [*arrays, np.array(["a"]), np.array(["b"]), (0, 0), (0.0, 0), ((0,), 0), "0", None]
    assert_equal(len({journal.fingerprint(value) for value in values}), len(values))
    turned = np.arange(6.0).reshape(2, 3).T
    assert_equal(journal.fingerprint(turned), journal.fingerprint(turned.copy()))


# --- a real kill ------------------------------------------------------------------------------------------

PROGRAM = """
import sys
import numpy as np
from tenfac import FunctionalTucker
with np.load(sys.argv[1]) as data:
    FunctionalTucker(max_iter=40).fit(data["x"], data["y"], checkpoint=sys.argv[2])
"""


@pytest.mark.slow
def test_a_process_killed_in_the_middle_is_taken_up_by_another(path: Path, tmp_path: Path) -> None:
    x, y = smooth_table((400, 12), (), 2000)
    table = tmp_path / "table.npz"
    np.savez(table, x=x, y=y)
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(table), str(path)]
    for lines in (4, 9):
        process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.getcwd()})
        deadline = time.monotonic() + 120
        while not path.exists() or path.read_bytes().count(b"\n") < lines:
            assert process.poll() is None, "the fit ended before it was killed"
            assert time.monotonic() < deadline, "the fit wrote too little in two minutes"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert_equal(process.wait(), -signal.SIGKILL)
    known = path.read_bytes().count(b"\n")
    got = fit({"max_iter": 40}, x, y, checkpoint=path)
    assert_above(path.read_bytes().count(b"\n"), known + 1, "evaluations in the file")
    assert_same_model(got, fit({"max_iter": 40}, x, y), x)
