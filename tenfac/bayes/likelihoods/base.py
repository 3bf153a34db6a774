"""What every likelihood answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.likelihoods.response import Response

Array = NDArray[Any]


@dataclass(frozen=True)
class Likelihood:
    """What all have in common.

    Everywhere, ``mean`` and ``variance`` (N,) are those of f on its own scale, that of ``response.latent``.

    Parameters
    ----------
    response : Response
        From f to the mean of y (counts), or to y (noise is added to f).
    """

    response: Response

    def at(self, codes: NDArray[np.intp], trials: Array | None = None) -> Likelihood:  # noqa: ARG002
        """The likelihood of N rows, by the numbers of their slices (-1: new), and trials (None: 1 each)."""
        return self

    def moments(self, mean: Array, variance: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of what f says of y, shape (N,)."""
        return self.response.moments(mean, variance)

    def observed_moments(self, mean: Array, variance: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of a new observation, shape (N,)."""
        raise NotImplementedError

    def log_density(self, y: Array, mean: Array, variance: Array) -> Array:
        """Log density (or probability) of new observations ``y`` (N,), f integrated out; shape (N,)."""
        raise NotImplementedError

    def below(self, y: Array, mean: Array, variance: Array) -> tuple[Array, Array]:
        """Probabilities of new observations below ``y`` (N,), and equal to it; shape (N,) each."""
        raise NotImplementedError

    def given(self, y: Array, latent: Array, repeats: Array) -> Array:
        """Log density (or probability) of ``repeats`` observations ``y`` given f, all (N,); shape (N,)."""
        raise NotImplementedError

    def sample(self, latent: Array, rng: np.random.Generator) -> Array:
        """One observation for every value of f, shape (..., N)."""
        raise NotImplementedError

    def sample_jointly(
        self, latent: Array, codes: NDArray[np.intp], slices: NDArray[np.intp], rng: np.random.Generator
    ) -> Array:
        """The same where rows share what their slices share.

        ``latent`` is (n, N), ``codes`` as in ``at``, and ``slices`` (N,) tells new slices apart.
        """
        del slices
        return self.at(codes).sample(latent, rng)
