"""Sums over rows, quadratic forms and predictions of CP and Tucker against loops, for one mode to four."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac.bayes.cep.forms import CPForm, TuckerForm, moments
from tenfac.bayes.cep.rows import Rows, merged
from tests.checks import assert_close, assert_equal

FORMS = [
    CPForm(1, 2, mains=True),
    CPForm(2, 1, mains=False),
    CPForm(4, 2, mains=True),
    TuckerForm((2,)),
    TuckerForm((1, 2)),
    TuckerForm((1, 2, 1, 3)),
    TuckerForm((0, 2)),
]


class Random:
    """Random moments of every mode and of the coefficients."""

    def __init__(self, form: CPForm | TuckerForm) -> None:
        rng = np.random.default_rng(0)
        self.form, self.sizes = form, [3, 5, 2, 4][: len(form.sizes)]
        self.codes = [rng.integers(0, size, 25) for size in self.sizes]
        self.y, self.weights = rng.normal(size=25), rng.random(25)
        self.first, self.second = [], []
        for size, q in zip(self.sizes, form.sizes, strict=True):
            root = rng.normal(size=(size, q - 1, q))
            first, second = moments(rng.normal(size=(size, q - 1)), root @ root.transpose(0, 2, 1))
            self.first.append(first)
            self.second.append(second)
        self.core = rng.normal(size=form.n_terms)
        root = rng.normal(size=(form.n_terms, form.n_terms))
        self.core_second = root @ root.T

    def terms(self, n: int, modes: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """First and second moments of the terms of row n, by some modes."""
        one, two = np.ones(self.form.n_terms), np.ones((self.form.n_terms,) * 2)
        for e in modes:
            index, i = self.form.index[e], self.codes[e][n]
            one = one * self.first[e][i][index]
            two = two * self.second[e][i][np.ix_(index, index)]
        return one, two


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{type(form).__name__}{form.sizes}")
def test_sums_over_rows_are_those_of_a_loop(form: CPForm | TuckerForm) -> None:
    case = Random(form)
    rows = Rows.of(case.codes, case.sizes, case.y, case.weights)
    tables = [form.table(d, case.second[d]) for d in range(len(case.sizes))]
    every = list(range(len(case.sizes)))
    for mode in every:
        wide, narrow = form.sums(rows.by_mode[mode], tables)
        quadratic, linear = form.sites(mode, wide, narrow, case.core, case.core_second)
        core_sums = form.core_sums(mode, wide, narrow, case.first[mode], case.second[mode])
        picks = np.eye(form.sizes[mode])[form.index[mode]]
        want = [np.zeros_like(a) for a in (quadratic, linear, *core_sums)]
        for n in range(25):
            i, w = case.codes[mode][n], case.weights[n]
            one, two = case.terms(n, [e for e in every if e != mode])
            want[0][i] += w * picks.T @ (two * case.core_second) @ picks
            want[1][i] += w * case.y[n] * (one * case.core) @ picks
            one, two = case.terms(n, every)
            want[2] += w * two
            want[3] += w * case.y[n] * one
        for got, expected in zip((quadratic, linear, *core_sums), want, strict=True):
            assert_close(got, expected, factor=1e4)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{type(form).__name__}{form.sizes}")
def test_moments_of_a_prediction_are_those_of_a_loop(form: CPForm | TuckerForm) -> None:
    case = Random(form)
    every = list(range(len(case.sizes)))
    firsts = [case.first[e][case.codes[e]] for e in every]
    seconds = [case.second[e][case.codes[e]] for e in every]
    mean, square = form.evaluate(firsts, seconds, case.core, case.core_second)
    pairs = [case.terms(n, every) for n in range(25)]
    assert_close(mean, np.array([one @ case.core for one, _ in pairs]), factor=1e4)
    assert_close(square, np.array([np.sum(two * case.core_second) for _, two in pairs]), factor=1e4)


def test_identical_rows_become_one_with_their_weights_added() -> None:
    columns = [np.array([1.0, 0.0, 1.0, 1.0]), np.array([2.0, 2.0, 2.0, 2.0])]
    got, y, weights = merged(columns, np.array([5.0, 5.0, 5.0, 6.0]), np.array([1.0, 2.0, 3.0, 4.0]))
    assert_equal(got[0], np.array([0.0, 1.0, 1.0]))
    assert_equal(y, np.array([5.0, 5.0, 6.0]))
    assert_equal(weights, np.array([2.0, 4.0, 4.0]))
