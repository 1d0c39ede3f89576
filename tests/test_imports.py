"""What a fresh process loads: help and tables come without torch and its companions, and quickly."""

import os
import resource
import subprocess
import sys

import pytest

import samfit
from samfit.cli import COMMANDS

HEAVY = ("torch", "transformers", "lightning_fabric", "lightning", "peft", "monai", "cv2")

REPORT = f"""
import sys
print("loaded:", *[name for name in {HEAVY} if name in sys.modules])
"""


def heavy_modules_after(code: str) -> set[str]:
    """Run `code` in a fresh interpreter and return which of the heavy modules it has loaded."""
    process = subprocess.run(
        [sys.executable, "-c", code + REPORT], capture_output=True, text=True, check=True, timeout=120
    )
    return set(process.stdout.splitlines()[-1].removeprefix("loaded:").split())


def command(*arguments: str) -> str:
    return f"from samfit.cli import main\nassert main({list(arguments)}) == 0\n"


@pytest.mark.parametrize(
    "code",
    [
        "import samfit\n",
        "from samfit import TrainSettings, METHODS, BACKBONES, SamfitError\n",
        command("--help"),
        command("--version"),
        *(command(name, "--help") for name in COMMANDS),
        *(
            command("list", name)
            for name in ("backbones", "methods", "datasets", "losses", "metrics", "protocols", "recipes")
        ),
    ],
)
def test_nothing_heavy_is_loaded(code):
    assert heavy_modules_after(code) == set()


def test_the_check_sees_what_is_loaded():
    assert "cv2" in heavy_modules_after("import cv2\n")


def seconds_of_processor(*arguments: str) -> float:
    """Return the least processor time of three runs: unlike the clock, it does not count other programs."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "samfit", *arguments], capture_output=True, check=True, timeout=60
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(seconds)


@pytest.mark.skipif(os.name == "nt", reason="no processor times of children")
@pytest.mark.parametrize("arguments", [("--help",), ("train", "--help")])
def test_help_takes_less_than_a_second(arguments):
    assert seconds_of_processor(*arguments) < 1


def test_the_public_names_are_exactly_these():
    assert sorted(samfit.__all__) == [
        "BACKBONES",
        "DataError",
        "DownloadError",
        "EvaluateSettings",
        "ExportSettings",
        "ImportSettings",
        "Interrupted",
        "METHODS",
        "MachineError",
        "MergeSettings",
        "PredictSettings",
        "RunError",
        "SamfitError",
        "SettingError",
        "StorageError",
        "TrainSettings",
        "UserError",
        "WeightsError",
        "__version__",
        "attach",
        "evaluate",
        "export",
        "fit",
        "import_checkpoint",
        "load_backbone",
        "load_run",
        "merge",
        "predict",
        "resume",
        "train",
    ]
    assert set(samfit.__all__) <= set(dir(samfit))


@pytest.mark.parametrize("name", samfit.__all__)
def test_every_public_name_resolves(name):
    assert getattr(samfit, name) is not None


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'samfit' has no attribute 'trane'"):
        _ = samfit.trane
