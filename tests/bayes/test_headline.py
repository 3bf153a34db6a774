"""The numbers that README and benchmarks state, on real data at indices nobody measured."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac import FunctionalTucker, datasets
from tenfac.bayes.metrics import gaussian_metrics
from tests.checks import assert_above, assert_below, assert_equal


def split(data: datasets.Dataset, mode: str, kept: np.ndarray) -> tuple:
    """Rows at the kept indices of one mode, and at the inner ones left out."""
    unseen = np.setdiff1d(np.arange(kept[-1]), kept)
    return *data.select(mode, kept).to_table(), *data.select(mode, unseen).to_table()


@pytest.mark.slow
def test_kinetic_fluorescence_at_unseen_times_is_better_than_low_rank_and_spline() -> None:
    X, y, X_new, y_new = split(datasets.load_kinetic(), "time", np.arange(0, 60, 4))
    mean, std = FunctionalTucker(discrete=[0]).fit(X, y).predict(X_new, return_std=True, include_noise=True)
    relative = np.sqrt(np.sum((mean - y_new) ** 2) / np.sum(y_new**2))
    assert_below(relative, 0.0235, "relative RMSE; ST-HOSVD and spline: 0.0250")
    coverage = gaussian_metrics(y_new, mean, std, level=0.9)["coverage"]
    assert_above(coverage, 0.87, "coverage of 90 % bands")
    assert_below(coverage, 0.93, "coverage of 90 % bands")


@pytest.mark.slow
def test_il2_at_unseen_doses_with_learned_labels_is_better_than_linear_interpolation() -> None:
    X, y, X_new, y_new = split(datasets.load_il2(), "dose", np.array([0, 2, 4, 6, 8, 10, 11]))
    fits, scores = {}, {}
    for rank in (0, 3, 5, 7):
        fits[rank] = FunctionalTucker(discrete=[0, 3], response="logit", label_rank=rank).fit(X, y)
        loadings = fits[rank]._learned.hyper.n_loadings
        scores[rank] = fits[rank].log_evidence_ - 0.5 * loadings * np.log(y.size)
    assert_equal(max(scores, key=scores.__getitem__), 5)  # the Bayesian information criterion
    error = np.sqrt(np.mean((fits[5].predict(X_new) - y_new) ** 2))
    assert_below(error, 0.03505, "RMSE, 0.0350 in four digits; linear interpolation: 0.0388")
    mean, std = fits[5].predict(X_new, return_std=True, include_noise=True)
    coverage = gaussian_metrics(y_new, mean, std)["coverage"]
    assert_above(coverage, 0.92, "coverage of 95 % bands")
    assert_below(coverage, 0.98, "coverage of 95 % bands")
    known = fits[5].predict(X, return_std=True)[1].mean()
    assert_above(fits[5].predict(X_new, return_std=True)[1].mean(), 1.5 * known, "band at unseen doses")


@pytest.mark.slow
def test_il2_bands_cover_and_are_wider_at_doses_left_out() -> None:
    X, y, X_new, y_new = split(datasets.load_il2(), "dose", np.array([0, 2, 4, 6, 8, 10, 11]))
    model = FunctionalTucker(discrete=[0, 3]).fit(X, y)
    mean, std = model.predict(X_new, return_std=True, include_noise=True)
    assert_below(np.sqrt(np.mean((mean - y_new) ** 2)), 0.042, "RMSE; linear interpolation: 0.0388")
    coverage = gaussian_metrics(y_new, mean, std)["coverage"]
    assert_above(coverage, 0.93, "coverage of 95 % bands")
    assert_below(coverage, 0.97, "coverage of 95 % bands")
    known = model.predict(X, return_std=True)[1]
    assert_above(model.predict(X_new, return_std=True)[1].mean(), 1.5 * known.mean(), "band at unseen doses")
