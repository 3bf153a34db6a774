"""A fit as a header and arrays, and back, bit by bit."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.cep.chain import Chain, ChainPosterior
from tenfac.bayes.cep.forms import CPForm, TuckerForm
from tenfac.bayes.cep.mode import Functions
from tenfac.bayes.cep.result import CepFit
from tenfac.bayes.cep.sweep import Core, State
from tenfac.core.report import stored_report

Arrays = dict[str, NDArray[Any]]


def state_of(fit: CepFit) -> tuple[dict[str, Any], Arrays]:
    """Everything a fit holds; a function's slopes, which only the next sweep needs, are left out."""
    form, state = fit.form, fit.state
    shape: dict[str, Any] = {"form": "tucker", "ranks": [size - 1 for size in form.sizes]}
    if isinstance(form, CPForm):
        rank = form.products.stop - form.products.start
        shape = {"form": "cp", "rank": rank, "mains": form.products.start > 0}
    modes = []
    core = state.core
    arrays = {"core_mean": core.mean, "core_cov": core.cov, "core_precision": core.precision}
    for n, (functions, grid) in enumerate(zip(state.functions, fit.grids, strict=True)):
        post, chain = functions.posterior, functions.chain
        kernel = chain.kernel if isinstance(chain, Chain) else None
        modes.append({"kernel": kernel, "kl": functions.kl, "log_z": post.log_z})
        arrays[f"grid_{n}"] = grid
        arrays[f"prior_{n}"] = np.stack([functions.lengthscales, functions.variances])
        arrays[f"mean_{n}"], arrays[f"cov_{n}"], arrays[f"cross_{n}"] = post.mean, post.cov, post.cross
    header = {
        **shape, "modes": modes, "core_kl": core.kl, "noise": state.noise, "bound": state.bound,
        "center": fit.center, "spread": fit.spread, "total": fit.total, "info": asdict(fit.info),
    }  # fmt: skip
    return header, arrays


def restore(header: dict[str, Any], arrays: Arrays) -> CepFit:
    """Inverse of ``state_of``."""
    count = len(header["modes"])
    if header["form"] == "cp":
        form: CPForm | TuckerForm = CPForm(count, header["rank"], header["mains"])
    else:
        form = TuckerForm(tuple(header["ranks"]))
    grids = tuple(arrays[f"grid_{n}"] for n in range(count))
    functions = tuple(_functions(n, entry, grids[n], arrays) for n, entry in enumerate(header["modes"]))
    core = Core(arrays["core_mean"], arrays["core_cov"], arrays["core_precision"], header["core_kl"])
    state = State(functions, core, header["noise"], header["bound"])
    info = stored_report(header["info"])
    return CepFit(form, state, grids, header["center"], header["spread"], header["total"], info)


def _functions(n: int, entry: dict[str, Any], grid: NDArray[np.float64], arrays: Arrays) -> Functions:
    chain = grid.size if entry["kernel"] is None else Chain(grid, entry["kernel"])
    mean, cov, cross = (arrays[f"{name}_{n}"] for name in ("mean", "cov", "cross"))
    prior = arrays[f"prior_{n}"]
    posterior = ChainPosterior(mean, cov, cross, entry["log_z"])
    return Functions(chain, prior[0], prior[1], posterior, entry["kl"], np.zeros_like(prior))
