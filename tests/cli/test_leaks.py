"""What is trained on is not scored: `train` warns of copies, `--group` keeps a patient's images together."""

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cli_support import TINY, refuse, samfit, succeed
from PIL import Image

from samfit.config import read_config
from samfit.data.drawn import draw_lesion
from samfit.data.fingerprint import fingerprint, hashes_of
from samfit.data.sources import find_samples
from samfit.data.splits import hold_out
from samfit.metrics.intervals import bootstrap_interval
from samfit.settings import TrainSettings

TRAINING = ("anna_1", "anna_2", "ben_1", "carl_1", "carl_2", "dora_1", "dora_2", "dora_3")
TEST = ("emil_1", "emil_2", "emil_3", "fay_1", "gil_1", "hal_1", "ida_1", "jan_1")
PATIENT = "^([a-z]+)_"


def draw(folder: Path, name: str, seed: int) -> None:
    image, mask = draw_lesion(np.random.default_rng([3, seed]), 96, 72)
    for kind, pixels in (("images", image), ("masks", mask.astype(np.uint8) * 255)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / kind / f"{name}.png")


def draw_set(folder: Path) -> Path:
    for split, names in (("train", TRAINING), ("test", TEST)):
        for number, name in enumerate(names):
            draw(folder / split, name, number + 100 * len(split))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return draw_set(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    """A run whose validation images are those of whole patients."""
    run = tmp_path_factory.mktemp("run") / "run"
    train(data, run, "--group", PATIENT, "--validation-fraction", "0.4")
    return run


def train(data: Path, run: Path, *flags: str) -> list[str]:
    """Train for one step and return the warnings, but for that of random weights."""
    said = succeed("train", "--data", data, "--output", run, *TINY, "--max-steps", "1", *flags).err
    return [line for line in said.splitlines() if "warning: " in line and "random base" not in line]


def evaluate(run: Path, *flags: object) -> dict:
    return json.loads(succeed("--quiet", "evaluate", run, "--json", "--accelerator", "cpu", *flags).out)


def rows(run: Path) -> dict[str, float]:
    """Return the Dice of each image of the last evaluation."""
    with (run / "evaluation/per_image.csv").open(encoding="utf-8", newline="") as file:
        return {row["image"]: float(row["dice"]) for row in csv.DictReader(file)}


def patient(image: str) -> str:
    return image.partition("_")[0]


def test_training_names_both_files_of_a_photograph_that_was_rescaled_and_saved_again_for_the_test(tmp_path):
    data = draw_set(tmp_path / "data")
    with (
        Image.open(data / "train/images/ben_1.png") as image,
        Image.open(data / "train/masks/ben_1.png") as mask,
    ):
        image.resize((67, 50)).save(data / "test/images/planted.jpg", quality=70)
        mask.resize((67, 50), Image.Resampling.NEAREST).save(data / "test/masks/planted.png")
    (warning,) = train(data, tmp_path / "run")
    assert warning.startswith("samfit: warning: ")
    for words in (
        data / "train/images/ben_1.png",
        data / "test/images/planted.jpg",
        "scores would be too good",
    ):
        assert str(words) in warning


def planted(folder: Path, *, held_back: bool) -> tuple[Path, str]:
    """Return a data set with a copy in `train` of an image there, and the name of the copy.

    `held_back`: whether one of the two is held back for validation, and the other is not.
    """
    data = draw_set(folder)
    samples = find_samples("folder", data).samples
    original = next(sample for sample in samples if sample.id == "ben_1")
    fraction = TrainSettings.model_fields["validation_fraction"].default

    def torn(name: str) -> bool:
        copy = replace(original, id=name, image=data / name)
        _, held = hold_out([*samples, copy], fraction, TrainSettings.model_fields["seed"].default)
        return (copy in held) != (original in held)

    name = next(name for name in map("copy{}".format, range(50)) if torn(name) == held_back)
    with Image.open(data / "train/images/ben_1.png") as image:
        image.resize((67, 50)).save(data / f"train/images/{name}.jpg", quality=70)
    with Image.open(data / "train/masks/ben_1.png") as mask:
        mask.resize((67, 50), Image.Resampling.NEAREST).save(data / f"train/masks/{name}.png")
    return data, name


def test_training_names_both_files_of_a_photograph_that_is_trained_on_and_chooses_the_epoch(tmp_path):
    data, name = planted(tmp_path / "data", held_back=True)
    (warning,) = train(data, tmp_path / "run")
    for words in (data / "train/images/ben_1.png", data / f"train/images/{name}.jpg", "in validation"):
        assert str(words) in warning
    assert "scores would be too good" in warning


def test_a_photograph_that_is_trained_on_twice_is_a_note_and_no_warning(tmp_path):
    data, name = planted(tmp_path / "data", held_back=False)
    said = succeed("train", "--data", data, "--output", tmp_path / "run", *TINY, "--max-steps", "1").err
    (note,) = [line for line in said.splitlines() if f"{name}.jpg" in line]
    assert "twice in train" in note
    assert "warning" not in note


def test_training_on_a_sound_set_says_nothing_of_copies_and_groups(data, tmp_path):
    assert train(data, tmp_path / "run", "--group", PATIENT) == []


def test_training_names_groups_that_are_trained_on_and_tested(data, tmp_path):
    (warning,) = train(data, tmp_path / "run", "--group", r"_(\d)$")
    assert "3 of 3 groups lie in several splits: 1 (" in warning


def test_validation_images_are_those_of_whole_patients(run, data):
    summary = evaluate(run, "--split", "validation")
    held = Counter(map(patient, rows(run)))
    assert 0 < sum(held.values()) == summary["images"] <= 0.4 * len(TRAINING)
    everything = Counter(map(patient, TRAINING))
    assert all(count == everything[name] for name, count in held.items())
    assert summary["groups"] == len(held)
    assert evaluate(run, "--split", "train")["images"] == len(TRAINING) - summary["images"]
    assert {patient(image) for image in rows(run)}.isdisjoint(held)


def test_intervals_are_over_patients_and_the_summary_says_so(run):
    summary = evaluate(run)
    scores = rows(run)
    expected = bootstrap_interval(list(scores.values()), groups=[patient(image) for image in scores])
    dice = summary["metrics"]["dice"]
    assert (dice["low"], dice["high"]) == pytest.approx((expected.low, expected.high), abs=1e-5)
    assert dice["low"] < dice["mean"] < dice["high"]
    assert summary["groups"] == 6
    assert summary["intervals"] == "BCa bootstrap over groups of images, 95 %"
    out = samfit("evaluate", run, "--accelerator", "cpu").out
    assert "8 images of the test split in 6 groups" in out
    assert "no intervals" not in out
    few = samfit("evaluate", run, "--accelerator", "cpu", "--group", r"_(\d)$").out
    assert "no intervals: they take 6 groups at least, " in few


def test_an_evaluation_may_name_other_groups_and_scores_the_same_images(run):
    for split in ("test", "validation"):
        before = evaluate(run, "--split", split)
        images = rows(run)
        after = evaluate(run, "--split", split, "--group", "^(.)")
        assert rows(run) == images
        assert after["metrics"]["dice"]["mean"] == before["metrics"]["dice"]["mean"]
    assert evaluate(run, "--group", r"^(.*)$")["groups"] == len(TEST)


def test_other_data_have_the_groups_that_are_named_for_them_or_none(run, tmp_path):
    other = tmp_path / "other"
    for number, name in enumerate("abc"):
        draw(other / "test", f"{name}7", number)
    summary = evaluate(run, "--data", other)
    assert (summary["groups"], summary["intervals"]) == (None, "BCa bootstrap over images, 95 %")
    assert evaluate(run, "--data", other, "--group", r"(\d)")["groups"] == 1
    assert "test/images/b7.png" in refuse("evaluate", run, "--data", other, "--group", "^([ac])")


def test_an_image_without_a_group_is_refused_before_anything_is_written(data, tmp_path):
    run = tmp_path / "run"
    message = refuse("train", "--data", data, "--output", run, *TINY, "--group", "^(anna|ben|carl)_")
    assert str(data / "train/images/dora_1.png") in message
    assert not run.exists()


def test_the_run_remembers_where_its_table_of_groups_lies(data, tmp_path, monkeypatch):
    lines = [f"{name},{patient(name)}" for name in (*TRAINING, *TEST)]
    (tmp_path / "patients.csv").write_text("\n".join(["image,group", *lines]))
    monkeypatch.chdir(tmp_path)
    train(data, tmp_path / "run", "--group", "patients.csv")
    monkeypatch.chdir("/")
    assert read_config(tmp_path / "run/config.yaml")["group"] == str(tmp_path / "patients.csv")
    assert evaluate(tmp_path / "run")["groups"] == 6


def test_other_groups_are_other_data_to_a_run_that_is_resumed(data):
    samples = find_samples("folder", data).samples
    hashes = hashes_of(samples)
    grouped = find_samples("folder", data, group=PATIENT).samples
    moved = [replace(grouped[0], group="ben"), *grouped[1:]]
    assert len({fingerprint(some, hashes) for some in (samples, grouped, moved)}) == 3
