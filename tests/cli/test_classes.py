"""Several classes at once through the command line: five, for which masks are added, and two."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from cli_support import TINY, refuse, succeed
from PIL import Image
from safetensors.torch import load_file

GREYS = {"skin": 50, "hair": 100, "mole": 150, "vein": 200, "scar": 250}
"""Five classes in one mask, side by side."""
FLAGS = (*TINY, "--epochs", "1", "--validation-fraction", "0.4")
WIDTH, HEIGHT = 60, 40


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def noise(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def area(left: int, right: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[5:35, left:right] = True
    return mask


@pytest.fixture(scope="module")
def tissues(tmp_path_factory) -> Path:
    """A data set with a grey value for each of five classes."""
    folder = tmp_path_factory.mktemp("tissues")
    for split, count in (("train", 5), ("test", 3)):
        for number in range(count):
            mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
            for place, grey in enumerate(GREYS.values()):
                mask[area(10 * place + 2, 10 * place + 9 + number)] = grey
            save(folder / split / f"images/{number}.png", noise(number))
            save(folder / split / f"masks/{number}.png", mask)
    return folder


@pytest.fixture(scope="module")
def run_of_five(tissues) -> Path:
    values = ",".join(f"{name}={grey}" for name, grey in GREYS.items())
    flags = ("--mask-values", values, "--prompt", "box")
    succeed("train", "--data", tissues, "--output", tissues / "run", *FLAGS, *flags)
    return tissues / "run"


@pytest.fixture(scope="module")
def eyes(tmp_path_factory) -> Path:
    """A data set with a disc and a cup inside it; the last image of each split has no cup."""
    folder = tmp_path_factory.mktemp("eyes")
    for split, count in (("train", 5), ("test", 3)):
        for number in range(count):
            save(folder / split / f"images/{number}.png", noise(number))
            save(folder / split / f"masks/disc/{number}.png", area(5, 55))
            cup = area(20, 40) if number < count - 1 else area(0, 0)
            save(folder / split / f"masks/cup/{number}.png", cup)
    return folder


@pytest.fixture(scope="module")
def run_of_cups(eyes) -> Path:
    flags = ("--classes", "disc,cup", "--prompt", "click", "--prompt-class", "cup")
    succeed("train", "--data", eyes, "--output", eyes / "run", *FLAGS, *flags)
    return eyes / "run"


def evaluated(run: Path, *flags: str) -> tuple[dict, list[dict[str, str]], list[str]]:
    """Return the summary, the rows of per_image.csv and the lines printed."""
    out = succeed("evaluate", run, "--accelerator", "cpu", *flags).out
    with (run / "evaluation/per_image.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return json.loads((run / "evaluation/summary.json").read_text()), rows, out.splitlines()


@pytest.mark.parametrize("run", ["run_of_five", "run_of_cups"])
def test_each_epoch_has_the_scores_of_each_class(run, request):
    run = request.getfixturevalue(run)
    classes = list(GREYS) if run.parent.name.startswith("tissues") else ["disc", "cup"]
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        [row] = csv.DictReader(file)
    summary = json.loads((run / "summary.json").read_text())
    for score in ("dice", "iou"):
        mean = float(row[f"validation_{score}"])
        assert mean == pytest.approx(np.mean([float(row[f"validation_{score}_{name}"]) for name in classes]))
        assert summary["validation"][score] == mean
        for name in classes:
            assert summary["validation"][f"{score}_{name}"] == float(row[f"validation_{score}_{name}"])


def test_five_classes_are_trained_as_five_masks_beside_the_single_answer(run_of_five):
    state = load_file(run_of_five / "adapter.safetensors")
    [tokens] = [tensor for name, tensor in state.items() if name.endswith("mask_tokens.weight")]
    assert len(tokens) == 6
    assert len({tuple(token.tolist()) for token in tokens}) == 6, "copies have moved apart"


def test_each_of_five_classes_is_scored(run_of_five):
    summary, rows, lines = evaluated(run_of_five)
    assert list(summary["per_class"]) == list(GREYS)
    for score in ("dice", "iou"):
        for name in GREYS:
            own = [float(row[score]) for row in rows if row["class"] == name]
            assert len(own) == 3
            assert summary["per_class"][name][score]["mean"] == pytest.approx(np.mean(own), abs=1e-6)
        mean = np.mean([summary["per_class"][name][score]["mean"] for name in GREYS])
        assert summary["metrics"][score]["mean"] == pytest.approx(mean)
    shown = dict(re.findall(r"Dice, (\w+) +adapted +(\S+)", "\n".join(lines)))
    assert shown == {name: f"{summary['per_class'][name]['dice']['mean']:.4f}" for name in GREYS}


def test_each_of_five_classes_is_predicted(run_of_five, tissues, tmp_path):
    (tmp_path / "boxes.csv").write_text("image,x1,y1,x2,y2\n0.png,2,5,50,34\n")
    images = tissues / "test/images/0.png"
    flags = ("--prompts", tmp_path / "boxes.csv", "--output", tmp_path / "masks", "--overlay")
    succeed("predict", run_of_five, images, "--accelerator", "cpu", *flags)
    written = sorted(path.name for path in (tmp_path / "masks").iterdir())
    assert written == sorted([*(f"0_{name}.png" for name in GREYS), "0_overlay.png"])
    for name in GREYS:
        with Image.open(tmp_path / f"masks/0_{name}.png") as mask:
            assert mask.size == (WIDTH, HEIGHT)
            assert set(np.unique(np.asarray(mask))) <= {0, 255}


def test_a_prompt_of_one_class_is_that_of_the_run_and_is_said(run_of_cups):
    summary, rows, lines = evaluated(run_of_cups)
    assert (summary["prompt"], summary["prompt_class"]) == ("click", "cup")
    assert [line for line in lines if line.startswith("default   click of cup (truth)  Dice   ")]
    assert summary["empty_targets"] == 1
    [empty] = [row for row in rows if row["empty_target"] == "1"]
    assert (empty["image"], empty["class"]) == ("2", "cup")
    other, *_ = evaluated(run_of_cups, "--prompt-class", "disc")
    assert other["prompt_class"] == "disc"
    whole, _, lines = evaluated(run_of_cups, "--prompt", "full-box")
    assert (whole["prompt"], whole["prompt_class"]) == ("full-box", None)
    assert [line for line in lines if line.startswith("default   full-box  Dice   ")]


def test_an_unknown_class_of_the_prompt_is_refused_with_the_classes_that_there_are(eyes, run_of_cups):
    said = "--prompt-class disk: unknown class 'disk'; did you mean 'disc'? (known: disc, cup)"
    assert said in refuse("evaluate", run_of_cups, "--prompt-class", "disk")
    said = said.replace("disc, cup", "cup, disc")  # as the folders are sorted
    wrong = ("--prompt", "box", "--prompt-class", "disk")
    assert said in refuse("train", "--data", eyes, "--output", eyes / "no", *FLAGS, *wrong)
    assert not (eyes / "no").exists()
