"""What cannot be adapted, and why: refusals before anything is touched."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tenfac.adapters.layer import Adapted
from tenfac.core.errors import DataError

PATHS = ("auto", "factored", "fused")
_REAL = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def check_target(layer: nn.Module, parameter: str, where: str) -> None:
    """Refuse a parameter that is not there, or that cannot have an update."""
    if not isinstance(layer, nn.Module):
        raise DataError(f"{where}: `layer` must be a torch.nn.Module; got {type(layer).__name__}.")
    if isinstance(layer, nn.RNNBase):
        raise DataError(
            f"{where}: {type(layer).__name__} must not be adapted: it keeps its weights outside of its "
            "parameters, where an update would have no effect. Adapt an RNNCell's parameters, or other "
            "layers."
        )
    weight = layer._parameters.get(parameter)
    what = f"{parameter!r} of {type(layer).__name__}"
    if weight is None:
        raise DataError(_missing(layer, parameter, where))
    if nn.parameter.is_lazy(weight):
        raise DataError(
            f"{where}: {what} must have a shape; got a lazy layer that has seen no input. Run one batch "
            "through the model first."
        )
    if not isinstance(layer, Adapted) and hasattr(layer, "tenfac"):
        raise DataError(f"{where}: a layer must have no attribute 'tenfac', the updates' place; rename it.")
    if weight.layout != torch.strided:
        raise DataError(f"{where}: {what} must be a dense array; got layout {weight.layout}. Use to_dense().")
    if weight.dtype not in _REAL:
        cure = (
            "Adapt the real and imaginary parts as parameters."
            if weight.is_complex()
            else "Dequantise it first."
        )
        raise DataError(
            f"{where}: {what} must be of float64, float32, bfloat16 or float16; got {weight.dtype}. {cure}"
        )
    if weight.ndim < 2 or weight.numel() == 0:
        raise DataError(
            f"{where}: {what} must have 2 or more modes, none empty; got shape {tuple(weight.shape)}."
        )


def _missing(layer: nn.Module, parameter: str, where: str) -> str:
    """Why a layer has no such parameter, and what to give instead."""
    kind = type(layer).__name__
    start = f"{where}: `layer` must have a parameter {parameter!r}; got {kind}"
    if hasattr(layer, "parametrizations") and parameter in layer.parametrizations:
        return (
            f"{start}, whose {parameter!r} is parametrized. Call "
            f"torch.nn.utils.parametrize.remove_parametrizations(layer, {parameter!r}) first."
        )
    if f"{parameter}_g" in layer._parameters:
        return (
            f"{start}, whose {parameter!r} is normalised. Call torch.nn.utils.remove_weight_norm(layer) "
            "first."
        )
    if f"{parameter}_orig" in layer._parameters:
        return (
            f"{start}, whose {parameter!r} is computed from '{parameter}_orig'. Make it a plain parameter "
            "first."
        )
    if parameter == "weight" and (parameter in layer._buffers or callable(getattr(layer, parameter, None))):
        return f"{start}, whose {parameter!r} is no parameter (quantised?). Dequantise the layer first."
    own = [key for key, value in layer._parameters.items() if value is not None and value.ndim > 1]
    if own:
        return f"{start} without it. Name one of its own with `parameter=`: {', '.join(own)}."
    inner = list(_layers_inside(layer))
    if inner:
        shown = ", ".join(inner[:8]) + (", ..." if len(inner) > 8 else "")
        return f"{start} without it. Give a layer inside it ({shown}), or the whole to tenfac.adapt."
    return f"{start} without any weight of 2 or more modes. Give a layer that has one."


def _layers_inside(layer: nn.Module) -> Iterator[str]:
    for name, module in layer.named_modules():
        weight = module._parameters.get("weight")
        if name and weight is not None and not nn.parameter.is_lazy(weight) and weight.ndim > 1:
            yield name


def check_name(name: Any, where: str) -> None:
    """Refuse what cannot name an adapter: it becomes part of the keys of a state dict."""
    if not isinstance(name, str) or not name or "." in name:
        raise DataError(f"{where}: `name` must be a word without dots; got {name!r}.")
    if hasattr(nn.ModuleDict, name) or hasattr(nn.ModuleDict(), name):
        raise DataError(
            f"{where}: `name` must not be an attribute of torch.nn.ModuleDict, which holds the adapters; got "
            f"{name!r}. Write {name + '_adapter'!r}."
        )


def check_max_norm(layer: nn.Module, where: str) -> None:
    """Refuse a table that its own forward pass rewrites."""
    if getattr(layer, "max_norm", None) is not None:
        raise DataError(
            f"{where}: an Embedding must have max_norm=None, or it rewrites its frozen weight; got "
            f"max_norm={layer.max_norm!r}."
        )


def check_scale(scale: Any, where: str) -> None:
    """Refuse a multiplier that is no number, or with which nothing can be learned."""
    real = isinstance(scale, numbers.Real) and not isinstance(scale, bool)
    if not real or not math.isfinite(scale) or scale == 0:
        raise DataError(f"{where}: `scale` must be a finite number other than 0; got {scale!r}.")


def check_gradient(data: Any, key: str, shape: tuple[int, ...], where: str) -> None:
    """Refuse a gradient that is not one of this weight."""
    if not isinstance(data, Tensor) or tuple(data.shape) != shape or data.dtype not in _REAL:
        got = f"shape {tuple(data.shape)}, {data.dtype}" if isinstance(data, Tensor) else type(data).__name__
        raise DataError(
            f"{where}: `data` for {key!r} must be a floating-point tensor of the weight's shape, {shape}; "
            f"got {got}. Give `layer.{key}.grad` after a backward pass."
        )
    if not data.is_meta and not bool(torch.isfinite(data).all()):
        raise DataError(
            f"{where}: `data` for {key!r} must be finite; got NaN or infinite values. Check the loss."
        )


def check_source(weight: Tensor, key: str, init: str, where: str) -> None:
    """Refuse to start from a weight that is not finite."""
    if not weight.is_meta and not bool(torch.isfinite(weight).all()):
        raise DataError(
            f"{where}: init={init!r} needs a finite weight; {key!r} has NaN or infinite values. Use "
            "init='orthonormal', or load the weights first."
        )
