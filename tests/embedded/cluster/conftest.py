"""Waiting for a condition, and a cluster of its own for tests that break it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from embedded import cluster as embedded
from embedded import preflight
from embedded.home import LocalHome

T = TypeVar("T")
Eventually = Callable[..., object]


@pytest.fixture(scope="session")
def eventually() -> Eventually:
    """eventually(probe, seconds=30): what `probe` answers once that is neither None nor False."""

    def wait(probe: Callable[[], T | None], seconds: float = 30.0) -> T:
        deadline = time.monotonic() + seconds
        while True:
            if answer := probe():
                return answer
            assert time.monotonic() < deadline, f"did not happen within {seconds:.0f} s; last answer: {answer!r}"
            time.sleep(0.1)

    return wait


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHome]:
    """The home of a second cluster, which a test may kill, stop and start as it likes."""
    if (why_not := preflight.refusal()) is not None:
        pytest.skip(why_not)
    home = LocalHome(tmp_path_factory.mktemp("mortal"))
    try:
        embedded.start(home)
        yield home
    finally:
        embedded.stop(home, purge=True)
