"""Fixtures and settings that every test shares."""

import os
import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

# Two test processes share two cores; threads that wait for each other cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nothing may be fetched while tests run.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# No test may depend on how busy the machine is.
settings.register_profile("samfit", deadline=None)
settings.load_profile("samfit")
