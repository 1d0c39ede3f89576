"""Run parts of the benchmarks in processes of their own, where nothing has been allocated yet."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def in_a_process(function: str, *arguments: object) -> dict[str, Any]:
    """Call `module.name` of this folder in a new process; arguments are passed as they are written."""
    module = function.partition(".")[0]
    given = ", ".join(map(repr, arguments))
    program = f"import json, {module}; from cases import Case; print(json.dumps({function}({given})))"
    return json.loads(output_of(["-c", program]))


def output_of(arguments: list[str], **environment: str) -> str:
    """Run Python in this folder and return the last line that it prints; raises if it fails."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=Path(__file__).parent,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1]
