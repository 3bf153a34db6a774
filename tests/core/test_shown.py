"""Fitted estimators in print."""

from __future__ import annotations

import inspect

import pytest

from tenfac import Report
from tenfac.core.shown import shows_what_it_learned
from tests.checks import assert_equal


def test_the_line_says_whether_and_when_it_converged_and_takes_what_scikit_learn_takes():
    base = pytest.importorskip("sklearn.base").BaseEstimator

    class Mean(base):
        def __init__(self, size=1):
            self.size = size

    plain = inspect.signature(Mean.__repr__)
    shown = shows_what_it_learned(lambda model: f"mean {model.mean_}")(Mean)
    assert_equal(
        [(p.name, p.default) for p in inspect.signature(shown.__repr__).parameters.values()],
        [(p.name, p.default) for p in plain.parameters.values()],
    )
    model = shown(size=3)
    assert_equal(repr(model), "Mean(size=3)")
    model.mean_ = 2.0
    for info, words in (
        (Report(True, "closed form"), "converged"),
        (Report(True, "tolerance met", n_iter=7), "converged after 7 iterations"),
        (Report(False, "max_iter reached", n_iter=7), "NOT converged: max_iter reached"),
    ):
        model.info_ = info
        assert_equal(repr(model), f"Mean(size=3; fitted: mean 2.0, {words})")
