"""`samfit evaluate` on a small run: what it writes, on which images, and that the numbers are right."""

import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from cli_support import TEST, TRAINING, content, drawn_data, finished_run, refuse, succeed, train, unchanged
from PIL import Image

from samfit.backbones import load_backbone
from samfit.data.drawn import draw_lesion
from samfit.metrics import METRICS
from samfit.metrics.protocols import DEFAULT
from samfit.types import BOTTOM_RIGHT, TOP_LEFT, Prompts

HELD_OUT = round(0.3 * TRAINING)
TEST_DATA = "ISBI2016_ISIC_Part1_Test"


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return drawn_data(tmp_path_factory)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of this module's own, because every evaluation writes into it."""
    copy = tmp_path_factory.mktemp("evaluated") / "run"
    return Path(shutil.copytree(finished_run(tmp_path_factory), copy))


def evaluate(run: Path, *flags: object) -> dict:
    """Evaluate and return the summary."""
    succeed("--quiet", "evaluate", run, "--accelerator", "cpu", *flags)
    return json.loads((run / "evaluation/summary.json").read_text(encoding="utf-8"))


def per_image(run: Path) -> list[dict[str, str]]:
    with (run / "evaluation/per_image.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def means(rows: list[dict[str, str]], column: str) -> float:
    return float(np.mean([float(row[column]) for row in rows]))


def test_the_summary_says_what_was_scored_and_how(run):
    summary = evaluate(run)
    assert {"protocol", "split", "images", "metrics", "per_class", "unadapted"} <= summary.keys()
    assert (summary["protocol"], summary["split"], summary["images"]) == ("default", "test", TEST)
    assert summary["protocol_description"] == DEFAULT.describe()
    assert (summary["departures"], summary["other_protocols"]) == ([], {})
    assert summary["checkpoint_chosen_on"] == "validation"
    assert (summary["prompt"], summary["prompt_from_truth"]) == ("full-box", False)
    assert list(summary["per_class"]) == ["lesion"]
    assert summary["per_class"]["lesion"] == summary["metrics"]
    for metrics in (summary["metrics"], summary["unadapted"]["metrics"]):
        assert list(metrics) == ["dice", "iou"]
        for score in metrics.values():
            assert 0 <= score["low"] <= score["mean"] <= score["high"] <= 1
    gain = summary["metrics"]["dice"]["mean"] - summary["unadapted"]["metrics"]["dice"]["mean"]
    assert gain > 0.2
    difference = summary["difference"]["metrics"]["dice"]
    assert difference["mean"] == pytest.approx(gain)
    assert 0 < difference["low"] < gain < difference["high"]
    assert difference["verdict"] == "better"


def test_the_means_of_the_rows_are_those_of_the_summary(run):
    summary, rows = evaluate(run), per_image(run)
    assert [row["image"] for row in rows] == [f"drawn_{TRAINING + n:04d}" for n in range(TEST)]
    for name in ("dice", "iou"):
        assert means(rows, name) == pytest.approx(summary["metrics"][name]["mean"], abs=1e-6)
        base = summary["unadapted"]["metrics"][name]["mean"]
        assert means(rows, f"unadapted_{name}") == pytest.approx(base, abs=1e-6)


def test_overlays_show_the_worst_images_first_and_replace_older_ones(run):
    evaluate(run)
    folder = run / "evaluation/overlays"
    ranked = [row["image"] for row in sorted(per_image(run), key=lambda row: float(row["dice"]))]
    expected = [f"{number:02d}_{name}.png" for number, name in enumerate(ranked, 1)]
    assert sorted(path.name for path in folder.iterdir()) == expected
    evaluate(run, "--overlays", 2)
    assert sorted(path.name for path in folder.iterdir()) == expected[:2]
    with Image.open(folder / expected[0]) as picture:
        assert picture.size[0] >= 96
        assert picture.size[1] > 72  # the caption names the protocol
    evaluate(run, "--overlays", 0)
    assert list(folder.iterdir()) == []


def test_json_on_stdout_is_the_summary(run):
    answer = succeed("evaluate", run, "--accelerator", "cpu", "--json")
    written = (run / "evaluation/summary.json").read_text(encoding="utf-8")
    assert json.loads(answer.out) == json.loads(written)


def test_the_table_shows_the_means_of_the_summary(run):
    answer = succeed("evaluate", run, "--accelerator", "cpu")
    summary = json.loads((run / "evaluation/summary.json").read_text(encoding="utf-8"))
    adapted, base, difference = [line.split() for line in answer.out.splitlines()[1:4]]
    assert adapted[:5] == [
        "default",
        "full-box",
        "Dice",
        "adapted",
        f"{summary['metrics']['dice']['mean']:.4f}",
    ]
    assert f"{summary['unadapted']['metrics']['dice']['mean']:.4f}" in base
    shown = summary["difference"]["metrics"]["dice"]
    assert difference[3:] == [
        "difference:",
        "better",
        f"+{shown['mean']:.4f}",
        f"+{shown['low']:.4f}",
        "to",
        f"+{shown['high']:.4f}",
    ]
    assert f"protocol default: {DEFAULT.describe()}" in answer.out


def test_several_protocols_are_all_written_and_shown_each_by_its_name(run):
    names = ["no-truth", "msa-guide", "istd"]
    summary = evaluate(run, "--protocol", ",".join(names))
    others = summary["other_protocols"]
    assert [summary["protocol"], *others] == names
    assert all(other["protocol"] == name for name, other in others.items())
    assert [summary["prompt"], *(other["prompt"] for other in others.values())] == [
        "full-box",
        "click",
        "full-box",
    ]
    assert (summary["scored_size"], others["msa-guide"]["scored_size"]) == ("original", 256)
    rows = per_image(run)
    assert [row["protocol"] for row in rows] == [name for name in names for _ in range(TEST)]
    assert {(row["protocol"], row["prompt_from_truth"]) for row in rows} == {*zip(names, "010", strict=True)}
    for name, other in {"no-truth": summary, **others}.items():
        own = [row for row in rows if row["protocol"] == name]
        for metric, score in other["metrics"].items():
            assert means(own, metric) == pytest.approx(score["mean"], abs=1e-6)
            assert means(own, f"unadapted_{metric}") == pytest.approx(
                other["unadapted"]["metrics"][metric]["mean"], abs=1e-6
            )


def test_each_protocol_scores_as_it_does_alone(run):
    together = evaluate(run, "--protocol", "default,cad,msa-guide")["other_protocols"]
    for name in ("cad", "msa-guide"):
        alone = evaluate(run, "--protocol", name)
        assert {key: alone[key] for key in together[name]} == together[name]


def test_prompts_from_the_truth_are_marked_everywhere(run):
    answer = succeed("evaluate", run, "--accelerator", "cpu", "--protocol", "default,msa-guide")
    marked = [line for line in answer.out.splitlines() if "click (truth)" in line]
    assert len(marked) == 6
    assert all(line.startswith("msa-guide") for line in marked)
    assert "(truth): the prompt was taken from the truth" in answer.out
    summary = json.loads((run / "evaluation/summary.json").read_text(encoding="utf-8"))
    assert summary["prompt_from_truth"] is False
    assert summary["other_protocols"]["msa-guide"]["prompt_from_truth"] is True
    marks = {(row["protocol"], row["prompt_from_truth"]) for row in per_image(run)}
    assert marks == {("default", "0"), ("msa-guide", "1")}
    plain = succeed("evaluate", run, "--accelerator", "cpu")
    assert "truth)" not in plain.out.split("protocol default:")[0]


def test_what_the_run_does_otherwise_than_a_protocol_is_said(run):
    answer = succeed("evaluate", run, "--accelerator", "cpu", "--protocol", "msa-guide", "--split", "train")
    summary = json.loads((run / "evaluation/summary.json").read_text(encoding="utf-8"))
    assert summary["departures"] == [
        "trained with --prompt full-box, asked with click",
        "the run has --fit pad, published results of this protocol --fit squeeze",
        "the images that are scored were trained on: scores are too good",
    ]
    assert [line[7:] for line in answer.out.splitlines() if line.startswith("  but: ")] == summary[
        "departures"
    ]
    [said] = evaluate(run, "--split", "validation")["departures"]
    assert said == "the validation images that are scored chose the checkpoint: scores are too good"


def test_other_data_have_neither_trained_the_run_nor_chosen_its_checkpoint(run, tmp_path):
    other = as_folder(tmp_path, "train", "ab")
    as_folder(tmp_path, "validation", "c")
    for split in ("train", "validation"):
        summary = evaluate(run, "--data", other, "--dataset", "folder", "--split", split)
        assert (summary["split"], summary["departures"]) == (split, [])


def test_a_prompt_that_contradicts_a_protocol_is_refused_before_anything_is_written(run):
    with unchanged(run):
        message = refuse("evaluate", run, "--protocol", "default,cad", "--prompt", "box")
        assert (
            "--prompt box: the protocol cad asks with full-box; leave it out, or leave cad out of" in message
        )
        message = refuse("evaluate", run, "--protocol", "cod10")
        assert "--protocol cod10: unknown protocol 'cod10'; did you mean 'cod'?" in message


def test_camouflage_is_scored_by_its_own_metrics(run):
    pytest.importorskip("py_sod_metrics")
    summary = evaluate(run, "--protocol", "cod", "--overlays", 2)
    assert list(summary["metrics"]) == ["s_measure", "e_measure", "weighted_f", "mae"]
    difference = summary["difference"]["metrics"]
    assert {name: score["verdict"] for name, score in difference.items()} == dict.fromkeys(
        difference, "better"
    )
    assert difference["mae"]["mean"] < 0 < difference["s_measure"]["mean"]
    worst = sorted(per_image(run), key=lambda row: float(row["s_measure"]))[:2]
    expected = [f"{number:02d}_{row['image']}.png" for number, row in enumerate(worst, 1)]
    assert sorted(path.name for path in (run / "evaluation/overlays").iterdir()) == expected


def test_borders_are_scored_when_asked_in_the_unit_of_the_spacing(run):
    pytest.importorskip("monai")
    pixels = evaluate(run, "--surface", "--protocol", "default,cad")
    assert list(pixels["metrics"]) == ["dice", "iou", "hd95", "surface_dice"]
    assert list(pixels["other_protocols"]["cad"]["metrics"]) == ["dice", "iou"]
    halves = evaluate(run, "--surface", "--spacing", "0.5", "--tolerance", "0.5")
    assert halves["metrics"]["hd95"]["mean"] == pytest.approx(pixels["metrics"]["hd95"]["mean"] / 2)
    assert halves["metrics"]["surface_dice"] == pixels["metrics"]["surface_dice"]
    assert 0 < halves["metrics"]["hd95"]["mean"] < 60  # half the diagonal of 96 x 72 pixels


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--spacing", "0.5"), "--spacing 0.5,0.5: only --surface uses it; add --surface"),
        (("--tolerance", "2"), "--tolerance 2.0: only --surface uses it; add --surface"),
        (("--surface", "--protocol", "cad"), "--surface: borders are measured at the original size"),
        (("--surface", "--spacing", "0,1"), "--spacing 0,1: expected one distance above 0, or two"),
    ],
)
def test_borders_that_cannot_be_measured_are_refused(run, flags, words):
    with unchanged(run):
        assert words in refuse("evaluate", run, *flags)


