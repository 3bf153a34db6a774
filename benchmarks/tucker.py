"""ST-HOSVD, tolerances, formats, entries and batches against TensorLy, pyttb and the dense way.

Run: ``OPENBLAS_NUM_THREADS=1 python -m benchmarks.tucker [PART ...]``. Prints ratios of process CPU seconds
(the smallest of several runs, all in this process) and writes ``results/tucker.json``. Parts: fixed, tol,
generic, formats, entries, batch, images.
"""

from __future__ import annotations

import argparse
import io
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import tensorly as tl
from tensorly.decomposition import tucker as tensorly_tucker

from benchmarks import record
from benchmarks.record import cpu_seconds, peak_bytes
from tenfac import CP, Tucker, datasets, tucker


def relative_error(core: Any, factors: Any, X: np.ndarray) -> float:
    dense = np.einsum("pqr,ip,jq,kr->ijk", core, *factors, optimize=True)
    dense -= X
    return float(np.linalg.norm(dense.reshape(-1)) / np.linalg.norm(X.reshape(-1)))


def noisy(n: int, rank: int, seed: int = 0) -> np.ndarray:
    """A Tucker tensor whose factors decay by 0.9 a column, with 1 % noise."""
    rng = np.random.default_rng(seed)
    factors = [np.linalg.qr(rng.standard_normal((n, rank)))[0] * 0.9 ** np.arange(rank) for _ in range(3)]
    X = Tucker(rng.standard_normal((rank,) * 3), factors).to_tensor()
    noise = rng.standard_normal(X.shape)
    return X + noise * (0.01 * np.linalg.norm(X.reshape(-1)) / np.linalg.norm(noise.reshape(-1)))


def pyttb_hosvd(X: np.ndarray, rank: int) -> Any:
    import pyttb

    with redirect_stdout(io.StringIO()):
        return pyttb.hosvd(pyttb.tensor(X), 1e-3, verbosity=0, ranks=np.array([rank] * 3))


def fixed() -> dict[str, Any]:
    """Fixed rank against ``tl.tucker`` and ``pyttb.hosvd``."""
    rows = {}
    for n, rank in ((100, 10), (200, 20), (400, 10)):
        X = noisy(n, rank)
        ours = cpu_seconds(lambda X=X, rank=rank: tucker(X, rank), 7 if n < 400 else 3)
        pyttb_ = cpu_seconds(lambda X=X, rank=rank: pyttb_hosvd(X, rank), 5 if n < 400 else 2)
        theirs = cpu_seconds(lambda X=X, rank=rank: tensorly_tucker(X, rank=[rank] * 3), 2 if n < 200 else 1)
        t = tucker(X, rank)
        extra = peak_bytes(lambda X=X, rank=rank: tucker(X, rank)) / X.nbytes
        errors = {
            "tenfac": relative_error(*t, X),
            "tensorly": relative_error(*tensorly_tucker(X, rank=[rank] * 3), X),
        }
        errors["reported"] = t.info.rel_error
        rows[f"{n}^3 r{rank}"] = {
            "seconds": ours,
            "times_tensorly": theirs / ours,
            "times_pyttb": pyttb_ / ours,
            "extra_memory": extra,
            "error": errors,
        }
    return rows


def tolerances() -> dict[str, Any]:
    """Is the tolerance kept, and the reported error true? 1 / (x + y + z + 0.05) on 100^3."""
    x = np.linspace(0, 1, 100)
    exact = 1 / (x[:, None, None] + x[:, None] + x + 0.05)
    rows = {}
    for dtype, powers in (("float64", range(1, 14)), ("float32", range(1, 7))):
        X = exact.astype(dtype)
        for power in powers:
            t = tucker(X, tol=10.0**-power)
            wide = [np.asarray(a, dtype=np.float64) for a in (t.core, *t.factors)]
            true = relative_error(wide[0], wide[1:], X.astype(np.float64))
            rows[f"{dtype} 1e-{power}"] = {
                "true_over_tol": true / 10.0**-power,
                "reported_over_true": t.info.rel_error / true,
                "rank": list(t.rank),
            }
    return rows


def plain_sthosvd(X: Any, rank: int, library: Any) -> tuple[Any, list[Any]]:
    """The same algorithm in one library only, without any check or report."""
    factors = []
    for n in range(X.ndim):
        flat = library.moveaxis(X, n, 0).reshape(X.shape[n], -1)
        vectors = library.linalg.eigh(flat @ flat.T)[1][:, -rank:]
        factors.append(vectors)
        X = library.moveaxis(library.tensordot(vectors.T, X, ([1], [n])), 0, n)
    return X, factors


