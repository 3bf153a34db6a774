"""What a type checker and an editor know of every door: each line is checked by mypy, and run."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import pytest
from numpy.typing import NDArray

import tenfac
from tests.checks import assert_equal

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
STUB = ROOT / "tenfac" / "__init__.pyi"


# --- the doors --------------------------------------------------------------------------------------------


def test_arrays() -> None:
    X: NDArray[np.float64] = np.arange(24.0).reshape(2, 3, 4)
    t = tenfac.tucker(X, tol=1e-6)
    assert_type(t, tenfac.Tucker)
    assert_type(t.factors, tuple[Any, ...])
    assert_type(t.rank, tuple[int, ...])
    assert_type(t.shape, tuple[int | None, ...])
    assert_type(t + t, tenfac.Tucker)
    assert_type(2 * t, tenfac.Tucker)
    assert_type((t - t).round(tol=1e-3), tenfac.Tucker)
    assert np.allclose((t + t).to_tensor(), 2 * X)
    fit = tenfac.cp(X, 1)
    assert_type(fit, tenfac.CP)
    assert_type(fit.rank, int)
    assert_equal(fit.info is not None and fit.info.converged, True)


def test_a_made_format_has_its_modes() -> None:
    t = tenfac.Tucker(
        np.ones((1, 1)), [np.ones((2, 1)), np.ones((3, 1))], [tenfac.Chebyshev(2), tenfac.Discrete(3)]
    )
    assert_type(t.modes[0].size, int)
    assert_type(t.modes[0].domain, tuple[float, float] | None)
    assert_equal(t.modes[0].size, 2)
    knots: NDArray[np.float64] = np.linspace(0, 1, 3)
    process = tenfac.GP("matern32", knots, lengthscale=1.0)
    assert_type(process.grid, tuple[float, ...])
    assert_equal((process.grid, tenfac.GP("matern32", [0, 1], lengthscale=1.0).domain), ((0, 0.5, 1), (0, 1)))


def test_functions() -> None:
    F = tenfac.chebyshev_tucker(lambda x, y: np.exp(-x * y), [(0, 1), (0, 1)], tol=1e-6)
    assert_type(F, tenfac.Tucker | tenfac.TuckerTrain)
    assert_type(F.diff(0), tenfac.Tucker | tenfac.TuckerTrain)
    assert_type(F.domain, tuple[tuple[float, float] | None, ...])
    assert abs(F.at(0.5, 0.5) - np.exp(-0.25)) < 1e-5


def test_kronecker() -> None:
    K = tenfac.KroneckerOperator(2 * np.eye(2), np.eye(3))
    assert_type(K, tenfac.KroneckerOperator)
    assert_type(K.T, tenfac.KroneckerOperator)
    assert_type(K.shape, tuple[int, int])
    assert np.allclose(K.solve(np.ones(6)), 0.5)
    model = tenfac.KroneckerSBL(noise=0.1).fit([np.eye(2), np.eye(3)], np.diag([3.0, 0.0, 0.0])[:2])
    assert_type(model, tenfac.KroneckerSBL)
    assert_type(model.info_, tenfac.Report)
    assert_equal([len(support) for support in model.support_], [1, 1])


def test_observations() -> None:
    model = tenfac.FunctionalTucker(max_iter=0).fit([[0.0], [1.0]], [1.0, 3.0])
    assert_type(model, tenfac.FunctionalTucker)
    assert_type(model.predict([[0.5]]), NDArray[Any])
    mean, std = model.predict([[0.5]], return_std=True)
    assert_type(mean, NDArray[Any])
    assert_type(std, NDArray[Any])
    assert_type(model.mean_tucker(), tenfac.Tucker)
    assert_equal((mean.shape, std.shape), ((1,), (1,)))


def test_adapters() -> None:
    pytest.importorskip("torch")
    from torch import nn

    conv = nn.Conv2d(3, 4, 3)
    adapted = tenfac.tucker_adapter(conv, 1)
    assert_type(adapted, nn.Conv2d)
    report = tenfac.adapt(nn.Sequential(nn.Linear(8, 8)), "0", 1)
    tenfac.merge(conv)
    assert_equal((adapted is conv, "Linear" in str(report)), (True, True))


def test_data_files_and_figures(tmp_path: Path) -> None:
    data = tenfac.datasets.load_il2()
    assert_type(data, tenfac.datasets.Dataset)
    tenfac.save(tenfac.CP(None, [np.ones((2, 1))]), tmp_path / "x.tenfac")
    kept: tenfac.CP = tenfac.load(tmp_path / "x.tenfac")
    assert_equal(tenfac.plot.calibration.__name__, "calibration")
    assert_equal((kept.shape, len(data.shape)), ((2,), 4))


# --- what the checker is told -------------------------------------------------------------------------------


def told(stub: str) -> dict[str, str]:
    """Public names of a stub and the modules they come from."""
    return {
        name.name: str(node.module)
        for node in ast.parse(stub).body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
        if name.asname == name.name
    }


def test_checkers_are_told_the_public_names_and_their_homes() -> None:
    homes = {name: f"tenfac.{home}" for name, home in tenfac._HOME.items()}  # type: ignore[attr-defined]
    assert_equal(
        told(STUB.read_text(encoding="utf-8")), homes | dict.fromkeys(("datasets", "plot"), "tenfac")
    )


def mypy(*arguments: str) -> tuple[int, str]:
    run = subprocess.run(
        [sys.executable, "-m", "mypy", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    return run.returncode, run.stdout + run.stderr


@pytest.mark.slow
def test_mypy_finds_nothing_in_the_package_nor_in_its_use(tmp_path: Path) -> None:
    assert mypy("--cache-dir", str(tmp_path))[0] == 0
    own = ("--config-file", str(HERE / "mypy.ini"), "--cache-dir", str(tmp_path / "use"))
    assert mypy(*own, str(HERE / "test_usage.py"))[0] == 0
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import tenfac\nlen(tenfac.Discrete(3).size)\ntenfac.tuckr(1)\n", encoding="utf-8")
    status, said = mypy(*own, str(wrong))
    assert_equal((status, said.count("error:"), "tuckr" in said), (1, 2, True))
