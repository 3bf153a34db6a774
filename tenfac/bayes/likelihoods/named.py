"""Likelihoods by the names a user gives: which are counts, how one starts, how one is built again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.likelihoods.added import Gaussian, SliceNoise, StudentT
from tenfac.bayes.likelihoods.base import Likelihood
from tenfac.bayes.likelihoods.counts import Binomial, Counts, Poisson
from tenfac.bayes.likelihoods.response import Response

Array = NDArray[Any]
KINDS = ("gaussian", "student_t", "poisson", "bernoulli", "binomial")
COUNTS = ("poisson", "bernoulli", "binomial")


@dataclass(frozen=True)
class NoiseShape:
    """What is known of the noise beside its variance; None where it is not asked for.

    Parameters
    ----------
    dof : float or None
        Degrees of freedom of Student's distribution.
    slice_dof : float or None
        The same of the noise of a new slice.
    shapes, rates : arrays, shape (M,), or None
        Posterior of the precision of every slice.
    """

    dof: float | None = None
    slice_dof: float | None = None
    shapes: Array | None = None
    rates: Array | None = None


def likelihood_of(kind: str, response: Response, variance: float, shape: NoiseShape) -> Likelihood:
    """The likelihood that was learned."""
    if kind == "poisson":
        return Poisson(response)
    if kind in COUNTS:
        return Binomial(response, kind == "binomial")
    if shape.slice_dof is not None and shape.shapes is not None and shape.rates is not None:
        dof = np.inf if shape.dof is None else shape.dof
        return SliceNoise(response, variance, dof, shape.slice_dof, shape.shapes, shape.rates)
    if shape.dof is not None:
        return StudentT(response, variance, shape.dof)
    return Gaussian(response, variance)


def start_counts(kind: str, y: Array, weights: Array) -> Counts:
    """The likelihood of a kind of counts, with the linear scale it begins and stays with."""
    if kind == "poisson":
        return Poisson.start(y, weights)
    return replace(Binomial.start(y, weights), shares=kind == "binomial")


def kind_of(likelihood: Likelihood) -> str:
    """Its name among ``KINDS``, where it decides what y can be; "gaussian" for any noise."""
    if isinstance(likelihood, Binomial):
        return "binomial" if likelihood.shares else "bernoulli"
    return "poisson" if isinstance(likelihood, Poisson) else "gaussian"
