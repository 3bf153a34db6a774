"""A GPyTorch kernel of one index as a process in state-space form."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

from tenfac.core.arrays import to_number
from tenfac.core.errors import DataError, MissingExtraError
from tenfac.core.modes.process import Process, Product, Scaled, Sum
from tenfac.core.modes.state_space import StateSpace
from tenfac.core.modes.still import Constant, Linear, Periodic

_MATERN = {0.5: "matern12", 1.5: "matern32", 2.5: "matern52"}


def from_gpytorch(kernel: Any, *, gradient: bool = False) -> Process:
    """Turn a GPyTorch kernel into a process with the same covariance.

    Parameters
    ----------
    kernel : gpytorch.kernels.Kernel
        Matérn, periodic, constant or linear kernels of one index, scaled, added and multiplied.
    gradient : bool
        True keeps the hyperparameters as tensors that reach the kernel's parameters in a gradient, for
        sites in torch; False reads them as numbers.

    Returns
    -------
    Process

    Raises
    ------
    DataError
        If the kernel has no such form here: another kind, several indices, a batch.
    MissingExtraError
        If GPyTorch is not installed.

    Notes
    -----
    GPyTorch's periodic lengthscale is the square of the usual one, which is used here.
    """
    try:
        from gpytorch import kernels
    except ImportError as error:
        raise MissingExtraError(
            "from_gpytorch needs GPyTorch. Install it with: pip install 'tenfac[bayes]'"
        ) from error

    def number(parameter: Any, name: str) -> Any:
        if parameter.numel() != 1:
            raise DataError(
                f"from_gpytorch: `{name}` must be one number, for one index without a batch; got shape "
                f"{tuple(parameter.shape)}. Select one kernel of the batch, or one index."
            )
        return parameter.reshape(()) if gradient else to_number(parameter)

    return _convert(kernel, kernels, number)


def is_gpytorch(kernel: Any) -> bool:
    """Whether an object is a GPyTorch kernel; does not import GPyTorch."""
    return any(base.__module__.startswith("gpytorch.kernels") for base in type(kernel).__mro__)


def matern_of(kernel: Any, mode: str) -> tuple[str, float | None]:
    """Name of a Matérn kernel (or a scaled one), and its lengthscale if somebody set it.

    Raises
    ------
    DataError
        If it is another kernel: ``FunctionalTucker`` integrates Matérn processes out along a line.
    """
    from gpytorch import kernels

    while isinstance(kernel, kernels.ScaleKernel):  # how far a mode varies is learned
        kernel = kernel.base_kernel
    if type(kernel) is not kernels.MaternKernel or kernel.nu not in _MATERN:
        nu = f" with nu={kernel.nu}" if hasattr(kernel, "nu") else ""
        raise DataError(
            f"FunctionalTucker: the kernel of mode {mode!r} must be a MaternKernel (nu 0.5, 1.5, 2.5); got "
            f"{type(kernel).__name__}{nu}. Take one of these; filter_smooth takes the sums and products that "
            "from_gpytorch knows, and pyro_model(..., kernels={mode: kernel}) takes any kernel."
        )
    process: Any = from_gpytorch(kernel)
    untouched = not float(kernel.raw_lengthscale.detach().abs().sum())
    return process.kernel, None if untouched else float(process.lengthscale)


def _convert(kernel: Any, kernels: Any, number: Callable[[Any, str], Any]) -> Process:
    if getattr(kernel, "active_dims", None) is not None:
        raise DataError(
            f"from_gpytorch: a kernel must be of one index; got active_dims={kernel.active_dims.tolist()}. "
            "Build it without active_dims."
        )
    if isinstance(kernel, kernels.ScaleKernel):
        return Scaled(
            _convert(kernel.base_kernel, kernels, number), number(kernel.outputscale, "outputscale")
        )
    if isinstance(kernel, (kernels.AdditiveKernel, kernels.ProductKernel)):
        parts = tuple(_convert(part, kernels, number) for part in kernel.kernels)
        return Sum(parts) if isinstance(kernel, kernels.AdditiveKernel) else Product(parts)
    if type(kernel) is kernels.MaternKernel and kernel.nu in _MATERN:
        return StateSpace(_MATERN[kernel.nu], number(kernel.lengthscale, "lengthscale"))
    if type(kernel) is kernels.PeriodicKernel:
        squared, period = (
            number(kernel.lengthscale, "lengthscale"),
            number(kernel.period_length, "period_length"),
        )
        return Periodic(period, sqrt(squared) if isinstance(squared, float) else squared.sqrt())
    if type(kernel) is kernels.LinearKernel:
        return Linear(number(kernel.variance, "variance"))
    if type(kernel) is getattr(kernels, "ConstantKernel", None):
        return Constant(number(kernel.constant, "constant"))
    raise DataError(
        "from_gpytorch: a kernel must be MaternKernel (nu 0.5, 1.5, 2.5), PeriodicKernel, LinearKernel, "
        f"ConstantKernel, or a scale, sum or product of these; got {type(kernel).__name__}"
        f"{f' with nu={kernel.nu}' if hasattr(kernel, 'nu') else ''}. Approximate it by one of them."
    )
