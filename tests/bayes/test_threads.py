"""Linear algebra of fits: on one thread, and its libraries are looked for once."""

from __future__ import annotations

import pytest
from threadpoolctl import ThreadpoolController, threadpool_info, threadpool_limits

from tenfac import FunctionalTucker
from tenfac.bayes import threads
from tenfac.bayes.threads import one_thread
from tests.bayes.toys import smooth_table
from tests.checks import assert_equal


def in_use() -> set[int]:
    """Threads of the linear algebra libraries of numpy and scipy."""
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return {pool["num_threads"] for pool in pools}


def test_inside_there_is_one_thread_and_afterwards_as_many_as_before() -> None:
    with threadpool_limits(limits=2, user_api="blas"):
        with one_thread():
            assert_equal(in_use(), {1})
            with one_thread():
                assert_equal(in_use(), {1})
            assert_equal(in_use(), {1})
        assert_equal(in_use(), {2})


def test_fits_look_for_the_libraries_once(monkeypatch: pytest.MonkeyPatch) -> None:
    searches, start = [], ThreadpoolController.__init__
    monkeypatch.setattr(ThreadpoolController, "__init__", lambda self: searches.append(1) or start(self))
    threads._libraries.cache_clear()
    X, y = smooth_table((4, 12), (0,), 40)
    for _ in range(2):
        model = FunctionalTucker(discrete=[0], max_iter=0).fit(X, y)
        model.predict(X, return_std=True)
    assert_equal(len(searches), 1)
