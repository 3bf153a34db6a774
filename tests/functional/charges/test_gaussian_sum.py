"""The error that ``gaussian_sum`` says: measured at centers and random points, at a bounded cost."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac import GaussianBasis, gaussian_sum
from tenfac.core.errors import ConvergenceWarning
from tenfac.functional.charges.gaussian_sum import _measured
from tests.checks import assert_above, assert_below, assert_close, assert_equal

BOX = [(-1.0, 1.0)] * 2
MODULE = "tenfac.functional.charges.gaussian_sum"


def test_an_error_near_any_center_is_found() -> None:
    centers = np.stack(np.meshgrid(*[np.linspace(-0.9, 0.9, 4)] * 2), axis=-1).reshape(-1, 2)
    basis = GaussianBasis([200.0], domain=BOX, tol=1e-6)
    heights = 1 + np.arange(16.0)
    whole = basis.sum(centers, heights)
    assert_below(_measured(basis, whole, centers, heights), 1e-5, "error")
    for n in range(16):
        lacking = basis.sum(centers, heights * (np.arange(16) != n))
        # relative to the largest value, which is that of the last center
        assert_close(_measured(basis, lacking, centers, heights), heights[n] / 16, 1e11)


def test_an_error_far_from_the_centers_is_found_and_a_sum_of_zero_has_the_error_of_its_values() -> None:
    basis = GaussianBasis([5.0], domain=BOX, tol=1e-6)
    far = basis.sum([[-0.9, 0.9], [0.9, 0.9]], [2.0, 1e-3])
    error = _measured(basis, far, np.array([[0.9, 0.9]]), np.array([1e-3]))
    assert_above(error, 100, "error")
    zero = np.zeros(1)
    assert_above(_measured(basis, far, np.array([[-0.9, 0.9]]), zero), 1.9, "error of what should be 0")
    assert_equal(_measured(basis, basis.sum([[0.1, 0.1]], zero), np.array([[0.1, 0.1]]), zero), 0.0)


@pytest.mark.parametrize(("count", "terms"), [(3, 1), (50, 2), (50, 7), (400, 7)])
def test_the_check_of_many_terms_has_a_bounded_cost(monkeypatch, count, terms) -> None:
    rng = np.random.default_rng(5)
    centers, amplitudes = rng.uniform(-1, 1, (count, 2)), rng.standard_normal(count)
    exponents = np.linspace(0.5, 1.0, terms)
    seen = []

    def direct(basis, point, centers, amplitudes) -> float:
        seen.append(point)
        return 1.0

    monkeypatch.setattr(f"{MODULE}._direct", direct)
    monkeypatch.setattr(f"{MODULE}._CHECKED", 4000)
    with pytest.warns(ConvergenceWarning):
        gaussian_sum(centers, amplitudes, exponents, domain=BOX, tol=1e-3)
    at_centers = sum(bool((point == centers).all(axis=1).any()) for point in seen)
    each = len(seen) - at_centers
    assert_above(each, 4, "random points")
    assert_below(each, 64, "random points")
    assert_below(at_centers, each, "centers")
    assert_above(at_centers, min(each / 2, count), "centers")
    if each > 4:
        assert_below(each * count * terms, 4000, "kernel values")
    if each < 64:
        assert_above((each + 1) * count * terms, 4000, "kernel values")


def test_the_report_says_whether_the_error_measured_is_below_tol(monkeypatch) -> None:
    for error, converged in ((1e-3, True), (1.1e-3, False)):
        monkeypatch.setattr(f"{MODULE}._measured", lambda *_, error=error: error)
        if converged:
            made = gaussian_sum([[0.1, 0.2]], [1.0], [1.0], domain=BOX, tol=1e-3)
        else:
            with pytest.warns(ConvergenceWarning, match="0.0011 of the largest value, above tol=0.001"):
                made = gaussian_sum([[0.1, 0.2]], [1.0], [1.0], domain=BOX, tol=1e-3)
        assert_equal((made.info.rel_error, made.info.converged), (error, converged))
        assert_equal("tolerance met" in made.info.reason, converged)
        assert_below(abs(made.info.seconds - 30), 30, "seconds")


def test_the_smallest_tolerance_is_kept() -> None:
    rng = np.random.default_rng(0)
    made = gaussian_sum(rng.uniform(-1, 1, (20, 2)), rng.random(20), [0.5, 3.0], domain=BOX, tol=1e-13)
    assert made.info.converged
