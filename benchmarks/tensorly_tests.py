"""TensorLy's own tests, run on tenfac: products, Khatri-Rao, Kronecker, formats, decompositions.

Run: ``python -m benchmarks.tensorly_tests``. Prints a table and writes ``results/tensorly_tests.json``; ends
with status 1 if a test fails, or passes without having called tenfac.

The test modules are those of the installed TensorLy; nothing is copied. After collection each name that a
module has imported (``mode_dot``, ``cp_to_tensor``, ``parafac``...) becomes an adapter: TensorLy's signature
in front, one of our functions behind. What a test reaches as ``tl.name`` stays TensorLy's: the reference.

- ``passed``: to the end. ``partly``: all assertions up to a call that no function of ours can answer
  (``BEYOND``), after at least one that did. ``left out``: with the reason, in ``LEFT_OUT``.
- Options that name steps of TensorLy's algorithms (``init``, ``linesearch``, ``orthogonalise``,
  ``normalize_factors``, ``n_iter_max``) are not passed on; what a test asserts of the result must still hold.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorly

import tenfac
from benchmarks import record
from tenfac import CP, ConvergenceWarning, Tucker

PACKAGE = Path(tensorly.__file__).parent
FILES = (
    "tenalg/tests/test_n_mode_product.py",
    "tenalg/tests/test_khatri_rao.py",
    "tenalg/tests/test_kronecker.py",
    "tenalg/tests/test_unfolding_dot_khatri_rao.py",
    "tests/test_core.py",
    "tests/test_tucker_tensor.py",
    "tests/test_cp_tensor.py",
    "decomposition/tests/test_tucker.py",
    "decomposition/tests/test_cp.py",
)

_PARTIAL = "partial_fold, partial_unfold and matricize have no counterpart: reshape does it"
_FRACTION = "a rank given as a share of the parameters: ours are integers, or decided by tol"
_RANDOMISED = "CP from sampled Khatri-Rao rows has no counterpart"
LEFT_OUT = {
    "test_vec_to_tensor": "vec_to_tensor is reshape",
    "test_tensor_to_vec": "tensor_to_vec is reshape",
    "test_partial_unfold": _PARTIAL + "; unfold is only its reference",
    "test_partial_fold": _PARTIAL,
    "test_partial_tensor_to_vec": _PARTIAL,
    "test_partial_vec_to_tensor": _PARTIAL,
    "test_validate_tucker_rank": _FRACTION,
    "testvalidate_cp_rank": _FRACTION,
    "test_cptensor_normalize_inplace": "a method of TensorLy's class that changes it in place",
    "test_partial_tucker": "partial_tucker fixes modes without factors: ours has a factor for every mode",
    "test_tucker_factors_only_init_recomputes_core": "tests the private initialize_tucker",
    "test_non_negative_tucker": "nonnegative Tucker is TensorLy's, not ours",
    "test_non_negative_tucker_hals_active_set": "nonnegative Tucker is TensorLy's, not ours",
    "test_masked_tucker": "with a full mask asks for HOOI's result: our completion has a ridge",
    "test_masked_parafac": "compares starts of masked parafac after 0 sweeps (svd_mask_repeats)",
    "test_parafac_linesearch": "compares parafac with and without linesearch: ours has one way",
    "test_non_negative_parafac_hals_one_unconstrained": "nonnegative in some modes only (nn_modes)",
    "test_leverage_score_indices": _RANDOMISED,
    "test_randomised_parafac": _RANDOMISED,
    "test_randomised_parafac_rank_deficient": _RANDOMISED,
    "test_randomised_parafac_error_estimate": _RANDOMISED,
    "test_randomised_parafac_invalid_arguments": _RANDOMISED,
    "test_parafac_does_not_modify_init": "fixed_modes",
    "test_fixed_modes_not_rescaled_by_init_weights": "fixed_modes",
}
BEYOND = {
    "fixed_factors": "hooi iterates all factors",
    "fixed_modes": "cp iterates all factors",
    "sparsity": "cp has no sparse component",
}


class BeyondError(Exception):
    """A call that no function of tenfac answers; named by a key of ``BEYOND``."""


# Adapters: TensorLy's signatures, one function of ours behind each


def _without(matrices: list, skip: int | None) -> list:
    return [matrix for n, matrix in enumerate(matrices) if n != skip]


def mode_dot(tensor: Any, matrix_or_vector: Any, mode: int, transpose: bool = False) -> Any:
    return multi_mode_dot(tensor, [matrix_or_vector], [mode], transpose=transpose)


def multi_mode_dot(
    tensor: Any, matrix_or_vec_list: Any, modes: Any = None, skip: Any = None, transpose: bool = False
) -> Any:
    modes = list(range(len(matrix_or_vec_list)) if modes is None else modes)
    pairs = [pair for n, pair in enumerate(zip(matrix_or_vec_list, modes, strict=True)) if n != skip]
    rows = [m[None, :] if m.ndim == 1 else m.T if transpose else m for m, _ in pairs]
    product = tenfac.multi_mode_product(tensor, rows, [mode for _, mode in pairs])
    return np.squeeze(product, tuple(mode for m, mode in pairs if m.ndim == 1))


def khatri_rao(matrices: Any, weights: Any = None, skip_matrix: int | None = None) -> Any:
    product = tenfac.khatri_rao(_without(matrices, skip_matrix))
    return product if weights is None else product * weights


def kronecker(matrices: Any, skip_matrix: int | None = None, reverse: bool = False) -> Any:
    kept = _without(matrices, skip_matrix)
    return tenfac.kronecker(kept[::-1] if reverse else kept)


def unfold(tensor: Any, mode: int) -> Any:
    return tenfac.unfold(tensor, mode)


def fold(unfolded_tensor: Any, mode: int, shape: Any) -> Any:
    return tenfac.fold(unfolded_tensor, mode, shape)


def _validate_tucker_tensor(tucker_tensor: Any) -> tuple:
    t = Tucker(*tucker_tensor)
    return t.shape, t.rank


def _tucker_n_param(tensor_shape: Any, rank: Any) -> int:
    sizes = zip(tensor_shape, rank, strict=True)
    return Tucker(np.zeros(rank), [np.zeros(size) for size in sizes]).n_params


def tucker_to_tensor(tucker_tensor: Any, modes: Any = None) -> Any:
    if modes is not None:
        return tenfac.multi_mode_product(*tucker_tensor, modes)
    return Tucker(*tucker_tensor).to_tensor()


def tucker_to_unfolded(tucker_tensor: Any, mode: int = 0) -> Any:
    return tenfac.unfold(Tucker(*tucker_tensor).to_tensor(), mode)


def tucker_to_vec(tucker_tensor: Any) -> Any:
    t = Tucker(*tucker_tensor)
    return tenfac.KroneckerOperator(*t.factors) @ t.core.reshape(-1)


def _format_dot(t: Tucker | CP, array: Any, mode: int) -> Any:
    return t.contract({mode: array}) if array.ndim == 1 else t.mode_product(array, mode)


def tucker_mode_dot(tucker_tensor: Any, matrix_or_vector: Any, mode: int, copy: bool = False) -> Any:
    assert copy, "our formats never change"
    return _format_dot(tenfac.from_tensorly(tucker_tensor), matrix_or_vector, mode)


def _validate_cp_tensor(cp_tensor: Any) -> tuple:
    t = CP(*cp_tensor)
    return t.shape, t.rank


def cp_to_tensor(cp_tensor: Any) -> Any:
    return CP(*cp_tensor).to_tensor()


def cp_to_unfolded(cp_tensor: Any, mode: int) -> Any:
    return tenfac.unfold(tenfac.from_tensorly(cp_tensor).to_tensor(), mode)


def cp_to_vec(cp_tensor: Any) -> Any:
    return tenfac.from_tensorly(cp_tensor).to_tensor().reshape(-1)


def cp_mode_dot(cp_tensor: Any, matrix_or_vector: Any, mode: int, copy: bool = False) -> Any:
    assert copy, "our formats never change"
    return _format_dot(tenfac.from_tensorly(cp_tensor), matrix_or_vector, mode)


def cp_norm(cp_tensor: Any) -> Any:
    return CP(*cp_tensor).norm()


def cp_permute_factors(ref_cp_tensor: Any, tensors_to_permute: Any) -> tuple:
    """TensorLy's answer holds the order too: the columns that ours are multiples of."""
    if not isinstance(tensors_to_permute, list):
        made, order = cp_permute_factors(ref_cp_tensor, [tensors_to_permute])
        return made[0], order
    made = [tenfac.align(tuple(ref_cp_tensor), tuple(other)) for other in tensors_to_permute]
    cosines = [
        np.abs((new.factors[0] / np.linalg.norm(new.factors[0], axis=0)).T @ old.factors[0])
        / np.linalg.norm(old.factors[0], axis=0)
        for new, old in zip(made, tensors_to_permute, strict=True)
    ]
    return made, [np.argmax(matrix, axis=1) for matrix in cosines]


