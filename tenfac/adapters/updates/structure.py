"""Structures of an update: which modes have factors, of what kind, and the published methods that are one.

What a preset is called, where it was published, and what of ``G x_0 U_0 x_1 U_1 ...`` is learned (``r``: the
rank of the output mode; ``I``, ``O``: sizes of the input and the output mode; ``K``: of all other modes):

========  =================  ==============================================================  ================
preset    paper              update                                                          learned numbers
========  =================  ==============================================================  ================
tucker    arXiv 2405.14739   zero core and orthonormal factors of output and input mode      r q K + O r + I q
flora     arXiv 2405.14739   as ``tucker``, kernel modes factored too, factors of its code   every entry
lora      arXiv 2106.09685   core drawn, output factor zero, the other modes whole           r (O + I K)
locon     arXiv 2309.14859   as ``tucker``, output factor zero; ``lora`` without a kernel    r q K + O r + I q
lokr      arXiv 2309.14859   Kronecker product of a drawn and a zero array                   of both arrays
pissa     arXiv 2404.02948   leading singular part of W, less a frozen copy of itself        r (O + I K)
svfit     arXiv 2409.05926   frozen singular vectors of W, changes of r singular values      r
loldu     arXiv 2410.13618   frozen P L and U of W = P L D U, changes of r pivots            r
randlora  arXiv 2502.00987   sum over n of B_n diag(b_n) A diag(a_n); A and B_n frozen       n (r + I)
s2ft      arXiv 2412.06289   r rows of the output mode as they are                           r I K
========  =================  ==============================================================  ================

``q`` is the rank of the input mode. Methods that cut matrices see a weight as output mode by all others.
Where a preset differs from its authors' code: ``loldu`` has no learned common multiplier (the pivots contain
it), ``lokr`` leaves both arrays whole, ``s2ft`` draws its rows at random.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tenfac.adapters.updates.layout import Layout
from tenfac.core.errors import DataError, check_option

CORES = ("full", "scaled", "kronecker")
FACTORS = ("dense", "identity", "selection", "diagonal")


@dataclass(frozen=True)
class Structure:
    """What the terms of an update are made of.

    Parameters
    ----------
    core : {"full", "scaled", "kronecker"}
        Every entry learned; a frozen core with one learned number per slice of the output mode; or the
        Kronecker product of two small tensors, without factors.
    out, into, rest : {"dense", "identity", "selection", "diagonal"}
        Factors of the output mode, of the input mode, and of the others (kernel, stack of experts): a matrix;
        none; some columns of the identity; or one learned number per slice.
    train_factors : bool
        Whether dense factors are learned.
    full_rank : bool
        As many terms as make their sum of full rank, instead of one; for ``core="scaled"``.
    init : str
        Default start, see ``tenfac.tucker_adapter``.

    Raises
    ------
    DataError
        If a word is none of the above, or a Kronecker core is to have factors.

    Notes
    -----
    The choices are independent; the published methods are rows of the table in
    ``tenfac.adapters.updates.structure``. A rank given for a mode without factor gives it a dense one.

    Examples
    --------
    >>> structure_of("lora")
    Structure(core='full', out='dense', into='identity', rest='identity', train_factors=True, full_rank=False,
        init='lora')
    >>> columns = Structure(out="identity", into="selection")  # some input channels, all outputs
    """

    core: str = "full"
    out: str = "dense"
    into: str = "dense"
    rest: str = "identity"
    train_factors: bool = True
    full_rank: bool = False
    init: str = "orthonormal"

    def __post_init__(self) -> None:
        check_option(self.core, CORES, "Structure", "core")
        for name in ("out", "into", "rest"):
            kind = check_option(getattr(self, name), FACTORS, "Structure", name)
            if self.core == "kronecker" and kind != "identity":
                raise DataError(
                    f"Structure: a Kronecker core has no factors: `{name}` must be 'identity'; got {kind!r}."
                )
        if self.core == "scaled" and self.out != "dense":
            raise DataError(
                f"Structure: a scaled core needs out='dense'; got {self.out!r}. Give core='full' instead."
            )
        if self.full_rank and self.core != "scaled":
            raise DataError(f"Structure: full_rank=True needs core='scaled'; got core={self.core!r}.")

    def kind(self, layout: Layout, mode: int) -> str:
        """Kind of the factor of a mode, as the structure has it by itself."""
        return getattr(self, layout.role(mode))

    def kinds(self, layout: Layout, ranks: Sequence[int | None]) -> tuple[str, ...]:
        """Kind of the factor of every mode once ranks are known: a rank makes an identity dense."""
        if self.core == "kronecker":
            return ("identity",) * len(ranks)
        own = [self.kind(layout, n) for n in range(len(ranks))]
        return tuple(
            kind
            if kind == "diagonal"
            else "identity"
            if r is None
            else "dense"
            if kind == "identity"
            else kind
            for kind, r in zip(own, ranks, strict=True)
        )


PRESETS: dict[str, Structure] = {
    "tucker": Structure(),
    "flora": Structure(rest="dense", init="flora"),
    "lora": Structure(into="identity", init="lora"),
    "locon": Structure(init="lora"),
    "lokr": Structure(core="kronecker", out="identity", into="identity", init="lora"),
    "pissa": Structure(into="identity", init="principal"),
    "svfit": Structure(core="scaled", into="identity", train_factors=False, init="weight"),
    "loldu": Structure(core="scaled", into="identity", train_factors=False, init="lu"),
    "randlora": Structure(core="scaled", into="diagonal", train_factors=False, full_rank=True),
    "s2ft": Structure(out="selection", into="identity"),
}


def structure_of(structure: str | Structure, where: str = "tucker_adapter") -> Structure:
    """A preset by name, or a structure itself; ``DataError`` for anything else."""
    if isinstance(structure, Structure):
        return structure
    return PRESETS[check_option(structure, PRESETS, where, "structure", also="a Structure")]


def structure_for(structure: str | Structure, layout: Layout, where: str = "tucker_adapter") -> Structure:
    """The structure of one weight: ``"locon"`` has a core of its own only where there is a kernel."""
    chosen = structure_of(structure, where)
    if structure == "locon" and math.prod(layout.shape[n] for n in layout.rest) == 1:
        return PRESETS["lora"]
    return chosen
