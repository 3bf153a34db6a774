"""Adapters of a whole model at once: merged into the weights and out again, switched, weighed, removed."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from tenfac.adapters import layer as single
from tenfac.adapters.beside import forget
from tenfac.adapters.layer import Adapted, Adapters, adapted_layers, merge_layer, unmerge_layer
from tenfac.adapters.targets import nearest, places_of, tied_pair
from tenfac.core.door import door
from tenfac.core.errors import DataError

FREEZE = "tenfac_freeze"  # attribute of a model that `adapt` froze: {parameter: whether it trained before}


@door
def merge(model: nn.Module, names: Any = None) -> None:
    """Add what acts to the frozen weights, so that the model costs what it cost without adapters.

    ``W <- W + sum of weight_a * update_a``, computed in float32 or wider and rounded once to the weight's
    dtype. The originals are kept for ``unmerge``.

    Parameters
    ----------
    model : torch.nn.Module
        With adapters; or one adapted layer. Changed in place.
    names : str, iterable of str or mapping to float, optional
        What is to act from now on, as for ``activate``; what acts already by default.

    Raises
    ------
    DataError
        If the model has no adapters, there is none of that name, it is called in a ``disable`` block, or
        a layer without the update reads the same weight (tied weights). If a merged weight is not finite
        (NaN in the adapter, overflow of float16). The model is then not merged, and what acted before
        acts.

    Notes
    -----
    A second ``merge`` starts from the originals, so it changes nothing unless adapters did. While merged,
    ``state_dict()`` has the keys of the model without adapters, and training is refused. Memory: a second
    copy of the adapted weights, until ``unmerge`` or ``detach(model, keep_merged=True)``.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from tenfac import adapt, merge, unmerge
    >>> net = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16)).eval()
    >>> _ = adapt(net, "all-linear", rank=2)
    >>> merge(net)
    >>> list(net.state_dict())
    ['0.weight', '0.bias', '2.weight', '2.bias']
    >>> unmerge(net)
    """
    layers = _layers(model, "merge")
    _refuse_disabled(layers, "merge")
    chosen = None if names is None else _weights(layers, names, "merge")
    _refuse_tied(model, layers)
    before = [(layer, layer.tenfac.active) for _, layer in layers]
    try:
        for _, layer in layers:
            unmerge_layer(layer)
            if chosen is not None:
                _set_active(layer.tenfac, chosen)
            merge_layer(layer)
        bad = [name or "the layer" for name, layer in layers if not _is_finite(layer)]
        if bad:
            raise DataError(
                f"merge: merged weights must be finite; those of {bad[0]!r} are not. Look for NaN in the "
                "adapter, or convert the model to a wider dtype first: float16 ends at 65504."
            )
    except BaseException:  # out of memory or interrupted too: never half a model
        for layer, active in before:
            unmerge_layer(layer)
            layer.tenfac.active = active
        raise


@door
def unmerge(model: nn.Module) -> None:
    """Put the original weights back, every bit, so that the adapters act beside them again.

    Parameters
    ----------
    model : torch.nn.Module
        With adapters; or one adapted layer. Changed in place. A model that is not merged stays as it is.

    Raises
    ------
    DataError
        If the model has no adapters, or it is called in a ``disable`` block.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from tenfac import adapt, merge, unmerge
    >>> layer = nn.Linear(16, 16).eval()
    >>> before = layer.weight.detach().clone()
    >>> _ = adapt(layer, "all-linear", rank=2)
    >>> for _ in range(10):
    ...     merge(layer)
    ...     unmerge(layer)
    >>> torch.equal(layer.state_dict()["weight"], before)
    True
    """
    layers = _layers(model, "unmerge")
    _refuse_disabled(layers, "unmerge")
    for _, layer in layers:
        unmerge_layer(layer)


@door
@contextmanager
def disable(model: nn.Module) -> Iterator[None]:
    """Let the model act without its adapters inside a ``with`` block.

    Parameters
    ----------
    model : torch.nn.Module
        With adapters, merged or not; or one adapted layer.

    Yields
    ------
    None
        Blocks may be nested, and an exception leaves them as the end does.

    Raises
    ------
    DataError
        If the model has no adapters.

    Notes
    -----
    A merged model is unmerged on entry and merged again on leaving. ``also_train`` parameters are not part of
    an adapter: they stay as trained.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from tenfac import adapt, disable
    >>> net = nn.Linear(16, 16)
    >>> x = torch.ones(16)
    >>> before = net(x)
    >>> _ = adapt(net, "all-linear", rank=2)
    >>> with disable(net):
    ...     print(torch.equal(net(x), before))
    True
    """
    before = [
        (layer, layer.tenfac, layer.tenfac.enabled, layer.tenfac.merged)
        for _, layer in _layers(model, "disable")
    ]
    try:
        for layer, adapters, _, _ in before:
            unmerge_layer(layer)
            adapters.enabled = False
        yield
    finally:
        for layer, adapters, enabled, merged in before:
            adapters.enabled = enabled
            if merged and getattr(layer, "tenfac", None) is adapters:
                merge_layer(layer)


@door
def activate(model: nn.Module, names: str | Iterable[str] | Mapping[str, float]) -> None:
    """Choose which adapters act, and with what weight.

    The effective weight becomes ``W + sum_a weight_a * update_a``.

    Parameters
    ----------
    model : torch.nn.Module
        With adapters; or one adapted layer. Changed in place.
    names : str, iterable of str, or mapping from str to float
        ``"a"``; ``["a", "b"]``, their sum; ``{"a": 0.5, "b": 0.5}``, their weighted sum. A negative weight
        subtracts, a weight of 0 leaves out. ``[]`` lets none act.

    Raises
    ------
    DataError
        If the model has no adapters, no adapter of that name, or is merged. If a weight is not a finite
        number.

    Notes
    -----
    What does not act gets no gradient; it is not frozen. A layer that has no adapter of the given names acts
    as it did without adapters.

    Examples
    --------
    >>> from torch import nn
    >>> from tenfac import activate, adapt, adapter_report
    >>> net = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    >>> _ = adapt(net, "all-linear", rank=2, name="day")
    >>> _ = adapt(net, "all-linear", rank=2, name="night")
    >>> activate(net, {"day": 0.7, "night": 0.3})
    >>> adapter_report(net).active
    (('day', 0.7), ('night', 0.3))
    """
    layers = _layers(model, "activate")
    chosen = _weights(layers, names, "activate")
    _refuse_merged(layers, "activate")
    for _, layer in layers:
        _set_active(layer.tenfac, chosen)


@door
def detach(model: nn.Module, name: str | None = None, *, keep_merged: bool = False) -> None:
    """Take adapters off: all, or those of one name; a merged model can keep its merged weights.

    Parameters
    ----------
    model : torch.nn.Module
        With adapters; or one adapted layer. Changed in place.
    name : str, optional
        The adapter; all by default.
    keep_merged : bool
        Leave a plain model with the merged weights, to be deployed, fused or compiled further. The originals
        and the adapters are let go; without it a merged model gets its original weights back.

    Raises
    ------
    DataError
        If the model has no adapters, none of that name, or one is named while the model is merged; with
        ``keep_merged``, if it is not merged or ``name`` is given.

    Notes
    -----
    Where no adapter is left a layer has its class and its weight back, and a model that ``adapt`` froze its
    ``requires_grad``. Parameters trained by ``also_train`` keep their values.

    Examples
    --------
    >>> from torch import nn
    >>> from tenfac import adapt, detach, merge
    >>> net = nn.Sequential(nn.Linear(16, 16))
    >>> _ = adapt(net, "all-linear", rank=2)
    >>> detach(net)
    >>> net
    Sequential(
      (0): Linear(in_features=16, out_features=16, bias=True)
    )

    What was learned stays in the weights, and nothing else of it:

    >>> _ = adapt(net, "all-linear", rank=2)
    >>> merge(net)
    >>> detach(net, keep_merged=True)
    >>> [type(layer).__name__ for layer in net]
    ['Linear']
    """
    if not any(True for _ in adapted_layers(model)) and any(FREEZE in vars(m) for m in model.modules()):
        thaw(model)  # its layers were detached one by one
        forget(model, None)
        return
    layers = _layers(model, "detach")
    if keep_merged:
        _refuse_unmerged(layers, name)
    elif name is not None:
        _known(layers, [name], "detach")
        _refuse_merged(layers, "detach")
    for _, layer in layers:
        drop(layer, name, keep_merged)
    thaw(model)
    forget(model, name)


def drop(layer: nn.Module, name: str | None, keep_merged: bool = False) -> None:
    """Take one adapter, or all, off a layer; the last one gives its class back."""
    adapters: Adapters = layer.tenfac
    if name is not None and name in adapters.named:
        del adapters.named[name]
        adapters.active.pop(name, None)
    if name is None or not len(adapters.named):
        single.detach(layer, keep_merged)


def freeze(model: nn.Module, trained: set[int], adapters: set[int]) -> None:
    """Freeze every parameter but those of adapters and ``trained`` (ids), and remember how each was.

    A model that was frozen before stays as it is but for ``trained``.
    """
    known = vars(model).get(FREEZE)
    before = {} if known is None else dict(known)
    for name, parameter in model.named_parameters():
        if id(parameter) in adapters:
            continue
        before.setdefault(name, parameter.requires_grad)
        if id(parameter) in trained or known is None:
            parameter.requires_grad_(id(parameter) in trained)
    setattr(model, FREEZE, before)


def thaw(model: nn.Module) -> None:
    """Give parameters that ``freeze`` froze their ``requires_grad`` back, where no adapter is left."""
    for part in model.modules():
        before = vars(part).get(FREEZE)
        if before is not None and not any(isinstance(m, Adapted) for m in part.modules()):
            delattr(part, FREEZE)
            for name, parameter in part.named_parameters():
                parameter.requires_grad_(before.get(name, parameter.requires_grad))


# --- checks -----------------------------------------------------------------------------------------------


def _layers(model: nn.Module, where: str) -> list[tuple[str, nn.Module]]:
    layers = list(adapted_layers(model)) if isinstance(model, nn.Module) else []
    if not layers:
        raise DataError(
            f"{where}: the model must have adapters; {type(model).__name__} has none. Add them with "
            "tenfac.adapt(model, targets, rank) or tenfac.tucker_adapter(layer, rank)."
        )
    return layers


def _known(layers: list[tuple[str, nn.Module]], names: Iterable[str], where: str) -> None:
    have = list(dict.fromkeys(name for _, layer in layers for name in layer.tenfac.named))
    for name in names:
        if name not in have:
            near = nearest(name, have)
            raise DataError(
                f"{where}: `name` must be an adapter of the model; got {name!r}. "
                f"{f'Did you mean {near}?' if near else 'It has ' + ', '.join(map(repr, have)) + '.'}"
            )


def _weights(layers: list[tuple[str, nn.Module]], names: Any, where: str) -> dict[str, float]:
    """Name to weight from whatever the user gave; weights of 0 left out."""
    given = {names: 1.0} if isinstance(names, str) else names
    if not isinstance(given, Iterable):
        raise DataError(
            f"{where}: `names` must be a name, a list of names, or a mapping from name to weight; got "
            f"{names!r}."
        )
    given = dict(given) if isinstance(given, Mapping) else dict.fromkeys(given, 1.0)
    _known(layers, given, where)
    for name, weight in given.items():
        real = isinstance(weight, numbers.Real) and not isinstance(weight, bool)
        if not real or not math.isfinite(weight):
            raise DataError(
                f"{where}: weights of adapters must be finite numbers; got {weight!r} for {name!r}. Give a "
                "float; 0 leaves the adapter out."
            )
    return {name: float(weight) for name, weight in given.items() if weight}


def _set_active(adapters: Adapters, chosen: Mapping[str, float]) -> None:
    adapters.active = {name: weight for name, weight in chosen.items() if name in adapters.named}


def _refuse_merged(layers: list[tuple[str, nn.Module]], where: str) -> None:
    merged = [name for name, layer in layers if layer.tenfac.merged]
    if merged:
        raise DataError(
            f"{where}: the model must not be merged; {len(merged)} of its layers are. "
            "Call tenfac.unmerge(model) first."
        )


def _refuse_unmerged(layers: list[tuple[str, nn.Module]], name: str | None) -> None:
    apart = [label or "the layer" for label, layer in layers if not layer.tenfac.merged]
    if apart:
        raise DataError(
            f"detach: keep_merged=True needs a merged model; {apart[0]!r} is not. Call tenfac.merge(model) "
            "first."
        )
    if name is not None:
        raise DataError(
            f"detach: keep_merged=True takes all adapters off; got name={name!r}. Choose what is kept with "
            f"tenfac.merge(model, {name!r}), and leave `name` out."
        )


def _refuse_tied(model: nn.Module, layers: list[tuple[str, nn.Module]]) -> None:
    """Refuse to merge into a weight that is read elsewhere too, where the update is not meant."""
    wanted = [(layer, slot.parameter) for _, layer in layers for slot in layer.tenfac.slots]
    pair = tied_pair(places_of(model), wanted)
    if pair is not None:
        one, other = (place.names[0] for place in pair)
        raise DataError(
            f"merge: a merged weight must be used by one layer; {one!r} and {other!r} are one tensor (tied "
            f"weights), and merging would change both. Untie them first: give the layer of {other!r} a copy "
            "of its own, nn.Parameter(weight.detach().clone())."
        )


def _refuse_disabled(layers: list[tuple[str, nn.Module]], where: str) -> None:
    if not all(layer.tenfac.enabled for _, layer in layers):
        raise DataError(
            f"{where}: adapters must be on; they are off inside `with tenfac.disable(model)`. Leave the "
            "block first."
        )


def _is_finite(layer: nn.Module) -> bool:
    names = {slot.parameter for slot in layer.tenfac.slots}
    values = [layer._parameters[name] for name in names]
    return all(value.is_meta or bool(torch.isfinite(value).all()) for value in values)
