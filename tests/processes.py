"""Processes in state-space form beside their covariance, written out densely."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tenfac.core.modes.oscillator import Oscillator
from tenfac.core.modes.process import Process
from tenfac.core.modes.state_space import StateSpace
from tenfac.core.modes.still import Constant, Linear, Periodic
from tests.oracles import matern_dense, swing_dense

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]


def matern(nu: float, lengthscale: float) -> Kernel:
    return lambda x, z: matern_dense(x, z, nu, lengthscale)


def periodic(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.exp(-2 * (np.sin(np.pi * (x[:, None] - z) / 3.0) / 0.9) ** 2)


def line(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    return 0.4 * (x[:, None] - 2.0) * (z - 2.0)


def swing(period: float, quality: float) -> Kernel:
    return lambda x, z: swing_dense(x, z, period, quality)


M12, M32, M52 = StateSpace("matern12", 1.3), StateSpace("matern32", 0.8), StateSpace("matern52", 2.1)
k12, k32, k52 = matern(0.5, 1.3), matern(1.5, 0.8), matern(2.5, 2.1)
PERIODIC, LINE = Periodic(3.0, 0.9), Linear(0.4, center=2.0)

CASES: dict[str, tuple[Process, Kernel]] = {
    "matern12": (M12, k12),
    "matern32": (M32, k32),
    "matern52": (M52, k52),
    "constant": (Constant(2.5), lambda x, z: np.full((x.size, z.size), 2.5)),
    "line": (LINE, line),
    "periodic": (PERIODIC, periodic),
    "oscillator": (Oscillator(2.0, 3.0), swing(2.0, 3.0)),
    "slack oscillator": (Oscillator(5.0, 0.6), swing(5.0, 0.6)),
    "scaled": (3.0 * M52, lambda x, z: 3 * k52(x, z)),
    "sum": (M12 + 2.0 * M52, lambda x, z: k12(x, z) + 2 * k52(x, z)),
    "product": (M52 * M32 * M12, lambda x, z: k52(x, z) * k32(x, z) * k12(x, z)),
    "quasi-periodic": (M32 * PERIODIC, lambda x, z: k32(x, z) * periodic(x, z)),
    "trend and season": (
        Constant(2.5) + LINE + 0.5 * PERIODIC + M52,
        lambda x, z: 2.5 + line(x, z) + 0.5 * periodic(x, z) + k52(x, z),
    ),
    "growing season": ((Constant(0.1) + LINE) * PERIODIC, lambda x, z: (0.1 + line(x, z)) * periodic(x, z)),
}
