"""`python -m samfit` is `samfit`."""

import sys

from samfit.cli import main

sys.exit(main())
