"""``tenfac info`` and ``tenfac datasets``."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tenfac import __version__
from tenfac.cli.report import align
from tenfac.core.errors import DataError

_BASE = ("numpy", "scipy", "tensorly", "scikit-learn")
_EXTRAS = {"matplotlib": "plot", "pandas": "table", "pyarrow": "table", "torch": "torch"}
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def info() -> list[str]:
    """Versions, what is not installed and how to install it, and threads."""
    rows = [
        ("tenfac", __version__),
        ("python", f"{platform.python_version()} on {platform.platform(terse=True)}"),
    ]
    rows += [(name, _version(name) or "not installed: pip install " + name) for name in _BASE]
    for name, extra in _EXTRAS.items():
        rows.append((name, _version(name) or f"not installed: pip install 'tenfac[{extra}]'"))
    rows += [("processors", str(_processors())), *_blas()]
    rows += [(name, os.environ[name]) for name in _THREADS if name in os.environ]
    return align(rows)


def about(path: str) -> list[str]:
    """What a file of `tenfac fit --save` holds: modes, settings, what was learned, how the fit ended."""
    import tenfac
    from tenfac.cli.report import outcome

    try:
        model = tenfac.load(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}.") from error
    if not hasattr(model, "mode_posterior"):
        return [f"{path}: {model!r}"]
    settings = [(name, _shown(value)) for name, value in model.get_params().items()]
    lines = [f"{path}: {type(model).__name__}", "", *_modes_of(model), "", *align(settings), ""]
    return [*lines, *outcome(model, "")]


def _modes_of(model: Any) -> list[str]:
    from tenfac.plot.wording import axes_of

    rows = [("mode", "kind", "indices", "range", "length-scale")]
    for axis, values in zip(axes_of(model, None), model.indices_, strict=True):
        scale = getattr(model, "lengthscales_", {}).get(axis.name)
        length = "" if scale is None else f"{scale:.3g} {axis.distance}".rstrip()
        rows.append((axis.column, axis.kind, f"{len(values):,}", axis.span(values), length))
    return align(rows, right={2})


def _shown(setting: Any) -> str:
    return setting if isinstance(setting, str) else repr(setting)


def datasets() -> list[str]:
    """Name, sizes and modes of each data set."""
    from tenfac.datasets import names

    return align(list(names().items()))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _blas() -> list[tuple[str, str]]:
    """Threads of the linear algebra library of numpy."""
    import numpy  # noqa: F401
    from threadpoolctl import threadpool_info

    found = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return [
        (
            "linear algebra",
            f"{pool['internal_api']} {pool.get('version') or ''}, {pool['num_threads']} threads",
        )
        for pool in found[:1]
    ]