def tucker(tensor: Any, rank: Any, fixed_factors: Any = None, init: Any = "svd", **_: Any) -> Tucker:
    if fixed_factors is not None:
        raise BeyondError("fixed_factors")
    rank = tensor.shape if rank is None else rank
    start = None
    if isinstance(init, list):  # factors only; hooi takes nothing but the factors of its start
        start = Tucker(np.zeros([factor.shape[1] for factor in init]), init)
    return tenfac.hooi(tensor, rank, init=start)


def _cp(tensor: Any, rank: int, random_state: Any, callback: Any, nonnegative: bool) -> CP:
    seed = 0 if random_state is None else tensorly.check_random_state(random_state).randint(2**31)
    report = None if callback is None else lambda _, error: callback(None, error)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 4 components of a tensor of 3
        return tenfac.cp(tensor, rank, random_state=seed, callback=report, nonnegative=nonnegative)


def parafac(
    tensor: Any,
    rank: int,
    random_state: Any = None,
    callback: Any = None,
    fixed_modes: Any = None,
    sparsity: Any = None,
    **_: Any,
) -> CP:
    for name, value in (("fixed_modes", fixed_modes), ("sparsity", sparsity)):
        if value is not None:
            raise BeyondError(name)
    return _cp(tensor, rank, random_state, callback, nonnegative=False)


