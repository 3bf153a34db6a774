"""A fitted estimator as a header and arrays, and back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.columns import ModeIndex
from tenfac.bayes.evidence import Hyper
from tenfac.bayes.response import Response
from tenfac.bayes.search import Learned
from tenfac.bayes.settings import named_kernels, plain
from tenfac.core.report import Report

Arrays = dict[str, NDArray[Any]]


def header_of(model: Any) -> dict[str, Any]:
    """What every inference writes: settings, modes, response, report."""
    random_state = model.random_state
    return {
        "params": {
            **{name: plain(value) for name, value in model.get_params().items()},
            "kernel": plain(named_kernels(model.kernel)),
            "random_state": random_state if isinstance(random_state, int) else None,
        },
        "inference": model._fitted_by,
        "named": hasattr(model, "feature_names_in_"),
        "modes": [{"name": index.name, "discrete": index.discrete} for index in model._modes],
        "response": {**asdict(model._response), "jacobian": model._jacobian},
        "info": asdict(model.info_),
    }


def indices_of(model: Any) -> Arrays:
    """Distinct indices or labels of every mode."""
    return {f"values_{n}": index.values for n, index in enumerate(model._modes)}


def state_of(model: Any) -> tuple[dict[str, Any], Arrays]:
    """Settings, hyperparameters and observations of a model fitted by ``inference="collapsed"``."""
    header = {**header_of(model), "learned": {**model._learned.numbers(), "exact": model.exact_mode_}}
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
    model.n_features_in_ = len(model._modes)
    if header["named"]:
        model.feature_names_in_ = np.asarray(model.mode_names_, dtype=object)
    response = dict(header["response"])
    model._jacobian = response.pop("jacobian")
    model._response = Response(**response)
    return model


def report_of(header: dict[str, Any]) -> Report:
    """The report of a stored model."""
    info = header["info"].items()
    return Report(**{key: tuple(value) if isinstance(value, list) else value for key, value in info})


def restore(cls: Any, header: dict[str, Any], arrays: Arrays) -> Any:
    """Inverse of ``state_of``: solves once, at the stored hyperparameters."""
    model = bare(cls, header, arrays)
    learned = dict(header["learned"])
    model.exact_mode_ = learned.pop("exact")
    positions = tuple(
        index.positions(index.values)[arrays[f"codes_{n}"]] for n, index in enumerate(model._modes)
    )
    model._task = model._make_task(positions, arrays["y"], arrays["weights"], model.exact_mode_)
    loadings = tuple(arrays[f"loadings_{n}"] for n in range(model.n_features_in_))
    hyper = Hyper(*arrays["scales"].tolist(), arrays["hyper"], loadings)
    model._learned = Learned.from_numbers(learned, hyper)
    model.n_iter_ = max(model._learned.n_iter, 1)
    model._set_posterior(model._learned.prediction(model._task))
    model.info_ = report_of(header)
    return model
