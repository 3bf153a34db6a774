"""Sparse recovery with Kronecker dictionaries: the published algorithms, baselines, oracles and metrics.

The estimator is ``tenfac.KroneckerSBL``; what stands here is to compare with.
"""

from tenfac.bayes.sparse.em import AM_IRS, SVD_IRS, Rules, em_am, em_svd
from tenfac.bayes.sparse.metrics import nmse, support_recovery_rate
from tenfac.bayes.sparse.oracle import oracle_least_squares, oracle_posterior_mean
from tenfac.bayes.sparse.pattern_em import em_pattern
from tenfac.bayes.sparse.rank_one import rank_one_sbl
from tenfac.bayes.sparse.recovery import Recovery
from tenfac.bayes.sparse.solution import Solution

__all__ = [
    "AM_IRS",
    "SVD_IRS",
    "Recovery",
    "Rules",
    "Solution",
    "em_am",
    "em_pattern",
    "em_svd",
    "nmse",
    "oracle_least_squares",
    "oracle_posterior_mean",
    "rank_one_sbl",
    "support_recovery_rate",
]
