"""Forward and backward recursions of a state-space model, one site after the other or by a parallel scan.

A *chain* holds for each of N ascending sites: the transition ``A`` and innovation ``Q`` from the site
before (for the first: ``A = 0`` and ``Q`` the prior covariance), the observation ``H``, and the site's
precision ``J`` and mean ``y`` on ``H s``. The log evidence follows from the filtered moments.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, pi
from typing import Any

import numpy as np

from tenfac.core.arrays import device_of, namespace_of
from tenfac.core.errors import DataError
from tenfac.core.tracing import constant

Moments = tuple[Any, Any]  # vectors (*b, d) and matrices (*b, d, d)


@dataclass(frozen=True, eq=False)
class Chain:
    """N sites of R values on a state of dimension d.

    Parameters
    ----------
    moves, noises : arrays, shape (N, d, d)
    rows : array, shape (N, R, d)
    precisions : array, shape (N, R, R)
    means : array, shape (N, R)
    """

    moves: Any
    noises: Any
    rows: Any
    precisions: Any
    means: Any


def fuse(first: Moments, second: Moments) -> tuple[Any, Any, Any]:
    """Multiply ``N(s; m, P)`` by ``exp(-s' L s / 2 + v' s)``.

    Mean ``E (m + P v)``, covariance ``E P``, and ``E = (I + P L)^-1``. The covariance is written as the sum
    ``E P E' + (E P) L (E P)'`` of positive semidefinite terms. With the roles exchanged, ``fuse((v, L),
    (0, Q))`` is the information left of ``(v, L)`` after noise ``Q``.

    Parameters
    ----------
    first, second : pairs of arrays, shapes (*b, d) and (*b, d, d)
    """
    (m, p), (v, info) = first, second
    xp = namespace_of(p)
    damp = inverse(xp.eye(p.shape[-1], dtype=p.dtype, device=device_of(p)) + p @ info)
    shrunk = damp @ p
    cov = shrunk @ damp.mT + shrunk @ info @ shrunk.mT
    return apply(damp, m + apply(p, v)), symmetric(cov), damp


def inverse(matrix: Any) -> Any:
    """Inverses of ``I + P L``, which are singular by rounding only: where sites leave next to no noise."""
    try:
        return namespace_of(matrix).linalg.inv(matrix)
    except (np.linalg.LinAlgError, RuntimeError) as error:  # the second is torch's
        if not type(error).__name__.endswith("LinAlgError"):
            raise
        raise DataError(
            "filter_smooth: the sites must leave more noise than rounding can hide; got a singular matrix. "
            "Lower the precisions, or take method='sequential'."
        ) from error


def apply(matrix: Any, vector: Any) -> Any:
    """Matrices ``(*b, m, n)`` times vectors ``(*b, n)``."""
    return (matrix @ vector[..., None])[..., 0]


def symmetric(matrix: Any) -> Any:
    """Symmetric part."""
    return 0.5 * (matrix + matrix.mT)


def forward(chain: Chain) -> Moments:
    """Filtered moments at every site, shapes (N, d) and (N, d, d)."""
    xp, d = namespace_of(chain.moves), chain.moves.shape[-1]
    keywords = {"dtype": chain.moves.dtype, "device": device_of(chain.moves)}
    mean, cov, eye = xp.zeros(d, **keywords), xp.zeros((d, d), **keywords), xp.eye(d, **keywords)
    means, covs = [], []
    for move, noise, row, precision, target in zip(
        chain.moves, chain.noises, chain.rows, chain.precisions, chain.means, strict=True
    ):
        mean, cov = move @ mean, move @ cov @ move.mT + noise
        gain, cov = _update(cov, row, precision, eye)
        mean = mean + gain @ (target - row @ mean)
        means.append(mean)
        covs.append(cov)
    return xp.stack(means), xp.stack(covs)


def backward(chain: Chain) -> Moments:
    """Information on the state at every site from that site on, shapes (N, d) and (N, d, d)."""
    xp = namespace_of(chain.moves)
    seen = chain.rows.mT @ chain.precisions
    infos, vectors = list(seen @ chain.rows), list(apply(seen, chain.means))
    moves, noises = list(chain.moves), list(chain.noises)
    for t in range(len(infos) - 2, -1, -1):
        vector, info = pull((vectors[t + 1], infos[t + 1]), moves[t + 1], noises[t + 1])
        vectors[t], infos[t] = vectors[t] + vector, infos[t] + info
    return xp.stack(vectors), xp.stack(infos)


def pull(later: Moments, move: Any, noise: Any) -> Moments:
    """Information on a state from information on the state one step later."""
    vector, info, _ = fuse(later, (0 * later[0], noise))
    return apply(move.mT, vector), symmetric(move.mT @ info @ move)


def log_evidence(chain: Chain, filtered: Moments) -> Any:
    """Log density of the sites' means; a precision's null space is not observed and adds nothing."""
    xp = namespace_of(chain.moves)
    means = xp.concat([0 * filtered[0][:1], filtered[0][:-1]])
    covs = xp.concat([0 * filtered[1][:1], filtered[1][:-1]])
    means, covs = apply(chain.moves, means), chain.moves @ covs @ chain.moves.mT + chain.noises
    spread = chain.rows @ covs @ chain.rows.mT
    damp, log_det = _damp(spread, chain.precisions)
    residual = chain.means - apply(chain.rows, means)
    misfit = xp.sum(residual * apply(damp @ chain.precisions, residual))
    return 0.5 * (_log_normalizer(chain.precisions, xp) - xp.sum(log_det) - misfit)


def disagreement(chain: Chain, ahead: Moments, behind: Moments) -> float:
    """Largest difference between two ways to the smoothed state at the sites, in prior standard deviations,
    each part of the state weighted by its share in the function.

    Rounding alone makes it differ from 0: the past without a site fused with the future from it on, and the
    past with the site fused with the future after it. It grows as noise shrinks against the prior.
    """
    if chain.moves.shape[0] < 2:
        return 0.0
    chain = Chain(*(constant(part) for part in vars(chain).values()))
    mean, cov = (constant(part) for part in ahead)
    vector, info = (constant(part) for part in behind)
    moves, noises, xp = chain.moves[1:], chain.noises[1:], namespace_of(mean)
    before = apply(moves, mean[:-1]), moves @ cov[:-1] @ moves.mT + noises
    one, one_cov, _ = fuse(before, (vector[1:], info[1:]))
    later = pull((vector[1:], info[1:]), moves, noises)
    other, other_cov, _ = fuse((mean[:-1], cov[:-1]), later)
    other, other_cov = xp.concat([other[1:], mean[-1:]]), xp.concat([other_cov[1:], cov[-1:]])
    scale = xp.sqrt(xp.linalg.diagonal(chain.noises[0]))
    share = xp.max(xp.abs(chain.rows), axis=(0, 1))
    share = scale * xp.where(share > 0, share, xp.ones_like(share))  # a derivative weighs like a value
    weight = share / xp.max(share) / scale
    size = max(1.0, float(xp.max(xp.abs(one) * weight)))
    covs = xp.abs(one_cov - other_cov) * weight * weight[:, None]
    return max(float(xp.max(xp.abs(one - other) * weight)) / size, float(xp.max(covs)))


def _update(cov: Any, row: Any, precision: Any, eye: Any) -> tuple[Any, Any]:
    """Gain of a site, and the covariance after it in Joseph's form."""
    seen = cov @ row.mT
    damp, _ = _damp(row @ seen, precision, log_det=False)
    gain, spread = seen @ (damp @ precision), seen @ damp
    keep = eye - gain @ row
    return gain, symmetric(keep @ cov @ keep.mT + spread @ precision @ spread.mT)


