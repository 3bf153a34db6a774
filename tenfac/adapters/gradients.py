"""Gradients of the user's loss in many weights at once, for adapters that start from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tenfac.adapters.build import Plan
from tenfac.adapters.targets import Target
from tenfac.core.errors import DataError, cannot_take

_WHERE = "adapt"


def gradients_of(plans: Sequence[tuple[Target, Plan]], data: Any) -> list[Tensor | None]:
    """For each plan the gradient of the user's loss in its weight; None where the start needs none."""
    needed = [plan for _, plan in plans if plan.init == "gradient"]
    if not needed:
        if data is not None:
            raise DataError(
                f"{_WHERE}: `data` must come with init='gradient', which alone uses it; got init="
                f"{plans[0][1].init!r}. Leave one of them out."
            )
        return [None] * len(plans)
    wrong = cannot_take(data, 0) if callable(data) else type(data).__name__
    if wrong:
        raise DataError(
            f"{_WHERE}: `data` must be a function without arguments that returns the loss; got "
            f"{'one with ' * callable(data)}{wrong}. Write lambda: loss(model(x), y)."
        )
    weights = {(id(p.layer), p.slot.parameter): p.layer._parameters[p.slot.parameter] for p in needed}
    found = dict(zip(weights, _derivatives(data, list(weights.values())), strict=True))
    gradients = []
    for target, plan in plans:
        gradient = found.get((id(plan.layer), plan.slot.parameter))
        part = None if gradient is None else plan.slot.of(gradient)
        _check_gradient(part, target.label)
        gradients.append(part)
    return gradients


def _derivatives(data: Callable[[], Tensor], weights: list[Tensor]) -> list[Tensor | None]:
    """Derivatives of a loss in weights that may be frozen; nothing is left in ``.grad``."""
    before = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        with torch.enable_grad():
            loss = data()
            if not isinstance(loss, Tensor) or loss.numel() != 1:
                got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
                raise DataError(f"{_WHERE}: `data()` must return the loss, one number; got {got}.")
            if not loss.requires_grad:
                raise DataError(
                    f"{_WHERE}: the loss of `data()` must depend on the model; it has no gradient. Call the "
                    "model in it, not under torch.no_grad()."
                )
            found = _differentiated(loss, weights)
    finally:
        for weight, flag in zip(weights, before, strict=True):
            weight.requires_grad_(flag)
    return [None if g is None else g.to_dense() if g.is_sparse else g for g in found]


def _differentiated(loss: Tensor, weights: list[Tensor]) -> tuple[Tensor | None, ...]:
    try:
        return torch.autograd.grad(loss.sum(), weights, allow_unused=True)
    except RuntimeError as error:
        raise DataError(
            f"{_WHERE}: the loss of `data()` must be one that can be differentiated; torch says: {error}. "
            "Return it without calling backward()."
        ) from error


def _check_gradient(gradient: Tensor | None, label: str) -> None:
    if gradient is None or not gradient.any():
        what = "has none" if gradient is None else "has a gradient of zero"
        raise DataError(
            f"{_WHERE}: every target must have a gradient for init='gradient'; {label!r} {what} in the loss "
            "of `data()`. Let the loss use it, or leave it out with `exclude`."
        )
    if not torch.isfinite(gradient).all():
        raise DataError(
            f"{_WHERE}: gradients must be finite; that of {label!r} is not. Look for NaN or overflow "
            "in `data()`."
        )