def non_negative_parafac(
    tensor: Any, rank: int, random_state: Any = None, fixed_modes: Any = None, **_: Any
) -> tuple:
    """Called with ``return_errors=True`` except where it fixes modes."""
    if fixed_modes is not None:
        raise BeyondError("fixed_modes")
    t = _cp(tensor, rank, random_state, None, nonnegative=True)
    return (t.weights, list(t.factors)), t.info.history


def assert_class_wrapper_correctly_passes_arguments(*_: Any, **__: Any) -> None:
    """Nothing to do: it is about TensorLy's classes around its functions."""


ADAPTERS: dict[str, Callable[..., Any]] = {
    f.__name__: f
    for f in (
        mode_dot, multi_mode_dot, khatri_rao, kronecker, unfold, fold, _validate_tucker_tensor,
        _tucker_n_param, tucker_to_tensor, tucker_to_unfolded, tucker_to_vec, tucker_mode_dot,
        _validate_cp_tensor, cp_to_tensor, cp_to_unfolded, cp_to_vec, cp_mode_dot, cp_norm,
        cp_permute_factors, tucker, parafac, non_negative_parafac,
    )
}  # fmt: skip
ADAPTERS["non_negative_parafac_hals"] = non_negative_parafac


class Plugin:
    """Puts the adapters into the collected modules and keeps the record."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.files: dict[str, Any] = defaultdict(lambda: defaultdict(list))
        self.current: set[str] = set()

    def _counted(self, name: str) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            result = ADAPTERS[name](*args, **kwargs)
            self.calls[name] += 1
            self.current.add(name)
            return result

        return run

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        kept = []
        for item in items:
            if item.originalname in LEFT_OUT:
                self._file(item)["left_out"].append(item.originalname)
            else:
                kept.append(item)
        items[:] = kept
        for module in {item.module for item in items}:
            for name in ADAPTERS:
                if hasattr(module, name):
                    setattr(module, name, self._counted(name))
            vars(module).update(
                assert_class_wrapper_correctly_passes_arguments=assert_class_wrapper_correctly_passes_arguments
            )

    def _file(self, item: Any) -> Any:
        return self.files[Path(item.path).relative_to(PACKAGE).as_posix()]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: Any, call: Any) -> Iterator[None]:
        report = yield
        if call.when == "setup":
            self.current = set()
        if call.when != "call":
            return report
        error = call.excinfo.value if call.excinfo else None
        if isinstance(error, BeyondError) and self.current:
            kind, report.outcome, note = "partly", "passed", str(error)
        elif error is None and self.current:
            kind, note = "passed", sorted(self.current)
        else:
            kind, report.outcome, note = "failed", "failed", repr(error or "never called tenfac")
        self._file(item)[kind].append((item.name, note))
        return report


def summary(record: Any) -> dict[str, Any]:
    """One file's numbers, and the names of what was not run to its end."""
    cases = Counter(record["left_out"])
    return {
        "passed": len(record["passed"]),
        "partly": len(record["partly"]),
        "failed": dict(record["failed"]),
        "partly_until": {key: BEYOND[key] for key in sorted({key for _, key in record["partly"]})},
        "left_out": {name: {"cases": count, "reason": LEFT_OUT[name]} for name, count in cases.items()},
        "ours": sorted({name for _, names in record["passed"] for name in names}),
    }