def _damp(spread: Any, precision: Any, log_det: bool = True) -> tuple[Any, Any]:
    """``(I + J C)^-1`` and the log determinant of what is inverted."""
    xp, size = namespace_of(spread), spread.shape[-1]
    if size == 1:
        total = 1.0 + precision * spread
        return 1.0 / total, xp.log(total) if log_det else None
    total = xp.eye(size, dtype=spread.dtype, device=device_of(spread)) + precision @ spread
    return inverse(total), xp.linalg.slogdet(total)[1] if log_det else None


def _log_normalizer(precisions: Any, xp: Any) -> Any:
    size = precisions.shape[-1]
    values = precisions[..., 0] if size == 1 else xp.linalg.eigvalsh(precisions)
    floor = 0.0 if size == 1 else 1e-14 * size * xp.max(values, axis=-1, keepdims=True)
    seen = values > floor
    return xp.sum(xp.where(seen, xp.log(xp.where(seen, values, xp.ones_like(values))) - log(2 * pi), 0.0))


# --- parallel in the sites --------------------------------------------------------------------------------


def forward_scan(chain: Chain) -> Moments:
    """Filtered moments at every site by a scan of depth ``2 log2 N``: the same numbers as ``forward``.

    References
    ----------
    .. [1] S. Särkkä and Á. F. García-Fernández, Temporal parallelization of Bayesian smoothers, IEEE
       Transactions on Automatic Control 66 (2021), equations 10-15. doi:10.1109/TAC.2020.2976316
    """
    _, mean, cov, _, _ = _scan(_elements(chain), _join)
    return mean, cov


