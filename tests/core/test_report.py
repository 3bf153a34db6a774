"""Reports in one line, progress told step by step, and options by name."""

from __future__ import annotations

import logging
import sys

import numpy as np
import pytest

from tenfac import CP, DataError, Tucker, load, save
from tenfac.core.errors import check_option
from tenfac.core.progress import Progress
from tenfac.core.report import Report
from tests.checks import assert_below, assert_equal, assert_says


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        ({}, "Report(NOT converged, why)"),
        ({"n_iter": 0, "n_evals": 7}, "Report(NOT converged, why, n_iter=0, n_evals=7)"),
        ({"rel_error": 0.12345}, "Report(NOT converged, why, rel_error=0.123)"),
        ({"rel_error": np.float64(0.5)}, "Report(NOT converged, why, rel_error=0.5)"),
        ({"rel_error": np.array([0.25, 0.5])}, "Report(NOT converged, why, rel_error<=0.5)"),
        ({"rel_error": np.zeros((2, 0))}, "Report(NOT converged, why, rel_error<=0)"),
        ({"validation_error": 0.0}, "Report(NOT converged, why, validation_error=0)"),
        ({"seconds": 1.234}, "Report(NOT converged, why, 1.2 s)"),
        ({"seconds": 0.00456}, "Report(NOT converged, why, 0.0046 s)"),
        ({"seconds": 754.3}, "Report(NOT converged, why, 754 s)"),
        ({"warnings": ("a", "b")}, "Report(NOT converged, why, 2 warning(s))"),
    ],
)
def test_a_report_is_one_line_of_what_applies(facts, line):
    assert_equal(repr(Report(False, "why", **facts)), line)
    assert_equal(repr(Report(True, "why", **facts)), line.replace("NOT ", ""))


def test_the_errors_of_a_batch_are_saved_with_it(tmp_path):
    errors = np.array([0.25, 0.5])
    for kind, error in (("a number", 0.25), ("an array", errors)):
        info = Report(True, kind, rel_error=error)
        t = Tucker(np.ones((2, 1, 1)), [np.ones((2, 3, 1)), np.ones((2, 4, 1))], info=info)
        save(t, tmp_path / "t.npz")
        assert_equal(load(tmp_path / "t.npz").info.rel_error, error)


def test_progress_counts_to_its_limit_and_stops_when_told():
    seen = []
    tell = Progress("fit", 3, callback=lambda n, error: seen.append((n, error)) or n == 2)
    assert_equal((tell.left, tell(0.5), tell.left), (3, False, 2))
    assert_equal((tell(0.25), tell.left, tell.stopped), (True, 0, True))
    assert_equal((seen, tell.history, tell.n_iter), ([(1, 0.5), (2, 0.25)], [0.5, 0.25], 2))
    assert_equal(Progress("fit").left, sys.maxsize)
    with pytest.raises(TypeError) as error:
        Progress("fit", callback=3)
    assert_says(error, "fit", "callback", "int")


def test_a_bar_of_quick_steps_is_drawn_few_times(capsys):
    with Progress("fit", 300, 1) as tell:
        for _ in range(300):
            tell(0.5)
    assert_equal(tell._bar.n, 300)
    assert_below(capsys.readouterr().err.count("\r"), 100, "drawings")


def test_progress_is_silent_unless_asked_and_what_it_counts_is_not_given():
    with Progress("fit") as tell:
        assert_equal((tell._bar, tell.n_iter, tell.history, tell.stopped), (None, 0, [], False))
    for name, value in (("n_iter", 1), ("history", []), ("stopped", True), ("total", float), ("_bar", None)):
        with pytest.raises(TypeError):
            Progress("fit", **{name: value})


@pytest.mark.parametrize("verbose", [0, 1, 2])
def test_a_bar_is_shown_from_one_on_and_lines_from_two(verbose, caplog, capsys):
    with caplog.at_level(logging.INFO, "tenfac"), Progress("fit", 5, verbose) as tell:
        tell(0.125, 2)
        tell.move()
        assert_equal(
            None if tell._bar is None else (tell._bar.n, tell._bar.total), (3, 5) if verbose else None
        )
        tell.log("%s done", 3)
    assert_equal([record.getMessage() for record in caplog.records], ["fit: 3 done"] if verbose == 2 else [])
    shown = capsys.readouterr().err
    assert_equal(("fit" in shown, "\n" in shown), (verbose > 0, False))  # no line is left of the bar


def test_an_option_is_one_of_its_names():
    assert_equal(check_option("svd", ["svd", "random"], "cp", "init"), "svd")
    for value, parts in (("svdd", ("Did you mean 'svd'?",)), (3, ("got 3",)), (None, ("got None",))):
        with pytest.raises(DataError) as error:
            check_option(value, ["svd", "random"], "cp", "init", "an array")
        assert_says(error, "'svd', 'random', or an array", *parts)


def test_no_largest_entry_of_a_batch_of_nothing_and_of_complex_numbers():
    many = CP(None, [np.ones((2, 3, 1))])
    for t, word in (
        (many, "batch"),
        (CP(None, [np.ones((0, 1))]), "entries"),
        (CP(None, [np.full((2, 1), 1j)]), "real"),
    ):
        with pytest.raises((DataError, ValueError)) as error:
            t.max()
        assert_says(error, "max", word)
