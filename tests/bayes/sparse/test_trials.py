"""What KroneckerSBL shows over many draws: intervals, spurious columns, the channel, size, sweeps."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

import array_api_compat.numpy as xp
import numpy as np
import pytest

from tenfac import KroneckerSBL
from tenfac.bayes.sparse.ascent import Options, climb
from tenfac.bayes.sparse.pattern_em import em_pattern
from tenfac.bayes.sparse.problem import problem_of
from tenfac.bayes.sparse.pruning import pruned, threshold
from tenfac.bayes.sparse.spectra import spectrum
from tenfac.bayes.sparse.starts import plain_start
from tenfac.bayes.sparse.statistics import Sizes, State, moments
from tenfac.datasets import make_irs_channel, make_kronecker_sparse
from tests.checks import assert_above, assert_below, assert_equal, quietly


def lists(arrays: Sequence[np.ndarray]) -> list[list[int]]:
    return [one.tolist() for one in arrays]


@pytest.mark.parametrize(("others", "kept"), [(1, [0, 1]), (998, [0])])
def test_the_level_of_pruning_is_shared_among_the_columns_of_all_modes(others: int, kept: list[int]) -> None:
    mode = spectrum(xp.eye(2), xp.arange(2), xp.asarray([81.0, 9.0]), xp.arange(2), None, xp)
    one = spectrum(xp.eye(1), xp.arange(1), xp.ones(1), xp.arange(1), None, xp)
    turned = mode.vectors.T @ xp.asarray([[9.0], [3.9]])  # the second column gains 5.7 nats
    assert_equal([threshold(0.05, 3) < 5.7, threshold(0.05, 1000) < 5.7], [True, False])
    sizes = Sizes(2, xp.ones(1), 0.5, 0.0, (2, others))
    state = State((mode, one), turned, 0.0, 1.0)
    found = pruned(state, moments(state, sizes, xp), sizes, 0.05, xp)
    assert_equal((state if found is None else found).modes[0].labels.tolist(), kept)


def test_a_trillion_unknowns_need_no_array_of_their_size() -> None:
    made = make_kronecker_sparse((10,) * 4, 1000, 1, snr_db=10, random_state=0)
    tracemalloc.start()
    model = KroneckerSBL(n_starts=1).fit(made.factors, made.y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert_equal(lists(model.support_), lists(made.support))
    assert_below(peak, 50e6, "bytes")


def test_thirty_sweeps_come_within_one_nat_of_the_optimum_at_the_papers_size() -> None:
    made = make_kronecker_sparse((14, 12, 15), 15, 4, snr_db=30, random_state=0)
    problem = problem_of(made.factors, made.y)
    options = Options(None, 1.0, 0.0, 300, 1e-9)
    trace = climb(plain_start(problem, None), problem.sizes, options, problem.xp).trace
    assert_above(trace[30], trace[-1] - 1, "evidence after 30 sweeps")
    assert_below(trace[3], trace[-1] - 100, "evidence after 3 sweeps")


@pytest.mark.slow
def test_95_percent_intervals_cover_90_to_98_percent_and_the_noise_is_within_10_percent() -> None:
    inside, noises = [], []
    for seed in range(30):
        made = make_kronecker_sparse(snr_db=15, random_state=seed)
        model = KroneckerSBL().fit(made.factors, made.y)
        truth = made.coef_tensor()[np.ix_(*model.support_)]
        inside.extend((np.abs(model.coef_ - truth) < 1.96 * model.coef_std_).ravel())
        noises.append(model.noise_ / made.noise)
    # some 810 intervals: at a true cover of 0.95 (0.93) the binomial has less than 1e-9 (1e-3) below 0.9
    assert_above(np.mean(inside), 0.90, "cover")
    assert_below(np.mean(inside), 0.98, "cover")
    # the noise of 1,440 measurements is known to 3.7 %: 4 % of 30 draws would be beyond 10 % by 0.8 % chance
    assert_below(np.sum(np.abs(np.array(noises) - 1) > 0.1), 2, "fits with noise beyond 10 %")


@pytest.mark.slow
@pytest.mark.parametrize(("alpha", "most"), [(0.05, 5), (0.3, 16)])
def test_spurious_columns_are_as_rare_as_the_level_says_and_none_is_missed(alpha: float, most: int) -> None:
    spurious, missed = 0, 0
    for seed in range(25):
        made = make_kronecker_sparse(snr_db=10, random_state=seed)
        found = KroneckerSBL(prune_alpha=alpha).fit(made.factors, made.y).support_
        spurious += sum(np.setdiff1d(f, t).size for f, t in zip(found, made.support, strict=True))
        missed += sum(np.setdiff1d(t, f).size for f, t in zip(found, made.support, strict=True))
    # at most alpha a fit: Poisson of mean 25 alpha is above `most` with less than 0.3 % chance
    assert_below(spurious, most + 0.5, "spurious columns")
    assert_below(missed, 1, "missed columns")


@pytest.mark.slow
@pytest.mark.parametrize("snr_db", [4, 12])
def test_channels_are_estimated_better_than_by_the_papers_best_method_which_is_told_the_noise(
    snr_db: float,
) -> None:
    design = make_irs_channel(20, random_state=10**6)
    ours, theirs = [], []
    for seed in range(20):
        made = make_irs_channel(snr_db, random_state=seed, design=design)
        ours.append(made.channel_nmse(KroneckerSBL().fit(made.factors, made.y).coef_tensor()))
        theirs.append(made.channel_nmse(quietly(em_pattern, made.factors, made.y, made.noise)[1]))
    # of methods that are equally good, one wins 18 of 20 with a chance of 2e-4
    assert_above(np.sum(np.array(ours) < np.array(theirs)), 17, "channels of 20 on which ours is better")
    assert_below(np.mean(ours), np.mean(theirs) / 2, "mean error")


@pytest.mark.slow
def test_64_million_unknowns_are_recovered_from_a_million_measurements_at_0_db() -> None:
    made = make_kronecker_sparse((100, 100, 100), 400, 10, snr_db=0, random_state=1)
    tracemalloc.start()
    model = KroneckerSBL().fit(made.factors, made.y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert_equal(lists(model.support_), lists(made.support))
    assert_below(peak, 0.3e9, "bytes")  # one number per unknown would be 0.5e9