def test_a_metric_whose_package_is_missing_is_refused_with_the_remedy(run, monkeypatch):
    monkeypatch.setattr("samfit.packages.find_spec", lambda name: None)
    with unchanged(run):
        assert "S-measure, E-measure, weighted F: not installed: py_sod_metrics" in refuse(
            "evaluate", run, "--protocol", "cod"
        )


def test_one_image_has_no_interval(run, tmp_path):
    other = as_folder(tmp_path, "test", "a")
    summary = evaluate(run, "--data", other, "--dataset", "folder")
    assert summary["metrics"]["dice"]["low"] is summary["metrics"]["dice"]["high"] is None
    assert summary["difference"]["metrics"]["dice"]["verdict"] == "tie"
    answer = succeed("evaluate", run, "--data", other, "--dataset", "folder", "--accelerator", "cpu")
    assert answer.out.splitlines()[1].split()[-1] == "–"
    assert "\nno intervals: they take 6 images at least, " in answer.out
    assert "no intervals" not in succeed("evaluate", run, "--accelerator", "cpu").out


def test_the_same_evaluation_gives_the_same_files(run):
    evaluate(run)
    with unchanged(run):
        evaluate(run)


def test_validation_scores_are_those_of_the_best_epoch(run):
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        best = max(csv.DictReader(file), key=lambda row: float(row["validation_dice"]))
    summary = evaluate(run, "--split", "validation")
    assert summary["images"] == HELD_OUT
    for name in ("dice", "iou"):
        assert summary["metrics"][name]["mean"] == pytest.approx(float(best[f"validation_{name}"]), abs=1e-6)