def generic() -> dict[str, Any]:
    """What the array API, the checks and the certificate cost over the library alone, at 120^3."""
    X = noisy(120, 10)
    import torch

    rows = {}
    for library, array in ((np, X), (torch, torch.from_numpy(X))):
        plain = cpu_seconds(lambda array=array, library=library: plain_sthosvd(array, 10, library), 15)
        ours = cpu_seconds(lambda array=array: tucker(array, 10), 15)
        rows[library.__name__] = {"seconds": ours, "plain_seconds": plain, "over_plain": ours / plain}
    return rows


def formats() -> dict[str, Any]:
    """Algebra in the format against the dense tensor, at n 300, rank 20."""
    rng = np.random.default_rng(0)
    make = lambda: Tucker(  # noqa: E731
        rng.standard_normal((20,) * 3), [rng.standard_normal((300, 20)) for _ in range(3)]
    )
    a, b = make(), make()
    tensorly_a = a.to_tensorly()
    cases = {
        "norm": (a.norm, lambda: np.linalg.norm(tl.tucker_to_tensor(tensorly_a).reshape(-1))),
        "inner": (lambda: a.inner(b), lambda: np.vdot(a.to_tensor(), b.to_tensor())),
        "+ and round": (
            lambda: (a + b).round(rank=20),
            lambda: tucker(a.to_tensor() + b.to_tensor(), 20),
        ),
    }
    rows = {}
    for name, (ours, dense) in cases.items():
        fast, slow = cpu_seconds(ours, 20), cpu_seconds(dense, 3)
        rows[name] = {"seconds": fast, "times_dense": slow / fast}
    return rows


def entries() -> dict[str, Any]:
    """A million scattered entries, rank 20."""
    rng = np.random.default_rng(0)
    rows = {}
    for n in (200, 1000, 100_000):
        factors = [rng.standard_normal((n, 20)) for _ in range(3)]
        index = [rng.integers(0, n, 10**6) for _ in range(3)]
        for name, t in (
            ("CP", CP(None, factors)),
            ("Tucker", Tucker(rng.standard_normal((20,) * 3), factors)),
        ):
            rows[f"{name} n {n}"] = {
                "milliseconds": 1e3 * cpu_seconds(lambda t=t, i=index: t.at(*i), 3),
                "peak_bytes": peak_bytes(lambda t=t, i=index: t.at(*i)),
            }
    return rows


def batch() -> dict[str, Any]:
    """500 tensors of 16^3 at rank 4 at once, against a loop over ``tl.tucker``."""
    X = np.random.default_rng(0).standard_normal((500, 16, 16, 16))
    ours = cpu_seconds(lambda: tucker(X, 4, batch=1), 3)
    loop = cpu_seconds(lambda: [tensorly_tucker(x, rank=[4, 4, 4]) for x in X], 1)
    own_loop = cpu_seconds(lambda: [tucker(x, 4) for x in X], 2)
    return {
        "500 x 16^3 r4": {"seconds": ours, "times_tensorly": loop / ours, "times_own_loop": own_loop / ours}
    }


def images() -> dict[str, Any]:
    """Indian Pines, a hyperspectral image, at rank (60, 60, 12)."""
    X = np.asarray(datasets.load_indian_pines().values, dtype=np.float64)
    rank = [60, 60, 12]
    ours = cpu_seconds(lambda: tucker(X, rank), 3)
    theirs = cpu_seconds(lambda: tensorly_tucker(X, rank=rank), 1)
    errors = relative_error(*tucker(X, rank), X), relative_error(*tensorly_tucker(X, rank=rank), X)
    return {
        f"Indian Pines {X.shape}": {
            "seconds": ours,
            "times_tensorly": theirs / ours,
            "error": errors[0],
            "error_over_tensorly": errors[0] / errors[1],
        }
    }


PARTS = {
    "fixed": fixed,
    "tol": tolerances,
    "generic": generic,
    "formats": formats,
    "entries": entries,
    "batch": batch,
    "images": images,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all by default")
    results = record.read("tucker")
    for part in parser.parse_args().parts or PARTS:
        results[part] = PARTS[part]()
        for name, row in results[part].items():
            print(f"{part:8} {name:24}", *(f"{key} {value}" for key, value in row.items()), sep="  ")
    packages = "numpy", "torch", "tensorly", "pyttb"
    record.write("tucker", results | {"versions": record.versions(*packages)})


if __name__ == "__main__":
    main()
