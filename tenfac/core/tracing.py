"""What the transformations of JAX and torch need: formats as pytrees, and whether values are known yet."""

from __future__ import annotations

import sys
import threading
from time import perf_counter
from typing import Any

import numpy as np

_REGISTERED: set[tuple[str, type]] = set()
_LOCK = threading.Lock()


def is_traced(array: Any) -> bool:
    """Whether the values of an array cannot be read: under ``jit``, ``vmap``, ``grad`` or ``compile``.

    Branches on values, checks for NaN and reports in numbers are left out there.

    Examples
    --------
    >>> import numpy as np
    >>> is_traced(np.ones(2))
    False
    """
    if type(array) is np.ndarray:
        return False
    library = type(array).__module__.partition(".")[0]
    if library in ("jax", "jaxlib"):
        return isinstance(array, sys.modules["jax"].core.Tracer)
    if library == "torch":
        torch = sys.modules["torch"]
        return torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(array)
    return False


def clock(array: Any) -> float:
    """Seconds of ``perf_counter``; 0 where the values of an array are traced, and so is the time.

    Examples
    --------
    >>> import numpy as np
    >>> clock(np.ones(2)) > 0
    True
    """
    return 0.0 if is_traced(array) else perf_counter()


def constant(array: Any) -> Any:
    """Take an array out of the gradient.

    Examples
    --------
    >>> import numpy as np
    >>> constant(np.ones(2))
    array([1., 1.])
    """
    library = type(array).__module__.partition(".")[0]
    if library in ("jax", "jaxlib"):
        return sys.modules["jax"].lax.stop_gradient(array)
    return array.detach() if library == "torch" else array


def register_pytree(cls: type) -> None:
    """Make a format known to JAX and torch as a pytree, to each library once it is loaded.

    Leaves are the core (or weights) and the factors; the modes are static; the report is dropped. Neither
    library is imported here: a format calls this whenever one is made.

    Examples
    --------
    >>> from tenfac import Tucker
    >>> register_pytree(Tucker)
    """
    for library, register in _REGISTRARS.items():
        if library in sys.modules and (library, cls) not in _REGISTERED:
            with _LOCK:
                if (library, cls) not in _REGISTERED:
                    register(cls)
                    _REGISTERED.add((library, cls))


def _register_jax(cls: Any) -> None:
    from jax.tree_util import register_pytree_node

    register_pytree_node(cls, cls._flatten, lambda modes, leaves: cls._unflatten(leaves, modes))


def _register_torch(cls: Any) -> None:
    from torch.utils._pytree import register_pytree_node

    def flatten(value: Any) -> tuple[list[Any], Any]:
        leaves, modes = value._flatten()
        return list(leaves), modes

    register_pytree_node(cls, flatten, cls._unflatten, serialized_type_name=f"tenfac.{cls.__name__}")


_REGISTRARS = {"jax": _register_jax, "torch": _register_torch}