def backward_scan(chain: Chain) -> Moments:
    """Information at every site from that site on, by a scan: the same numbers as ``backward``."""
    xp = namespace_of(chain.moves)
    flipped = tuple(xp.flip(part, axis=0) for part in _elements(chain))
    parts = _scan(flipped, lambda later, sooner: _join(sooner, later))
    vectors, infos = (xp.flip(part, axis=0) for part in parts[3:])
    vectors = xp.concat([vectors[1:], 0 * vectors[:1]])
    infos = xp.concat([infos[1:], 0 * infos[:1]])
    seen = chain.rows.mT @ chain.precisions
    return vectors + apply(seen, chain.means), infos + seen @ chain.rows


def _elements(chain: Chain) -> tuple[Any, ...]:
    """For each site: the state given the one before, ``N(A s + b, C)``, and the information on that one."""
    xp, d = namespace_of(chain.moves), chain.moves.shape[-1]
    eye = xp.eye(d, dtype=chain.moves.dtype, device=device_of(chain.moves))
    gain, cov = _update(chain.noises, chain.rows, chain.precisions, eye)
    damp, _ = _damp(chain.rows @ chain.noises @ chain.rows.mT, chain.precisions, log_det=False)
    ahead = chain.rows @ chain.moves
    seen = ahead.mT @ (damp @ chain.precisions)
    move = (eye - gain @ chain.rows) @ chain.moves
    return move, apply(gain, chain.means), cov, apply(seen, chain.means), symmetric(seen @ ahead)


def _join(sooner: tuple[Any, ...], later: tuple[Any, ...]) -> tuple[Any, ...]:
    """Element of two stretches that follow each other."""
    move, mean, cov, vector, info = sooner
    move2, mean2, cov2, vector2, info2 = later
    joint_mean, joint_cov, damp = fuse((mean, cov), (vector2, info2))
    left, left_info, _ = fuse((vector2 - apply(info2, mean), info2), (0 * mean, cov))
    return (
        move2 @ damp @ move,
        apply(move2, joint_mean) + mean2,
        symmetric(move2 @ joint_cov @ move2.mT) + cov2,
        apply(move.mT, left) + vector,
        symmetric(move.mT @ left_info @ move) + info,
    )


def _scan(parts: tuple[Any, ...], join: Any) -> tuple[Any, ...]:
    """All prefixes of an associative operation, ``2 N`` applications in ``2 log2 N`` batches."""
    xp, count = namespace_of(parts[0]), parts[0].shape[0]
    if count == 1:
        return parts
    even, odd = tuple(p[0 : count - 1 : 2] for p in parts), tuple(p[1::2] for p in parts)
    ends = _scan(join(even, odd), join)  # prefixes that end at 1, 3, 5, ...
    rest = tuple(p[2::2] for p in parts)
    size = rest[0].shape[0]
    if size:
        inner = join(tuple(p[:size] for p in ends), rest)
        firsts = tuple(xp.concat([p[:1], i]) for p, i in zip(parts, inner, strict=True))
    else:
        firsts = tuple(p[:1] for p in parts)
    return tuple(_interleave(f, e, xp) for f, e in zip(firsts, ends, strict=True))


def _interleave(first: Any, second: Any, xp: Any) -> Any:
    size = second.shape[0]
    both = xp.reshape(xp.stack([first[:size], second], axis=1), (2 * size, *second.shape[1:]))
    return both if first.shape[0] == size else xp.concat([both, first[size:]])
