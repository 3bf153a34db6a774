"""``adapt``: a whole model adapted at once. Everything is planned and checked before any layer is touched."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from tenfac.adapters.beside import Beside, note, still_trained
from tenfac.adapters.build import Plan, check_dtype, check_place, install, plan_layer, torch_generator
from tenfac.adapters.checks import check_name
from tenfac.adapters.gradients import gradients_of
from tenfac.adapters.layer import Adapted, adapted_layers
from tenfac.adapters.merging import FREEZE, drop, freeze
from tenfac.adapters.report import AdapterReport, adapter_parameters, report_of
from tenfac.adapters.targets import Place, Target, covered, matches, nearest, places_of, refuse_tied, select
from tenfac.adapters.updates.ranks import resolve
from tenfac.adapters.updates.structure import Structure, structure_of
from tenfac.core.door import door
from tenfac.core.errors import DataError, RankError

_WHERE = "adapt"
Planned = list[tuple[Target, Plan]]


@dataclass(frozen=True)
class Wish:
    """What the user asked of every layer."""

    rank: Any
    budget: int | None
    energy: float | None
    rank_pattern: Mapping[Any, Any]
    structure: str | Structure
    init: str | None
    scale: float


@door
def adapt(
    model: nn.Module,
    targets: Any,
    rank: Any = None,
    *,
    budget: int | None = None,
    energy: float | None = None,
    exclude: Any = None,
    also_train: Any = (),
    rank_pattern: Mapping[Any, Any] | None = None,
    structure: str | Structure = "tucker",
    init: str | None = None,
    scale: float = 1.0,
    path: str = "auto",
    data: Callable[[], Tensor] | None = None,
    name: str = "default",
    dtype: torch.dtype | None = None,
    random_state: Any = 0,
) -> AdapterReport:
    """Adapt the layers of a model in place: frozen weights ``W`` act as ``W + scale * G x_0 U_0 ...``.

    Every parameter is frozen but those of adapters and of ``also_train``. Layers keep their class and the
    state dict its keys; those of the adapters come in addition.

    Parameters
    ----------
    model : torch.nn.Module
    targets : str, type, or list of such
        Which layers: ``"all-conv"``, ``"all-linear"`` (attention among them), ``"all"`` (embeddings and
        bilinear layers too); a name of ``model.named_modules()`` or its end (``"q_proj"``,
        ``"layer1.0.conv1"``; numbers alone, as in a Sequential, are whole names); if no name ends so, a
        regular expression for the whole name; a type of module. A raw parameter is named as
        ``"module.parameter"`` (``"experts.w1"``).
        ``nn.MultiheadAttention`` is adapted in q, k, v and its output projection.
    rank : int or sequence of int, optional
        As for ``tucker_adapter``; an int beyond the size of a mode is lowered to it. By default up to 8, with
        at most half as many numbers as the weight.
    budget : int, optional
        Learned numbers of all layers together, at most. One common rank, the largest that fits; what is then
        left raises the rank by one, layer after layer in the model's order, wherever it fits.
    energy : float, optional
        Share of each weight's squared norm that ranks are to keep.
    exclude : like ``targets``, optional
        What to leave as it is; a layer stands for all that is below it.
    also_train : like ``targets``, optional
        Layers (with all below them) or parameters to train themselves, such as a new head. ``save_adapter``
        writes them with the adapter, and the running statistics of such layers too.
    rank_pattern : mapping, optional
        Other ranks for some layers: ``{"fc": 4, r"layer4\\..*": (8, 8, 3, 3)}``, keys as in ``targets``. The
        first key that matches a layer counts.
    structure, init, scale, path, dtype : optional
        As for ``tucker_adapter``.
    data : callable, optional
        For ``init="gradient"``: called once without arguments, returns the loss of the model on your data,
        without ``backward``. Nothing is left in ``.grad``.
    name : str
        Name of the adapter; a model can have several. A new one acts at once, beside those that do.
    random_state : int, numpy.random.Generator or None
        For the factors that are drawn.

    Returns
    -------
    AdapterReport
        Printed, a table: layer, weight, ranks, learned numbers, path. Layers of a kind, type or regular
        expression that are too small to gain from an adapter are left as they are, and it says so; one
        asked for by name is refused.

    Raises
    ------
    DataError
        If a pattern matches nothing; a layer has no weight that can be adapted (parametrized, scripted),
        or not yet its sizes (lazy), or an adapter of this name, or shares its weight with another layer;
        the model is merged; ``data`` is missing. The model is then untouched, as after every error. If a
        weight is not of floating point, or a gradient is missing, zero or not finite.
    RankError
        If a rank does not fit its layer, or rank 1 everywhere is beyond the budget.

    See Also
    --------
    tucker_adapter : one layer.
    merge, unmerge, disable, activate, detach, adapter_report : what can be done then.

    Notes
    -----
    Cost: that of drawing the factors; an eigenproblem per mode for ``init`` from weights or gradients.
    ``init="gradient"`` needs memory for the gradients of all adapted weights at once. ``data`` is called with
    the model in its present mode: in training mode its normalization layers see one more batch.

    Examples
    --------
    >>> from torch import nn
    >>> from tenfac import adapt
    >>> body = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU())
    >>> net = nn.Sequential(body, nn.Flatten(), nn.Linear(64, 10))
    >>> print(adapt(net, "all-conv", rank=4, also_train="2"))
    layer  type    adapter  weight                            ranks         numbers  share  path
    0.0    Conv2d  default  out 32, in 3, height 3, width 3   (4, 3, 3, 3)  236      27.3%  auto
    0.2    Conv2d  default  out 64, in 32, height 3, width 3  (4, 4, 3, 3)  528      2.9%   auto
    trained itself: 2.weight
    trained itself: 2.bias
    acting: default; 1,414 trainable numbers, 7.1% of 20,042
    """
    places = _check_call(model, name)
    check_dtype(dtype, _WHERE)
    also = covered(places, also_train, "also_train", _WHERE)
    out = covered(places, exclude, "exclude", _WHERE)
    wanted, skipped = _without_trained(select(places, targets, out, _WHERE), also)
    beside = _beside(places, also)
    trained = _trained(beside, also)
    wish = Wish(rank, budget, energy, rank_pattern or {}, structure, init, scale)
    plans, small = _plan_all(wanted, wish)
    refuse_tied(places, [(plan.layer, plan.slot.parameter) for _, plan in plans], _WHERE)
    for target, plan in plans:
        start = "orthonormal" if plan.init == "gradient" else plan.init  # gradients are checked below
        check_place(replace(plan, init=start), name, path, None, where=f"{_WHERE}: {target.label}")
    gradients = gradients_of(plans, data)
    rng = torch_generator(random_state)
    before = _flags(model)
    try:
        freeze(model, trained, adapter_parameters(model))
        training = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for (_, plan), gradient in zip(plans, gradients, strict=True):
            source = None if gradient is None else {plan.key: gradient}
            install(plan, name, path, source, dtype, rng)
        for parameter in training:  # biases of adapted layers among them
            parameter.requires_grad_(True)
    except BaseException:
        _undo([plan for _, plan in plans], name, before)
        raise
    note([*beside, *still_trained(model)], name)
    return report_of(model, skipped=(*skipped, *small))


# --- what is asked ----------------------------------------------------------------------------------------


def _check_call(model: nn.Module, name: str) -> list[Place]:
    if not isinstance(model, nn.Module):
        raise DataError(f"{_WHERE}: `model` must be a torch.nn.Module; got {type(model).__name__}.")
    check_name(name, _WHERE)
    lazy = [label for label, value in model.named_parameters() if is_lazy(value)]
    if lazy:
        raise DataError(
            f"{_WHERE}: every layer must know its sizes; {lazy[0]!r} is lazy and does not yet. Run the model "
            "once on a batch first."
        )
    merged = [label for label, layer in adapted_layers(model) if layer.tenfac.merged]
    if merged:
        raise DataError(
            f"{_WHERE}: the model must not be merged; {len(merged)} of its layers are. Call "
            "tenfac.unmerge(model) first."
        )
    return places_of(model)


def _without_trained(
    wanted: list[Target], also: set[tuple[int, str | None]]
) -> tuple[list[Target], list[tuple[str, str]]]:
    """Targets that do not train whole; the others are refused if named, and passed over if of a kind."""
    kept, skipped = [], []
    for target in wanted:
        own = [target.parameter] if target.parameter else ["in_proj_weight", "q_proj_weight"]
        if not any((id(target.layer), parameter) in also for parameter in own):
            kept.append(target)
        elif target.named:
            raise DataError(
                f"{_WHERE}: a weight must be adapted or trained itself; {target.label!r} is both in "
                "`targets` and in `also_train`. Take it out of one."
            )
        else:
            skipped.append((target.label, "trained itself (also_train)"))
    if not kept:
        raise DataError(
            f"{_WHERE}: `also_train` must leave a target; it has all of them. Train fewer layers themselves."
        )
    return kept, skipped


def _beside(places: list[Place], also: set[tuple[int, str | None]]) -> list[Beside]:
    """Parameters that are to train themselves, and what layers that train whole keep in buffers."""
    found = [p for p in places if p.parameter is not None and (id(p.layer), p.parameter) in also]
    for place in found:
        adapted = isinstance(place.layer, Adapted) and place.parameter in {
            slot.parameter for slot in place.layer.tenfac.slots
        }
        if adapted:
            raise DataError(
                f"{_WHERE}: `also_train` must be parameters without an adapter; {place.names[0]!r} has one. "
                "Leave it out, or detach the adapter first."
            )
    beside = [Beside(place.layer, str(place.parameter)) for place in found]
    for layer in (p.layer for p in places if p.parameter is None and (id(p.layer), None) in also):
        kept = [k for k, v in layer._buffers.items() if v is not None]
        beside += [Beside(layer, k) for k in kept if k not in layer._non_persistent_buffers_set]
    return [b for b in beside if b.key in b.layer._buffers or _can_train(b.value)]


def _can_train(value: Tensor) -> bool:
    return value.is_floating_point() or value.is_complex()


def _trained(beside: list[Beside], also: set[tuple[int, str | None]]) -> set[int]:
    """Ids of the parameters that are to train themselves."""
    trained = {id(b.value) for b in beside if b.key in b.layer._parameters}
    if also and not trained:
        raise DataError(
            f"{_WHERE}: `also_train` must match parameters of floating point; the layers it matches have "
            "none. Name layers with parameters."
        )
    return trained


# --- plans ------------------------------------------------------------------------------------------------


def _plan_all(wanted: list[Target], wish: Wish) -> tuple[Planned, list[tuple[str, str]]]:
    """A plan for every weight, and what is too small to be adapted."""
    _check_size(wish)
    _check_pattern(wanted, wish)
    _check_growth(wish)
    plans: Planned = []
    small: list[tuple[str, str]] = []
    spreads: list[bool] = []
    for target in wanted:
        key = next((key for key in wish.rank_pattern if matches(target, key)), None)
        at = f"{_WHERE}: {target.label}"
        try:
            made = _plan(target, wish, key, at)
        except RankError as error:
            if target.named or key is not None or not _is_one_number(wish):
                raise
            small.append((target.label, str(error).removeprefix(f"{at}: ")))
            continue
        plans += [(target, plan) for plan in made]
        spreads += [key is None] * len(made)
    if not plans:
        name, reason = small[0]
        raise RankError(f"{_WHERE}: no target can be adapted; {name}: {reason}")
    if wish.budget is not None:
        plans = _spread(plans, spreads, wish.budget)
    return plans, small


def _plan(target: Target, wish: Wish, key: Any, at: str) -> list[Plan]:
    """The plans of one target; of attention those of q, k and v (its output layer is a target of its own)."""
    rank, energy = wish.rank, wish.energy
    if key is not None:
        rank, energy = wish.rank_pattern[key], None
    elif wish.budget is not None:
        rank = 1
    plans = plan_layer(
        target.layer,
        rank,
        energy=energy,
        structure=wish.structure,
        init=wish.init,
        scale=wish.scale,
        parameter=target.parameter,
        cap=True,
        where=at,
    )
    return [plan for plan in plans if plan.layer is target.layer]


def _is_one_number(wish: Wish) -> bool:
    """Whether the size asked for is one that any layer can have unless it is too small."""
    return wish.rank is None or isinstance(wish.rank, numbers.Integral)


def _check_size(wish: Wish) -> None:
    given = {"rank": wish.rank, "budget": wish.budget, "energy": wish.energy}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise RankError(f"{_WHERE}: give one of rank, budget and energy; got {' and '.join(names)}.")
    for name in ("rank", "budget"):
        value = given[name]
        if name == "rank" and not isinstance(value, (numbers.Number, str)):
            continue
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if value is not None and (not whole or value < 1):
            raise RankError(f"{_WHERE}: {name} must be an int of 1 or more; got {value!r}.")
    energy = wish.energy
    if energy is not None and not (isinstance(energy, numbers.Real) and 0 < energy <= 1):
        raise RankError(f"{_WHERE}: energy must be a share in (0, 1]; got {energy!r}.")


def _check_pattern(wanted: list[Target], wish: Wish) -> None:
    if not isinstance(wish.rank_pattern, Mapping):
        raise DataError(
            f"{_WHERE}: `rank_pattern` must be a mapping from layers to ranks; got {wish.rank_pattern!r}."
        )
    for key in wish.rank_pattern:
        if not any(matches(target, key) for target in wanted):
            labels = [target.label for target in wanted]
            near = nearest(key, labels) or ", ".join(map(repr, labels[:8]))
            raise DataError(
                f"{_WHERE}: a key of `rank_pattern` must match a target; got {key!r}. Targets are, as far "
                f"as near: {near}."
            )


def _check_growth(wish: Wish) -> None:
    structure = structure_of(wish.structure, _WHERE)
    if wish.budget is not None and (structure.core == "kronecker" or structure.full_rank):
        raise RankError(
            f"{_WHERE}: a budget must come with a structure whose numbers grow with the rank; got "
            f"{wish.structure!r}. Give `rank`, and see the numbers in the report."
        )


def _spread(plans: Planned, spreads: list[bool], budget: int) -> Planned:
    """One common rank, the largest that fits; the rest raises it by one, layer after layer."""
    made = [plan for _, plan in plans]
    least = sum(plan.n_parameters for plan in made)
    if least > budget:
        raise RankError(
            f"{_WHERE}: the budget must be at least {least:,}, what rank 1 (or `rank_pattern`) needs for "
            f"these {len(made)} weights; got {budget:,}. Give a larger one, or target fewer layers."
        )
    largest = max(max(plan.layout.shape) for plan in made)
    for rank in range(2, largest + 2):
        raised = [_raised(plan, rank) if free else plan for plan, free in zip(made, spreads, strict=True)]
        if sum(plan.n_parameters for plan in raised) > budget:
            break
        made = raised
    left = budget - sum(plan.n_parameters for plan in made)
    for n, plan in enumerate(raised):
        cost = plan.n_parameters - made[n].n_parameters
        if 0 < cost <= left:
            made[n], left = plan, left - cost
    return [(target, plan) for (target, _), plan in zip(plans, made, strict=True)]


def _raised(plan: Plan, rank: int) -> Plan:
    """The plan at another rank, or as it is where that would be as large as the weight."""
    try:
        ranks = resolve(plan.layout, plan.structure, plan.weight, rank=rank, cap=True)
    except RankError:
        return plan
    return replace(plan, ranks=ranks)


# --- gradients --------------------------------------------------------------------------------------------


# --- undoing ----------------------------------------------------------------------------------------------


def _flags(model: nn.Module) -> tuple[nn.Module, Any, list[tuple[nn.Parameter, bool]]]:
    return model, vars(model).get(FREEZE), [(p, p.requires_grad) for p in model.parameters()]


def _undo(plans: list[Plan], name: str, before: Any) -> None:
    """Take off what was installed, and give every flag back."""
    for plan in plans:
        named = plan.layer.tenfac.named if isinstance(plan.layer, Adapted) else {}
        if name in named and plan.slot.name in named[name]:
            del named[name][plan.slot.name]
            if not len(named[name]):
                drop(plan.layer, name)
    model, frozen, flags = before
    vars(model).pop(FREEZE, None)
    if frozen is not None:
        vars(model)[FREEZE] = frozen
    for parameter, flag in flags:
        parameter.requires_grad_(flag)
