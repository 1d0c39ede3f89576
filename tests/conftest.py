"""Fixtures and settings that every test shares."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

# Two test processes share two cores; threads that wait for each other cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nothing may be fetched while tests run.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# No test may depend on how busy the machine is.
settings.register_profile("samfit", deadline=None)
settings.load_profile("samfit")


@pytest.fixture(scope="session", autouse=True)
def _own_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep nothing of a test in the user's cache folder, and read nothing from there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMFIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _own_messages() -> Iterator[None]:
    """Let no test depend on what those before it have set."""
    from cli_support import logger_as_it_was

    with logger_as_it_was():
        yield
