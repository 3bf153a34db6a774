"""What adapters a model has, before and after training: layers, ranks, learned numbers, forward path."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tenfac.adapters.layer import AdaptedStock, Adapters, adapted_layers
from tenfac.adapters.updates.layout import Layout
from tenfac.adapters.updates.path import choose_path
from tenfac.adapters.updates.update import Update
from tenfac.core.door import door
from tenfac.core.errors import DataError

_SHORT = {"_channels": "", "_features": "", "kernel ": "", "num_embeddings": "rows", "embedding_dim": "width"}


@dataclass(frozen=True)
class LayerReport:
    """One update of one weight.

    Parameters
    ----------
    layer, type : str
        Name in the model and class; the name has the parameter, or the block of attention, after it.
    adapter : str
        Name of the adapter.
    modes : tuple of str
        Storage modes of the weight.
    shape, rank : tuple of int
        Of the weight and of the core.
    parameters : int
        Learned numbers.
    path : str
        ``"auto"``, ``"factored"`` or ``"fused"``: how the forward pass applies it.
    """

    layer: str
    type: str
    adapter: str
    modes: tuple[str, ...]
    shape: tuple[int, ...]
    rank: tuple[int, ...]
    parameters: int
    path: str

    @property
    def weight(self) -> int:
        """Numbers of the weight."""
        total = 1
        for size in self.shape:
            total *= size
        return total

    @property
    def share(self) -> float:
        """Learned numbers over those of the weight."""
        return self.parameters / self.weight


@dataclass(frozen=True)
class AdapterReport:
    """What adapters a model has. Printed it is a table; its ``repr`` is one line.

    Parameters
    ----------
    layers : tuple of LayerReport
        One per adapted weight and adapter, in the model's order.
    trainable : int
        Numbers the model now learns, ``also_train`` included.
    total : int
        Numbers of the model without adapters.
    also_train : tuple of str
        Parameters that train besides adapters.
    skipped : tuple of (str, str)
        Layers of the kind asked for that were left as they are, each with the reason.
    active : tuple of (str, float)
        Adapters that act, with their weights.
    merged : bool
        Whether the updates are added to the weights.

    Examples
    --------
    >>> from torch import nn
    >>> from tenfac import adapt
    >>> net = nn.Sequential(nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3))
    >>> adapt(net, "all-conv", rank=4)
    AdapterReport(2 weights adapted, 736 trainable numbers, 5.3% of 13,888)
    """

    layers: tuple[LayerReport, ...]
    trainable: int
    total: int
    also_train: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    active: tuple[tuple[str, float], ...] = ()
    merged: bool = False

    def __repr__(self) -> str:
        names = {row.layer for row in self.layers}
        parts = [f"{len(names)} weight{'s' * (len(names) != 1)} adapted", _share(self.trainable, self.total)]
        if self.also_train:
            parts.append(f"{len(self.also_train)} parameters trained besides")
        if self.skipped:
            parts.append(f"{len(self.skipped)} skipped")
        if self.merged:
            parts.append("merged")
        return f"AdapterReport({', '.join(parts)})"

    def __str__(self) -> str:
        lines = _table(self.layers)
        for name in self.also_train:
            lines.append(f"trained itself: {name}")
        for name, reason in self.skipped:
            lines.append(f"left as it is: {name}: {reason}")
        acting = ", ".join(name if weight == 1 else f"{weight:g} {name}" for name, weight in self.active)
        state = "merged into the weights" if self.merged else "acting"
        lines.append(f"{state}: {acting or 'none'}; {_share(self.trainable, self.total)}")
        return "\n".join(lines)


@door
def adapter_report(model: nn.Module, *, inputs: Any = None) -> AdapterReport:
    """What adapters a model has: layers, storage modes, ranks, learned numbers, share of the weight, path.

    Parameters
    ----------
    model : torch.nn.Module
        With adapters; or one adapted layer.
    inputs : tensor or tuple, optional
        Arguments of the model. With them it is run once, without gradients, in its present mode, and the
        report says which path each layer of ``path="auto"`` takes for their sizes.

    Returns
    -------
    AdapterReport
        ``print`` shows the table; ``.layers`` has a row per adapted weight.

    Raises
    ------
    DataError
        If the model has no adapters.

    Notes
    -----
    A weight that another layer reads (in attention) is used fused. So it is in torch's fast path of
    ``nn.TransformerEncoderLayer``, taken in evaluation mode without gradients; the report then shows the path
    of the ordinary pass.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from tenfac import adapt, adapter_report
    >>> net = nn.Sequential(nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3))
    >>> _ = adapt(net, "all-conv", rank=4)
    >>> adapter_report(net).layers[1].rank
    (4, 4, 3, 3)
    >>> print(adapter_report(net, inputs=torch.zeros(2, 16, 8, 8)))
    layer  type    adapter  weight                            ranks         numbers  share  path
    0      Conv2d  default  out 32, in 16, height 3, width 3  (4, 4, 3, 3)  336      7.3%   fused
    2      Conv2d  default  out 32, in 32, height 3, width 3  (4, 4, 3, 3)  400      4.3%   fused
    acting: default; 736 trainable numbers, 5.3% of 13,888
    """
    layers = list(adapted_layers(model))
    if not layers:
        raise DataError(
            f"adapter_report: the model must have adapters; {type(model).__name__} has none. Add them with "
            "tenfac.adapt(model, targets, rank)."
        )
    paths = {} if inputs is None else _paths_taken(model, inputs)
    return report_of(model, paths)


def report_of(
    model: nn.Module, paths: dict[int, str] | None = None, skipped: tuple[tuple[str, str], ...] = ()
) -> AdapterReport:
    """The report of a model whose layers took ``paths``, by the ids of the layers."""
    rows, active, merged = [], {}, False
    for name, layer in adapted_layers(model):
        adapters: Adapters = layer.tenfac
        merged = merged or adapters.merged
        active.update(adapters.active if adapters.enabled else {})
        for adapter, updates in adapters.named.items():
            for slot, update in updates.items():
                path = (paths or {}).get(id(layer), _path(layer))
                rows.append(_row(name, layer, adapter, slot, update, path))
    own = adapter_parameters(model)
    base = [p for p in model.parameters() if id(p) not in own]
    trained = [n for n, p in model.named_parameters() if p.requires_grad and id(p) not in own]
    return AdapterReport(
        layers=tuple(rows),
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        total=sum(p.numel() for p in base),
        also_train=tuple(trained),
        skipped=skipped,
        active=tuple(active.items()),
        merged=merged,
    )


def adapter_parameters(model: nn.Module) -> set[int]:
    """Ids of the parameters of adapters."""
    return {id(p) for _, layer in adapted_layers(model) for p in layer.tenfac.parameters()}


def _row(name: str, layer: nn.Module, adapter: str, slot: str, update: Update, path: str) -> LayerReport:
    label = name or "(model)"
    return LayerReport(
        layer=label if slot == "weight" else f"{label}.{slot}",
        type=type(layer)._made_of[0].__name__,
        adapter=adapter,
        modes=_modes(update.layout),
        shape=update.layout.shape,
        rank=update.rank,
        parameters=update.n_trainable,
        path=path,
    )


def _modes(layout: Layout) -> tuple[str, ...]:
    """Names of the storage modes; groups are named where there are several."""
    return layout.names if layout.groups > 1 else tuple(n.removesuffix("/groups") for n in layout.names)


def _path(layer: nn.Module) -> str:
    """The path as far as it is known without an input."""
    return layer.tenfac.path if isinstance(layer, AdaptedStock) else "fused"


def _paths_taken(model: nn.Module, inputs: Any) -> dict[int, str]:
    """The path of each layer in training; a layer that is not called has its weight read, fused."""
    stock = [layer for _, layer in adapted_layers(model) if isinstance(layer, AdaptedStock)]
    taken = {id(layer): "fused" for layer in stock}
    with _watched(stock, taken), torch.no_grad():
        model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    return taken


@contextmanager
def _watched(layers: list[nn.Module], taken: dict[int, str]) -> Iterator[None]:
    def note(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else kwargs["input"]
        updates = [update for update, _ in layer.tenfac.updates("weight")]
        with torch.enable_grad():  # the path of a training step, though this run keeps no graph
            taken[id(layer)] = choose_path(layer, x, updates, layer.tenfac.path)

    handles = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _share(trainable: int, total: int) -> str:
    return f"{trainable:,} trainable numbers, {trainable / max(total, 1):.1%} of {total:,}"


def _table(rows: tuple[LayerReport, ...]) -> list[str]:
    head = ("layer", "type", "adapter", "weight", "ranks", "numbers", "share", "path")
    cells = [head]
    for row in rows:
        modes = ", ".join(f"{_short(n)} {size}" for n, size in zip(row.modes, row.shape, strict=True))
        numbers, share = f"{row.parameters:,}", f"{row.share:.1%}"
        cells.append((row.layer, row.type, row.adapter, modes, str(row.rank), numbers, share, row.path))
    widths = [max(len(line[n]) for line in cells) for n in range(len(head))]
    return ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells]


def _short(name: str) -> str:
    for long, short in _SHORT.items():
        name = name.replace(long, short)
    return name
