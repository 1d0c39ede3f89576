"""What tests of the engine share."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def quick_collection() -> Iterator[None]:
    """Let the collector pass over what other tests have left: it runs after every shortage of memory."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
