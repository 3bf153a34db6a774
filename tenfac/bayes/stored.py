"""A fitted estimator as a header and arrays, and back."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.collapsed.cell_covariance import CellCovariance
from tenfac.bayes.collapsed.hyper import Hyper
from tenfac.bayes.collapsed.search import Learned
from tenfac.bayes.columns import ModeIndex
from tenfac.bayes.likelihoods.named import COUNTS, NoiseShape
from tenfac.bayes.likelihoods.response import Response
from tenfac.bayes.settings import named_kernels, plain
from tenfac.bayes.streaming import Rows
from tenfac.core.report import Report, stored_report

Arrays = dict[str, NDArray[Any]]


def header_of(model: Any) -> dict[str, Any]:
    """What every inference writes: settings, modes, response, report."""
    random_state, stream = model.random_state, _stream_of(model)
    return {
        "params": {
            **{name: plain(value) for name, value in model.get_params().items()},
            "kernel": plain(named_kernels(model.kernel)),
            "random_state": random_state if isinstance(random_state, int) else None,
        },
        "inference": model._fitted_by,
        "named": hasattr(model, "feature_names_in_"),
        "modes": [{"name": index.name, "discrete": index.discrete} for index in first_modes(model)],
        "response": {
            **asdict(model._response),
            "beyond": model._beyond if stream is None else stream.beyond,
        },
        "kernels": list(model._kernels),
        "info": asdict(model.info_),
    }


def _stream_of(model: Any) -> Any:
    return getattr(model, "_stream", None)


def first_modes(model: Any) -> Any:
    """Modes as ``fit`` learned them, before rows were added."""
    stream = _stream_of(model)
    return model._modes if stream is None else stream.modes


def indices_of(model: Any) -> Arrays:
    """Distinct indices or labels of every mode."""
    return {f"values_{n}": index.values for n, index in enumerate(first_modes(model))}


def state_of(model: Any) -> tuple[dict[str, Any], Arrays]:
    """Settings, hyperparameters and observations of a model fitted by ``inference="collapsed"``."""
    shape, stream = model._noise_shape, model._stream
    header = {
        **header_of(model),
        "learned": {**model._learned.numbers(), "exact": model.exact_mode_},
        "noise": {"mode": model._slice_mode, "dof": shape.dof, "slice_dof": shape.slice_dof},
    }
    task, hyper = model._task, model._learned.hyper
    arrays = {
        "y": task.y,
        "weights": task.weights,
        "scales": np.array([hyper.scale, hyper.noise]),
        "hyper": hyper.modes,
        **indices_of(model),
    }
    for n in range(len(model._modes)):
        arrays[f"codes_{n}"] = np.searchsorted(task.grids[n], task.positions[n]).astype(np.int32)
        arrays[f"loadings_{n}"] = hyper.loadings[n]
    arrays["mains"], arrays["residual"], arrays["cells"] = hyper.mains, hyper.residual, hyper.cells
    if task.scales is not None:
        arrays["slice_scales"], arrays["slice_dof"] = task.scales, np.array(task.slice_dof)
    if task.likeness is not None:
        own = task.likeness
        arrays["likeness"], arrays["likeness_share"] = own.values, np.array([own.share, own.strength])
    if task.precision is not None:
        arrays["precision"] = task.precision
    if model._counted is not None:
        arrays["counted"] = model._counted
    if shape.shapes is not None:
        arrays["slice_shapes"], arrays["slice_rates"] = shape.shapes, shape.rates
    if stream is not None:
        added = stream.all_rows
        arrays |= {f"added_{n}": column for n, column in enumerate(added.columns)}
        arrays |= {"added_y": added.y, "added_weights": added.weights}
    return header, arrays


def bare(cls: Any, header: dict[str, Any], arrays: Arrays) -> Any:
    """A model with its settings, modes and response; not fitted yet."""
    params = dict(header["params"])
    if isinstance(params["kernel"], list):
        params["kernel"] = dict(params["kernel"])
    model = cls(**params)
    model._fitted_by = header["inference"]
    model._set_modes(
        [
            ModeIndex(entry["name"], arrays[f"values_{n}"], entry["discrete"])
            for n, entry in enumerate(header["modes"])
        ]
    )
    model._kernels = tuple(header["kernels"])
    model.n_features_in_ = len(model._modes)
    if header["named"]:
        model.feature_names_in_ = np.asarray(model.mode_names_, dtype=object)
    response = dict(header["response"])
    model._beyond = response.pop("beyond")
    model._response = Response(**response)
    return model


def report_of(header: dict[str, Any]) -> Report:
    """The report of a stored model."""
    return stored_report(header["info"])


def restore(cls: Any, header: dict[str, Any], arrays: Arrays) -> Any:
    """Inverse of ``state_of``: solves once, at the stored hyperparameters."""
    model = bare(cls, header, arrays)
    learned = dict(header["learned"])
    model.exact_mode_ = learned.pop("exact")
    positions = tuple(
        index.positions(index.values)[arrays[f"codes_{n}"]] for n, index in enumerate(model._modes)
    )
    task = model._make_task(positions, arrays["y"], arrays["weights"], model.exact_mode_)
    fixed = model.likelihood in COUNTS
    dof = float(arrays["slice_dof"]) if "slice_dof" in arrays else None
    model._task = replace(
        task, precision=arrays.get("precision"), fixed_noise=fixed,
        scales=arrays.get("slice_scales"), slice_dof=dof,
    )  # fmt: skip
    if "likeness" in arrays:
        own = CellCovariance(task.cells, arrays["likeness"], *arrays["likeness_share"].tolist())
        model._task = replace(model._task, likeness=own)
    model._counted = arrays.get("counted")
    noise = header["noise"]
    model._slice_mode = noise["mode"]
    known = arrays.get("slice_shapes"), arrays.get("slice_rates")
    model._noise_shape = NoiseShape(noise["dof"], noise["slice_dof"], *known)
    loadings = tuple(arrays[f"loadings_{n}"] for n in range(model.n_features_in_))
    scales: list[float] = arrays["scales"].tolist()
    extra = {name: arrays[name] for name in ("mains", "residual", "cells")}
    hyper = Hyper(scales[0], scales[1], arrays["hyper"], loadings, **extra)
    model._learned = Learned.from_numbers(learned, hyper)
    model.n_iter_ = max(model._learned.n_iter, 1)
    model._set_posterior(model._learned.prediction(model._task))
    if "added_y" in arrays:
        columns = tuple(arrays[f"added_{n}"] for n in range(model.n_features_in_))
        model._add(Rows(columns, arrays["added_y"], arrays["added_weights"]))
    model.info_ = report_of(header)
    return model
