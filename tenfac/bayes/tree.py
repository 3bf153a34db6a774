"""Posterior draws as an xarray DataTree that ArviZ reads: one builder for every inference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.collapsed.hyper import Hyper
from tenfac.bayes.columns import ModeIndex
from tenfac.bayes.likelihoods.response import Response
from tenfac.core.errors import DataError, MissingExtraError
from tenfac.core.modes.bend import steepness

Array = NDArray[Any]
_TAKEN = (
    "chain",
    "draw",
    "observation",
    "mode",
    "continuous_mode",
    "f",
    "y",
    "noise",
    "variance",
    "scaled_slice",
)
_LAST = {
    "constant": ("mode",),
    "lengthscale": ("continuous_mode",),
    "sharpness": ("continuous_mode",),
    "main_variance": ("mode",),
    "slice_scale": ("scaled_slice",),
}


def hyperparameters(
    theta: Array, reference: Hyper, modes: Sequence[ModeIndex], response: Response
) -> dict[str, Array]:
    """Draws of what ``FunctionalTucker`` calls ``noise_``, ``constants_``, ``lengthscales_``, by name.

    ``theta`` (chain, draw, H) has ``Hyper.pack()`` along its last axis, for loadings of the shapes of
    ``reference``.
    """
    count = 2 + reference.modes.size
    by_mode = theta[..., 2:count].reshape(*theta.shape[:2], -1, 4)
    lines = [n for n, index in enumerate(modes) if not index.discrete]
    values = {
        "variance": np.exp(theta[..., 0]),
        "noise": np.exp(0.5 * theta[..., 1]) * response.unit,
        "constant": np.exp(by_mode[..., 0]),
        "lengthscale": _lengthscales(by_mode[..., lines, :], [modes[n] for n in lines]),
        "sharpness": np.exp(by_mode[..., lines, 2]),
    }
    residual = count + reference.mains.size
    if reference.mains.size:
        values["main_variance"] = np.exp(theta[..., count:residual:2])
    if reference.residual.size:
        values["residual_variance"] = np.exp(theta[..., residual])
    if reference.cells.size:
        values["cell_variance"] = np.exp(theta[..., residual + reference.residual.size])
    loadings_from = theta.shape[-1] - reference.n_loadings  # main effects, residual and cells come before
    parts = np.split(theta[..., loadings_from:], np.cumsum([w.size for w in reference.loadings]), -1)
    for n, (index, old) in enumerate(zip(modes, reference.loadings, strict=True)):
        if old.size:
            loadings = parts[n].reshape(*theta.shape[:2], *old.shape)
            own = np.eye(index.size) + values["constant"][..., n, None, None]
            values[f"label_covariance_{index.name}"] = own + loadings @ np.swapaxes(loadings, -1, -2)
    return values


def datatree(
    where: str,
    modes: Sequence[ModeIndex],
    observed: tuple[Sequence[NDArray[Any]], Array],
    draws: tuple[Array, Array],
    hyper: dict[str, Array],
    *,
    fixed: bool,
    diverging: NDArray[np.bool_] | None = None,
) -> Any:
    """Build the tree.

    Parameters
    ----------
    where : str
        Who asks, for errors.
    modes : sequence of ModeIndex
    observed : tuple
        Columns as the user gave them, each (N,), and y (N,).
    draws : pair of arrays, shape (chain, draw, N)
        The function at the observed rows, and the log likelihood of each.
    hyper : dict
        As from ``hyperparameters``.
    fixed : bool
        The hyperparameters are the same in every draw: they go to ``constant_data``.
    diverging : array of bool, shape (chain, draw), optional
        For ``sample_stats``.

    Raises
    ------
    MissingExtraError
        If xarray is not installed.
    DataError
        If a mode has the name of a dimension or variable of the tree.
    """
    try:
        import xarray as xr
    except ImportError as error:
        raise MissingExtraError(
            f"`{where}` needs xarray. Install it with: pip install 'tenfac[bayes]'. The methods that sample "
            "give draws of the function as arrays."
        ) from error
    names = [index.name for index in modes]
    for name in names:
        if name in _TAKEN or name in hyper:
            raise DataError(
                f"{where}: the tree has a dimension or variable {name!r}, so that a mode cannot be called "
                f"{name!r}. Rename the column."
            )
    columns, y = observed
    along: dict[str, Any] = {
        name: ("observation", column) for name, column in zip(names, columns, strict=True)
    }
    along["observation"] = np.arange(y.size)
    numbers = {"chain": np.arange(draws[0].shape[0]), "draw": np.arange(draws[0].shape[1])}
    labels = {"mode": names, "continuous_mode": [index.name for index in modes if not index.discrete]}
    sampled = ("chain", "draw")
    variables = {name: _variable(name, values) for name, values in hyper.items()}
    f, likelihood = ((*sampled, "observation"), draws[0]), ((*sampled, "observation"), draws[1])
    groups = {
        "posterior": xr.Dataset(
            {"f": f} if fixed else {"f": f, **variables},
            coords={**numbers, **along, **({} if fixed else labels)},
        ),
        "log_likelihood": xr.Dataset({"y": likelihood}, coords={**numbers, **along}),
        "observed_data": xr.Dataset({"y": ("observation", y)}, coords=along),
    }
    if diverging is not None:
        groups["sample_stats"] = xr.Dataset({"diverging": (sampled, diverging)}, coords=numbers)
    if fixed:
        held = {name: (dims[2:], values[0, 0]) for name, (dims, values) in variables.items()}
        groups["constant_data"] = xr.Dataset(held, coords=labels)
    return xr.DataTree.from_dict({name: group.copy() for name, group in groups.items()})


def _variable(name: str, values: Array) -> tuple[tuple[str, ...], Array]:
    rest: tuple[str, ...] = _LAST.get(name, ())
    if name.startswith("label_covariance_"):
        rest = (f"label_{name[17:]}", f"label_{name[17:]}_other")
    return ("chain", "draw", *rest), values


def _lengthscales(modes: Array, lines: list[ModeIndex]) -> Array:
    """In the unit of the column, at its median observed index, as ``lengthscales_``."""
    out = np.empty(modes.shape[:-1])
    for k, index in enumerate(lines):
        middle = np.median(index.positions(index.values))
        slope = steepness(middle, np.exp(modes[..., k, 2]), modes[..., k, 3], np)
        out[..., k] = np.exp(modes[..., k, 1]) / slope * index.span
    return out
