"""Structures of an update: which modes have factors, of what kind, and the published methods that are one."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from .layout import Layout

CORES = ("full", "scaled", "kronecker")
FACTORS = ("dense", "identity", "selection", "diagonal")


@dataclass(frozen=True)
class Structure:
    """What the terms of an update are made of.

    Parameters
    ----------
    core : {"full", "scaled", "kronecker"}
        Every entry learned; a frozen core with one learned number per slice of the output mode; or the
        Kronecker product of two small tensors.
    out, into, rest : {"dense", "identity", "selection", "diagonal"}
        Factors of the output mode, of the input mode, and of the others (kernel, stack of experts).
    train_factors : bool
        Whether dense factors are learned.
    init : str
        Default start, see ``tenfac.tucker_adapter``.

    Examples
    --------
    >>> structure_of("lora")
    Structure(core='full', out='dense', into='identity', rest='identity', train_factors=True, init='lora')
    """

    core: str = "full"
    out: str = "dense"
    into: str = "dense"
    rest: str = "identity"
    train_factors: bool = True
    init: str = "orthonormal"

    def kind(self, layout: Layout, mode: int) -> str:
        """Kind of the factor of a mode."""
        return getattr(self, layout.role(mode))


PRESETS: dict[str, Structure] = {
    "tucker": Structure(),
    "flora": Structure(rest="dense", init="flora"),
    "lora": Structure(into="identity", init="lora"),
    "locon": Structure(init="lora"),
    "pissa": Structure(into="identity", init="principal"),
}


def structure_of(structure: str | Structure, where: str = "tucker_adapter") -> Structure:
    """A preset by name, or a structure itself; ``ValueError`` for anything else."""
    if isinstance(structure, Structure):
        return structure
    if structure in PRESETS:
        return PRESETS[structure]
    near = difflib.get_close_matches(str(structure), PRESETS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"{where}: `structure` must be a Structure or one of {', '.join(PRESETS)}; got {structure!r}.{hint}"
    )