def test_training_validation_and_test_images_are_kept_apart(run):
    images = {}
    for split in ("train", "validation", "test"):
        evaluate(run, "--split", split)
        images[split] = {row["image"] for row in per_image(run)}
    assert [len(names) for names in images.values()] == [TRAINING - HELD_OUT, HELD_OUT, TEST]
    assert len(set.union(*images.values())) == TRAINING + TEST


def test_the_data_of_the_run_by_another_name_are_its_own(run, data, monkeypatch):
    monkeypatch.chdir(data.parent)
    assert evaluate(run, "--split", "validation", "--data", data.name)["images"] == HELD_OUT


def test_unadapted_is_what_a_fresh_backbone_gives(run, data):
    evaluate(run)
    backbone = load_backbone("sam-tiny", weights="random", image_size=64, seed=0)
    for row in per_image(run):
        image = np.asarray(Image.open(data / f"{TEST_DATA}_Data/{row['image']}.jpg"))
        truth = np.asarray(Image.open(data / f"{TEST_DATA}_GroundTruth/{row['image']}_Segmentation.png")) > 0
        box = torch.tensor([[[0.0, 0.0], [64.0, 48.0]]])  # 96 x 72 pixels in a frame of 64
        prompt = Prompts(box, torch.tensor([[TOP_LEFT, BOTTOM_RIGHT]]), has_box=True)
        with torch.no_grad():
            embedding = backbone.encode(backbone.frame.to_model(image)[None])
            low = backbone.decode(embedding, prompt).logits[:, :1]
        answer = backbone.frame.to_original(low, backbone.frame.geometry(72, 96))[0, 0].numpy() >= 0
        both, total = (answer & truth).sum(), answer.sum() + truth.sum()
        assert float(row["unadapted_dice"]) == pytest.approx(2 * both / total, abs=1e-6)
        assert float(row["unadapted_iou"]) == pytest.approx(both / (answer | truth).sum(), abs=1e-6)


