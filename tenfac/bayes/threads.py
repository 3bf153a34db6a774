"""Linear algebra of small matrices on one thread: more of them cost more than they give."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import scipy.linalg  # noqa: F401 (loads the libraries that are looked for)
from threadpoolctl import ThreadpoolController


@cache
def _libraries() -> ThreadpoolController:
    """The linear algebra of numpy and scipy, looked for once.

    The search reads a list of every file that the process has loaded: milliseconds, as long as a small fit.
    """
    return ThreadpoolController()


def one_thread() -> AbstractContextManager[Any]:
    """Keep numpy and scipy on one thread inside a ``with``, as many as before after it.

    Returns
    -------
    context manager

    Examples
    --------
    >>> with one_thread():
    ...     sum(range(3))
    3
    """
    return _libraries().limit(limits=1, user_api="blas")
