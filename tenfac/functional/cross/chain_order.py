"""The order of modes along a tensor train: neighbors are those that depend on each other."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

# A new order must lower the worst bond, in logarithms of singular values, to this share.
_BETTER = 0.8


def chain_order(weight: Callable[[Sequence[int]], float], given: Sequence[int]) -> list[int]:
    """An order in which cutting the chain cuts little, or the given one if that is about as good.

    Greedy: the pair that is cut off most easily, then always the mode that leaves the least to be cut.

    Parameters
    ----------
    weight : callable
        What it costs to cut some modes off from the others. Called once for each set, the smaller part.
    given : sequence of D int

    Returns
    -------
    list of int

    Examples
    --------
    >>> linked = ({0, 3}, {1, 2})  # 0 with 3, 1 with 2
    >>> chain_order(lambda modes: sum(len(pair & set(modes)) == 1 for pair in linked), range(4))
    [0, 3, 1, 2]
    """
    everything, known = set(given), {}

    def cut(modes: Sequence[int]) -> float:
        part = min(tuple(sorted(modes)), tuple(sorted(everything - set(modes))), key=lambda p: (len(p), p))
        if part not in known:
            known[part] = weight(part)
        return known[part]

    def worst(order: Sequence[int]) -> float:
        return max(cut(order[:k]) for k in range(2, len(order) - 1))

    if len(everything) < 4:
        return list(given)  # modes are cut off in pairs at least
    pair = min(itertools.combinations(sorted(given), 2), key=cut)
    order = list(pair)
    while len(rest := sorted(everything - set(order))) > 2:
        order.append(min(rest, key=lambda n: cut([*order, n])))
    order += rest  # in whatever order, the cuts are the same
    return order if worst(order) < _BETTER * worst(given) else list(given)