def test_another_prompt_is_named_as_taken_from_the_truth(run):
    summary = evaluate(run, "--prompt", "box")
    assert (summary["prompt"], summary["prompt_from_truth"]) == ("box", True)
    message = refuse("evaluate", run, "--clicks", 2)
    assert "--clicks 2: only --prompt click uses it, and the prompt is full-box" in message


def as_folder(target: Path, split: str, names: str, *, empty: str = "", greys: bool = False) -> Path:
    """Draw a data set in the layout `folder`; the image `empty` has no lesion, `greys` marks its border."""
    for kind in ("images", "masks"):
        (target / split / kind).mkdir(parents=True, exist_ok=True)
    for name in names:
        image, mask = draw_lesion(np.random.default_rng([7, ord(name)]), 96, 72)
        values = mask.astype(np.uint8) * 255
        if greys:
            values[mask & (cv2.erode(mask.astype(np.uint8), np.ones((9, 9), np.uint8)) == 0)] = 128
        Image.fromarray(image).save(target / split / "images" / f"{name}.png")
        Image.fromarray(values * (name != empty)).save(target / split / "masks" / f"{name}.png")
    return target


def test_other_data_of_another_layout_are_scored_as_the_same_class(run, tmp_path):
    other = as_folder(tmp_path, "test", "abc")
    summary = evaluate(run, "--data", other, "--dataset", "folder")
    assert summary["images"] == 3
    assert list(summary["per_class"]) == ["lesion"]  # the layout calls its only class foreground
    assert summary["metrics"]["dice"]["mean"] > 0.4
    assert [row["image"] for row in per_image(run)] == ["a", "b", "c"]