def show(found: dict[str, Any]) -> None:
    """Print the table."""
    print(f"\n{'file':48}{'passed':>8}{'partly':>8}{'failed':>8}{'left out':>10}")
    for file, row in found.items():
        out = sum(entry["cases"] for entry in row["left_out"].values())
        print(f"{file:48}{row['passed']:8}{row['partly']:8}{len(row['failed']):8}{out:10}")
        for key, reason in row["partly_until"].items():
            print(f"    partly: up to {key}: {reason}")
        for name, entry in row["left_out"].items():
            print(f"    left out: {name} ({entry['cases']}): {entry['reason']}")


def main() -> int:
    plugin = Plugin()
    paths = [str(PACKAGE / file) for file in FILES]
    options = [
        "-q",
        "--no-header",
        "-c",
        "/dev/null",
        "--rootdir",
        str(PACKAGE.parent),
        "-p",
        "no:cacheprovider",
    ]
    options += ["-W", "ignore::UserWarning", "--tb=short"]
    np.random.seed(0)  # noqa: NPY002 TensorLy's tests draw from the global generator
    code = int(pytest.main([*options, *paths], plugins=[plugin]))
    found = {file: summary(plugin.files[file]) for file in FILES}
    show(found)
    unused = sorted(set(ADAPTERS) - set(plugin.calls))
    gone = sorted(set(LEFT_OUT) - {name for row in found.values() for name in row["left_out"]})
    print("calls:", ", ".join(f"{name} {plugin.calls[name]}" for name in ADAPTERS))
    for names, what in ((unused, "adapters never called"), (gone, "left out, but not in TensorLy")):
        if names:
            print(f"{what}: {', '.join(names)}")
    calls = {name: plugin.calls[name] for name in ADAPTERS}
    versions = record.versions("numpy", "tensorly", "pytest")
    record.write("tensorly_tests", {"versions": versions, "files": found, "calls": calls})
    return code or int(bool(unused or gone))


if __name__ == "__main__":
    sys.exit(main())
