"""Completion in a shell: commands, flags, the words of flags and files, without loading torch."""

import os
import subprocess
import sys

import pytest

from samfit.backbones import BACKBONES
from samfit.cli import COMMANDS
from samfit.cli.listing import TABLES
from samfit.methods import METHODS

SEES = """
import sys
from samfit.cli import main
try:
    main()
finally:
    print("torch" if "torch" in sys.modules else "no torch", file=sys.stderr)
"""


def complete(*words: str) -> tuple[list[str], str]:
    """Return what bash is offered for the last of the words, each with its kind, and what stderr says."""
    environment = os.environ | {
        "_SAMFIT_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["samfit", *words]),
        "COMP_CWORD": str(len(words)),
    }
    process = subprocess.run(
        [sys.executable, "-c", SEES], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return process.stdout.split(), process.stderr.strip()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ([""], [f"plain,{name}" for name in COMMANDS]),
        (["tr"], ["plain,train"]),
        (["train", "--image-s"], ["plain,--image-size"]),
        (["train", "--method", ""], [f"plain,{name}" for name in METHODS]),
        (["train", "--backbone", "eff"], [f"plain,{name}" for name in BACKBONES if name.startswith("eff")]),
        (["evaluate", "run", "--split", "t"], ["plain,train", "plain,test"]),
        (["list", ""], [f"plain,{name}" for name in TABLES]),
        (["train", "--data", "les"], ["file,les"]),
        (["predict", "ru"], ["file,ru"]),
        (["train", "--epochs", ""], []),
    ],
    ids=" ".join,
)
def test_what_is_offered_and_that_torch_is_not_loaded(words, offered):
    assert complete(*words) == (offered, "no torch")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_script(shell):
    environment = os.environ | {"_SAMFIT_COMPLETE": f"{shell}_source"}
    process = subprocess.run(
        [sys.executable, "-m", "samfit"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 0
    assert "_SAMFIT_COMPLETE" in process.stdout