LAYOUTS = {
    "cod10k": ("Test/Image/COD10K-CAM-1-{}.jpg", "Test/GT_Object/COD10K-CAM-1-{}.png", "cod"),
    "camo": ("Images/Test/camourflage_{}.jpg", "GT/camourflage_{}.png", "cod"),
    "istd": ("test/test_A/91-{}.png", "test/test_B/91-{}.png", "istd"),
}
"""Images and masks of the published data sets, and the protocol of each."""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_layouts_are_scored_by_their_protocols(run, tmp_path, layout):
    *names, protocol = LAYOUTS[layout]
    if protocol == "cod":
        pytest.importorskip("py_sod_metrics")
    for number in range(3):
        image, mask = draw_lesion(np.random.default_rng(number), 96, 72)
        for name, pixels in zip(names, (image, mask.astype(np.uint8) * 255), strict=True):
            path = tmp_path / name.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    summary = evaluate(run, "--data", tmp_path, "--dataset", layout, "--protocol", f"{protocol},no-truth")
    assert (summary["protocol"], summary["images"]) == (protocol, 3)
    best = {name: METRICS[name].best for name in summary["metrics"]}
    for name, score in summary["metrics"].items():
        assert (score["mean"] > 0.5) == (best[name] == "highest"), name


def test_classes_that_the_run_does_not_have_are_an_error(run, tmp_path):
    as_folder(tmp_path, "test", "a")
    for name in ("cell", "nucleus"):
        shutil.copytree(tmp_path / "test/masks", tmp_path / "both/test/masks" / name)
    shutil.copytree(tmp_path / "test/images", tmp_path / "both/test/images")
    message = refuse("evaluate", run, "--data", tmp_path / "both", "--dataset", "folder")
    assert f"{tmp_path / 'both'}: the run segments lesion, the data set has cell, nucleus" in message


def test_masks_without_foreground_are_counted(run, tmp_path):
    other = as_folder(tmp_path, "test", "abc", empty="b")
    summary = evaluate(run, "--data", other, "--dataset", "folder")
    assert summary["empty_targets"] == 1
    row = per_image(run)[1]
    assert (row["image"], row["empty_target"]) == ("b", "1")
    assert float(row["dice"]) == float(row["iou"]) == float(row["empty_prediction"])
    answer = succeed("evaluate", run, "--data", other, "--dataset", "folder")
    assert "masks without foreground: 1" in answer.out
    assert "b.png: no pixel is lesion" in answer.err


def test_a_split_that_is_not_there_is_answered_with_those_that_are(run, data, tmp_path):
    other = tmp_path / "data"
    shutil.copytree(data, other, ignore=shutil.ignore_patterns(f"{TEST_DATA}*"))
    with unchanged(run):
        message = refuse("evaluate", run, "--data", other)
    assert f"--split test: {other} has no such images; it has --split train\n" in message


def test_a_run_on_data_without_test_images_has_its_validation_images(data, tmp_path):
    own, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(data, own, ignore=shutil.ignore_patterns(f"{TEST_DATA}*"))
    train(own, run, "--epochs", "1", "--method", "decoder")
    assert "it has --split train, validation\n" in refuse("evaluate", run)
    assert not (run / "evaluation").exists()
    assert evaluate(run, "--split", "validation")["images"] == HELD_OUT


def test_two_classes_have_a_row_each(tmp_path):
    data, run = as_folder(tmp_path / "data", "train", "abcdef", greys=True), tmp_path / "run"
    as_folder(data, "test", "gh", greys=True)
    values = ("--dataset", "folder", "--mask-values", "border=128,core=255")
    train(data, run, "--epochs", "2", *values)
    summary = evaluate(run)
    rows = per_image(run)
    expected = [(image, name) for image in "gh" for name in ("border", "core")]
    assert [(row["image"], row["class"]) for row in rows] == expected
    for name, metrics in summary["per_class"].items():
        own = [row for row in rows if row["class"] == name]
        assert means(own, "dice") == pytest.approx(metrics["dice"]["mean"], abs=1e-6)
    assert means(rows, "iou") == pytest.approx(summary["metrics"]["iou"]["mean"], abs=1e-6)
    assert "Dice, border" in succeed("evaluate", run, "--accelerator", "cpu").out


def test_a_long_name_does_not_keep_its_overlay_from_being_written(run, tmp_path):
    other = as_folder(tmp_path, "test", "a")
    name = "ä" * 125  # 250 bytes
    for kind in ("images", "masks"):
        (other / "test" / kind / "a.png").rename(other / "test" / kind / f"{name}.png")
    evaluate(run, "--data", other, "--dataset", "folder")
    assert per_image(run)[0]["image"] == name
    assert list(content(run / "evaluation/overlays")) == [f"01_{'ä' * 60}.png"]
