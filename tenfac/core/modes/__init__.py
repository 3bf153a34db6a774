"""What an index of a format is, and the processes a ``GP`` mode and ``filter_smooth`` take as kernels."""

from tenfac.core.modes.chebyshev import Chebyshev
from tenfac.core.modes.discrete import Discrete
from tenfac.core.modes.gp import GP
from tenfac.core.modes.oscillator import Oscillator
from tenfac.core.modes.process import Product, Scaled, Sum
from tenfac.core.modes.state_space import StateSpace
from tenfac.core.modes.still import Constant, Linear, Periodic

__all__ = [
    "GP",
    "Chebyshev",
    "Constant",
    "Discrete",
    "Linear",
    "Oscillator",
    "Periodic",
    "Product",
    "Scaled",
    "StateSpace",
    "Sum",
]
