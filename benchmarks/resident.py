"""Run samfit as its command line does, then print the most that the process held at once, in MB.

python benchmarks/resident.py train --data DIR ...
"""

import sys
from pathlib import Path

from samfit.cli import main


def resident_mb() -> float:
    """Return the most that this process held at once, as Linux counts it: shared libraries included.

    Unlike `getrusage` it does not begin with what the process held that started this one.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return round(int(line.split()[1]) * 1024 / 1e6, 1)


if __name__ == "__main__":
    failed = main()
    print(resident_mb())
    sys.exit(failed)
