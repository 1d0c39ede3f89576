"""The scenes and the scripts that made the weights of sam-tiny."""

import itertools
import json
import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import yaml
from support import ROOT

from samfit.backbones import BACKBONES, load_backbone
from samfit.backbones.download import fetch
from samfit.data.drawn import draw_lesions
from samfit.engine.stopping import StopRequest
from samfit.errors import SettingError
from samfit.types import BOTTOM_RIGHT, NOTHING, POSITIVE, TOP_LEFT

sys.path.insert(0, str(ROOT / "training"))
sys.path.insert(0, str(ROOT / "benchmarks"))

import adapt_sam_tiny
import canvas
import evaluate_sam_tiny
import objective
import pretrain_sam_tiny
import scenes
import scoring
import tables
import tiny_tables
from optimizers import Muon
from pretrain_sam_tiny import CHECKPOINT, COST, LOG, WEIGHTS, Plan, Pretraining

SHORT = Plan(steps=6, images=2, at_once=4, views=1, prompts=2, rate=1e-3, warmup=2, corrected=(0, 1.0))


@pytest.fixture(scope="module")
def drawn():
    return [scenes.draw_scene(7, number) for number in range(40)]


@pytest.fixture
def backbone():
    return load_backbone("sam-tiny", weights="random")


# Scenes


def test_a_scene_is_a_function_of_seed_and_number(drawn):
    again = scenes.draw_scene(7, 3)
    assert np.array_equal(again.image, drawn[3].image)
    assert np.array_equal(again.masks, drawn[3].masks)
    for other in (scenes.draw_scene(8, 3), drawn[4]):
        assert other.image.shape != again.image.shape or not np.array_equal(other.image, again.image)


def test_every_scene_has_masks_of_its_own_size_that_can_be_asked_for(drawn):
    for scene in drawn:
        assert scene.image.dtype == np.uint8
        assert max(scene.image.shape[:2]) == canvas.SIDE
        assert scene.masks.shape[1:] == scene.image.shape[:2]
        assert len(scene.masks) == len(scene.part_of) == len(scene.groups)
        assert scene.masks.sum(axis=(1, 2)).min() >= canvas.SMALLEST
        assert not all(scene.groups)


def test_a_part_lies_inside_its_whole_and_leaves_some_of_it(drawn):
    pairs = [
        (scene.masks[part], scene.masks[whole])
        for scene in drawn
        for part, whole in enumerate(scene.part_of)
        if whole >= 0
    ]
    assert len(pairs) > 20
    for part, whole in pairs:
        assert not (part & ~whole).any()
        assert part.sum() < whole.sum()


def test_a_group_holds_several_of_the_other_masks(drawn):
    groups = [(scene, mask) for scene in drawn for mask in scene.masks[np.array(scene.groups)]]
    assert len(groups) > 5
    for scene, mask in groups:
        single = scene.masks[~np.array(scene.groups)]
        inside = [one for one in single if not (one & ~mask).any()]
        assert len(inside) > 1
        assert np.array_equal(np.logical_or.reduce(inside), mask)


@pytest.mark.parametrize("family", scenes.FAMILIES)
def test_every_family_draws_things_to_ask_for(family):
    masks = []
    for number in range(8):
        picture = canvas.Canvas(np.random.default_rng(number), 96, 128)
        scenes.FAMILIES[family].draw(picture)
        scene = picture.scene()
        masks += [] if scene is None else list(scene.masks)
    assert len(masks) >= 6
    assert 0.002 < np.mean(masks) < 0.6


def test_the_shares_of_all_families_add_up_to_one():
    assert sum(family.share for family in scenes.FAMILIES.values()) == pytest.approx(1)


def test_a_later_thing_hides_what_lies_below_it():
    picture = canvas.Canvas(np.random.default_rng(0), 64, 64)
    square = np.zeros((64, 64), dtype=bool)
    square[10:40, 10:40] = True
    picture.keep(square)
    picture.keep(np.roll(square, 15, axis=0))
    first, second = picture.scene().masks
    assert not (first & second).any()
    assert first.sum() == 15 * 30


def test_a_part_takes_pixels_from_the_other_parts_and_not_from_its_whole():
    picture = canvas.Canvas(np.random.default_rng(0), 64, 64)
    square = np.zeros((64, 64), dtype=bool)
    square[10:40, 10:40] = True
    whole = picture.keep(square)
    picture.keep(square & (np.arange(64) < 30), part_of=whole)
    picture.keep(square & (np.arange(64) > 20), part_of=whole)
    masks = picture.scene().masks
    assert masks.sum(axis=(1, 2)).tolist() == [900, 30 * 11, 30 * 19]


# Questions


def test_a_question_asks_for_masks_with_clicks_and_boxes_on_them(backbone):
    question = objective.ask(3, 0, images=6, prompts=4)
    assert question.frame(backbone).shape == (6, 3, 128, 128)
    labels = {tuple(one) for one in question.prompts.labels.tolist()}
    assert labels == {(POSITIVE, NOTHING), (TOP_LEFT, BOTTOM_RIGHT)}
    for points, label, truth in zip(
        question.prompts.points, question.prompts.labels, question.truth, strict=True
    ):
        assert truth.any()
        if label[0] == POSITIVE:
            column, row = points[0].int().tolist()
            assert truth[row, column]
        else:
            rows, columns = np.nonzero(truth.numpy())
            corners = np.array([[columns.min(), rows.min()], [columns.max(), rows.max()]])
            assert np.abs(points.numpy() - corners).max() <= objective.LARGEST_JITTER * 128
    outside = ~question.valid.repeat_interleave(question.each, 0)
    assert not (question.truth & outside).any()


def test_a_click_alone_is_encoded_as_the_backbone_does_it_itself(backbone):
    question = objective.ask(3, 0, images=1, prompts=8)
    number = question.prompts.labels[:, 0].tolist().index(POSITIVE)
    asked = question.prompts.split(1)[number]
    alone = replace(asked, points=asked.points[:, :1], labels=asked.labels[:, :1], has_box=False)
    embedding = backbone.encode(question.frame(backbone))
    assert torch.equal(backbone.decode(embedding, asked).logits, backbone.decode(embedding, alone).logits)


def test_images_reach_the_model_as_samfit_brings_them_there(backbone):
    question = objective.ask(3, 0, images=4, prompts=1)
    for number, frame in enumerate(question.frame(backbone)):
        scene = scenes.draw_scene(3, number)
        torch.testing.assert_close(frame, backbone.frame.to_model(scene.image), atol=1e-5, rtol=0)


def test_the_eight_ways_to_turn_a_scene_differ_and_keep_its_masks_on_it(drawn):
    scene = next(scene for scene in drawn if len(set(scene.image.shape[:2])) == 2)
    seen = set()
    for way in range(8):
        shown = objective.turned(scene, way)
        seen.add(shown.image.tobytes() + bytes(shown.image.shape[:2]))
        assert sorted(shown.image[shown.masks[0]].tolist()) == sorted(scene.image[scene.masks[0]].tolist())
        assert shown.masks.shape[1:] == shown.image.shape[:2]
    assert len(seen) == 8
    assert np.array_equal(objective.turned(scene, 0).image, scene.image)


def test_a_scene_is_shown_in_as_many_steps_as_asked_for_and_then_never_again():
    def colours(step):
        """The pixels of a step's two images in no order, by which a scene is known however it is turned."""
        asked = objective.ask(3, step, images=2, prompts=1, views=2)
        return [sorted(image[valid].tolist()) for image, valid in zip(asked.images, asked.valid, strict=True)]

    first, apart = colours(4), objective.APART
    assert colours(4 + apart) == first
    others = [image for step in (3, 5, 4 + 2 * apart) for image in colours(step)]
    assert [image for image in others if image in first] == []


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_a_correction_clicks_on_the_pixel_that_its_chance_says(backbone, chance):
    question = objective.ask(3, 1, images=1, prompts=1)
    question = replace(question, chances=torch.full((1, 2), chance))
    answer = torch.full((1, 1, 64, 64), -5.0)
    prompts = objective.corrected(backbone, question.prompts, answer, question, 0)
    wrong = question.truth[0].nonzero()
    row, column = wrong[int(chance * len(wrong))].tolist()
    assert prompts.points[0, 0].tolist() == [column, row]


def test_corrections_click_where_the_answer_is_wrong(backbone):
    question = objective.ask(3, 1, images=2, prompts=2)
    answer = torch.full((4, 1, 64, 64), -5.0)
    answer[0] = 5.0  # everything: a negative click must come
    prompts = objective.corrected(backbone, question.prompts, answer, question, 0)
    assert prompts.labels[:, 0].tolist() == [0, 1, 1, 1]
    for index, (column, row) in enumerate(prompts.points[:, 0].int().tolist()):
        assert question.truth[index, row, column] == (index > 0)
    assert prompts.mask is answer


def test_losses_are_zero_for_a_sure_right_answer_and_know_no_padding():
    target = torch.zeros(1, 1, 8, 8)
    target[..., :4] = 1
    seen = torch.ones_like(target)
    seen[..., 4:, :] = 0
    right = 100 * (2 * target - 1)
    wrong_on_padding = torch.where(seen > 0, right, -right)
    for logits in (right, wrong_on_padding):
        assert objective.dice_loss(logits, target, seen).item() < 0.02
        for focal in (0.0, 1.0):
            assert objective.pixel_loss(logits, target, seen, focal).item() < 1e-6
    assert objective.dice_loss(-right, target, seen).item() > 1.8


def test_the_focal_loss_is_the_published_one_with_both_classes_alike():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 8, 8, generator=generator)
    target = (torch.rand(2, 1, 8, 8, generator=generator) > 0.5).float()
    probability = torch.where(target > 0, logits.sigmoid(), 1 - logits.sigmoid())
    expected = (5 * (1 - probability) ** 2 * -probability.log()).mean((2, 3))
    torch.testing.assert_close(objective.pixel_loss(logits, target, torch.ones_like(target), 1.0), expected)


# The run


@pytest.fixture
def one_thread():
    """Give torch and OpenCV one thread, as the script does, until the test ends."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


def numbers(parts: dict[str, torch.Tensor]) -> dict[str, float]:
    """Return the parts of a loss as plain numbers."""
    return {name: part.item() for name, part in parts.items()}


def test_steps_on_one_question_lower_its_loss():
    run = Pretraining(replace(SHORT, steps=1000, warmup=1, rate=3e-3, corrected=(1000, 0.0)))
    question = objective.ask(0, 0, images=2, prompts=2)
    losses = [sum(numbers(run.learn(question)).values()) for _ in range(12)]
    assert losses[-1] < 0.95 * losses[0]


def test_a_step_does_not_depend_on_how_many_of_its_pieces_are_computed_at_once():
    plan = replace(SHORT, images=4, at_once=1)
    runs = [Pretraining(plan, threads) for threads in (1, 3)]
    question = objective.ask(0, 0, images=4, prompts=2)
    one, other = (run.learn(question) for run in runs)
    assert one == other
    assert all(map(torch.equal, runs[0].trained.values(), runs[1].trained.values()))


def test_pieces_of_a_step_count_by_their_images():
    plan = replace(SHORT, images=3, corrected=(SHORT.steps, 0.0))
    whole, pieces = Pretraining(replace(plan, at_once=3)), Pretraining(replace(plan, at_once=2))
    question = objective.ask(0, 0, images=3, prompts=2)
    assert [len(piece.truth) for piece in question.pieces(2)] == [4, 2]
    assert numbers(pieces.learn(question)) == pytest.approx(numbers(whole.learn(question)), rel=2e-3)
    one, other = (
        torch.cat([parameter.grad.flatten() for parameter in run.trained.values()]) for run in (whole, pieces)
    )
    assert torch.cosine_similarity(one, other, dim=0) > 0.999


def test_the_random_matrix_of_places_is_not_trained():
    run = Pretraining(SHORT)
    before = {name: tensor.clone() for name, tensor in run.backbone.state_dict().items()}
    run.learn(objective.ask(0, 0, images=2, prompts=2))
    unchanged = [name for name, tensor in run.backbone.state_dict().items() if tensor.equal(before[name])]
    assert "prompt_encoder.shared_embedding.positional_embedding" in unchanged
    moved = len(before) - len(unchanged)
    assert moved > 0.9 * len(before)


def test_muon_is_the_one_of_torch_but_for_rounding():
    def ended(kind) -> list[torch.Tensor]:
        torch.manual_seed(0)
        matrices = [torch.nn.Parameter(torch.randn(shape)) for shape in ((8, 4), (4, 8), (8, 4), (6, 6))]
        before = [matrix.detach().clone() for matrix in matrices]
        optimizer = kind(matrices, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
        for _ in range(3):
            for matrix in matrices:
                matrix.grad = torch.randn(matrix.shape)
            optimizer.step()
        return [matrix.detach() - old for matrix, old in zip(matrices, before, strict=True)]

    for ours, theirs in zip(ended(Muon), ended(torch.optim.Muon), strict=True):
        assert (ours - theirs).norm() < 0.01 * theirs.norm()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="steps are recorded on a GPU alone")
def test_a_recorded_step_is_a_plain_one():
    ends = []
    for recorded in (True, False):
        run = Pretraining(replace(SHORT, steps=1000), device="cuda")
        if not recorded:
            run._steps = {rounds: partial(run._step, rounds=rounds) for rounds in run._steps}
        for question in itertools.islice(run.questions(), 8):
            run.learn(question)
        ends.append([tensor.clone() for tensor in run.trained.values()])
    assert all(map(torch.equal, *ends))


class StopAfter(StopRequest):
    """A stop that is asked for in a certain step."""

    def __init__(self, run: Pretraining, step: int):
        self.run, self.at = run, step

    @property
    def signal(self):
        return 15 if self.run.step >= self.at else None


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_was_stopped_and_goes_on_ends_like_one_that_was_not(tmp_path, one_thread, workers):
    whole = Pretraining(SHORT)
    pretrain_sam_tiny.train(whole, tmp_path / "whole", StopAfter(whole, 1000))
    first = Pretraining(SHORT)
    pretrain_sam_tiny.train(first, tmp_path / "parts", StopAfter(first, 4))
    assert first.step == 4
    second = Pretraining(SHORT)
    second.load(tmp_path / "parts" / CHECKPOINT)
    pretrain_sam_tiny.train(second, tmp_path / "parts", StopAfter(second, 1000), workers)
    assert second.step == whole.step == SHORT.steps
    expected, found = whole.averaged().state_dict(), second.averaged().state_dict()
    assert [name for name, tensor in expected.items() if not tensor.equal(found[name])] == []


def test_a_checkpoint_of_another_plan_is_refused(tmp_path):
    Pretraining(SHORT).save(tmp_path / CHECKPOINT)
    with pytest.raises(SettingError, match="another plan"):
        Pretraining(replace(SHORT, seed=1)).load(tmp_path / CHECKPOINT)


@pytest.mark.parametrize(("steps", "fits"), [(4, False), (6, True), (20, True)])
def test_a_run_may_be_made_longer_before_its_learning_rate_falls(tmp_path, steps, fits):
    plan = replace(SHORT, fall=0.5)
    run = Pretraining(plan)
    pretrain_sam_tiny.train(run, tmp_path, StopAfter(run, 3))
    other = Pretraining(replace(plan, steps=steps))
    if not fits:
        with pytest.raises(SettingError, match="another plan"):
            other.load(tmp_path / CHECKPOINT)
        return
    other.load(tmp_path / CHECKPOINT)
    assert other.step == 3
    assert [other.plan.rate_at(step) for step in range(3)] == [run.plan.rate_at(step) for step in range(3)]


def test_the_script_writes_a_log_and_weights_that_samfit_loads(tmp_path, monkeypatch, capsys, one_thread):
    monkeypatch.setattr(pretrain_sam_tiny, "EVERY", 1)
    monkeypatch.setattr(pretrain_sam_tiny, "scene_scores", lambda *_: {"cells": {"box": [0.5, 0.75]}})
    words = ["--steps", "2", "--images", "2", "--prompts", "1", "--threads", "2", "--score-every", "2"]
    assert pretrain_sam_tiny.main(["--output", str(tmp_path), *words]) == 0
    assert "2/2" in capsys.readouterr().out
    lines = (tmp_path / LOG).read_text().splitlines()
    assert lines[0].startswith("step,seconds")
    assert lines[0].endswith(",box")
    assert [line.rsplit(",", 1)[1] for line in lines[1:]] == ["", "0.625"]
    assert ", 2 of " in json.loads((tmp_path / COST).read_text())["machine"]
    assert (tmp_path / WEIGHTS).stat().st_size < 12e6
    loaded = load_backbone("sam-tiny", weights=tmp_path / WEIGHTS)
    assert loaded.image_encoder.pos_embed.dtype == torch.float32


def test_exported_weights_answer_as_the_average_of_the_run_but_for_rounding(tmp_path):
    run = Pretraining(SHORT)
    question = objective.ask(0, 0, images=1, prompts=1)
    run.learn(question)
    pretrain_sam_tiny.export(run.averaged(), tmp_path / WEIGHTS)
    loaded = load_backbone("sam-tiny", weights=tmp_path / WEIGHTS)
    with torch.no_grad():
        answers = [
            one.decode(one.encode(question.frame(one)), question.prompts).logits
            for one in (loaded, run.averaged())
        ]
    torch.testing.assert_close(*answers, atol=0.01, rtol=0.01)


def test_the_scenes_that_models_are_scored_on_are_not_trained_on(tmp_path, capsys):
    with pytest.raises(SystemExit):
        pretrain_sam_tiny.main(["--output", str(tmp_path), "--seed", str(scoring.HELD_OUT)])
    assert "another" in capsys.readouterr().err


# The scores


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """The result file of a run that has learnt nothing yet."""
    folder = tmp_path_factory.mktemp("scored")
    draw_lesions(folder / "data", training=2, test=1, size=(96, 72))
    pretrain_sam_tiny.keep(Pretraining(replace(SHORT, seed=1)), folder)
    words = ["--run", str(folder), "--scenes", "6", "--result", str(folder / "sam_tiny.json")]
    evaluate_sam_tiny.main([*words, "--set", "lesions", "isic2016", str(folder / "data")])
    return folder / "sam_tiny.json"


def test_the_scores_say_what_is_measured_beside_random_weights(result):
    scores = json.loads(result.read_text())
    assert {"protocol", "versions", "weights_hash", "training"} <= scores.keys()
    lesions = scores["sets"]["lesions"]["lesion"]
    assert lesions.keys() == set(scoring.ANSWERS)
    for answer in lesions.values():
        assert answer["masks"] == 3
        assert 0 <= answer["trained"] <= 1
        assert answer["trained"] != answer["random"]
    held_out = scores["held_out"]
    assert held_out["by_kind"]["whole"].keys() == set(scoring.ANSWERS)
    masks = held_out["all"]["box"]["masks"]
    for grouping in ("by_kind", "by_family"):
        assert sum(answers["box"]["masks"] for answers in held_out[grouping].values()) == masks
    assert held_out["by_family"].keys() <= scenes.FAMILIES.keys()


def test_the_model_card_shows_the_scores_with_those_of_random_weights(result, tmp_path):
    scores = json.loads(result.read_text())
    scores["sets"]["lesions"]["lesion"]["box"] |= {"trained": 0.8125, "random": 0.25}
    (tmp_path / "sam_tiny.json").write_text(json.dumps(scores))
    card = (ROOT / "training" / "MODEL_CARD.md").read_text()
    assert card.count("<!-- table: ") == 7
    shown = tables.render(card.partition("## What adaptation")[0], tmp_path)
    assert "| lesions | lesion | 3 | 0.812 [0.250] |" in shown
    assert scores["protocol"] in shown
    assert "no GPU" in shown


def test_the_time_of_a_run_on_a_gpu_is_its_own_and_not_that_of_cores():
    training = json.loads((ROOT / "benchmarks/results/sam_tiny.json").read_text())["training"]
    training["cuda_hours"] = 0.25
    assert tiny_tables._costs(training)["time"] == "15 minutes of the GPU"


def test_the_weights_that_ship_are_those_that_were_scored():
    for name in ("sam_tiny", "sam_tiny_adapted"):
        scored = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())
        assert load_backbone("sam-tiny").weights_hash == scored["weights_hash"]


def test_the_weights_that_ship_answer_boxes_and_clicks_on_lesions_that_samfit_draws(tmp_path):
    draw_lesions(tmp_path, training=12, test=1, size=(96, 72))
    found = scoring.means(scoring.data_scores(load_backbone("sam-tiny"), tmp_path, "isic2016").values())
    assert found["box"] > 0.85
    assert found["click"] > 0.7


def test_a_click_is_scored_by_the_candidate_that_the_model_holds_for_best(backbone, monkeypatch):
    scene = scenes.draw_scene(7, 0)
    masks = scene.masks.astype(np.float32)
    height, width = scene.image.shape[:2]
    logits = torch.full((1, 4, height, width), -1.0)
    logits[0, 0] = torch.from_numpy(masks[0]) - 0.5
    logits[0, 2] = 1.0
    iou = torch.tensor([[0.0, 0.1, 0.9, 0.2]])
    monkeypatch.setattr(backbone, "decode", lambda *_: SimpleNamespace(logits=logits, iou=iou))
    monkeypatch.setattr(type(backbone.frame), "to_original", lambda _, logits, geometry: logits)
    scores = next(scoring.masks_scores(backbone, scene.image, masks[:1], "scene"))
    everything = 2 * masks[0].sum() / (masks[0].sum() + masks[0].size)
    assert scores == {
        "box": 1.0,
        "click": pytest.approx(everything),
        "click_single": 1.0,
        "middle": pytest.approx(everything),
    }


# What adaptation makes of it


def of_start(random: bool) -> dict:
    """What a comparison finds on eight images: Dice rises with the seed, and is more from trained weights."""
    runs, rows = [], []
    for method in adapt_sam_tiny.METHODS:
        names = [f"{method}-{seed}" for seed in adapt_sam_tiny.SEEDS]
        rows.append({"name": method, "method": method, "runs": names, "errors": []})
        for seed, name in enumerate(names):
            images = {f"image {n}": 0.1 * n + 0.01 * seed + 0.2 * (not random) for n in range(8)}
            runs.append({"name": name, "per_image": {"adapted": images}})
    return {"images": 8, "rows": [{"name": "base", "method": None}, *rows], "runs": runs}


@pytest.fixture
def adapted(tmp_path, monkeypatch):
    """Run the script with comparisons that train nothing; return recipes by folder, and the result file."""
    recipes = {}

    def compare(settings):
        recipes[settings.output.name] = yaml.safe_load(settings.recipe.read_text())
        return of_start(recipes[settings.output.name]["weights"] == "random")

    monkeypatch.setattr(adapt_sam_tiny, "compare", compare)
    result = tmp_path / "sam_tiny_adapted.json"
    weights = str(fetch(BACKBONES["sam-tiny"].weights))
    words = ["--weights", weights, "--output", str(tmp_path / "out"), "--result", str(result)]
    sets = ["--set", "plain", "isic2016", "there", "--set", "two", "folder", "here", "a=1,b=2"]
    adapt_sam_tiny.main([*words, *sets])
    return recipes, result


def test_both_starts_differ_in_their_weights_alone(adapted):
    recipes, _ = adapted
    assert list(recipes) == ["plain-random", "two-random", "plain-trained", "two-trained"]
    for name in ("plain", "two"):
        random, trained = recipes[f"{name}-random"], recipes[f"{name}-trained"]
        assert random.pop("weights") == "random"
        assert trained.pop("weights").endswith("sam-tiny.safetensors")
        assert random == trained
    assert recipes["two-random"]["mask_values"] == {"a": 1, "b": 2}


def test_the_starts_are_compared_by_image_over_the_seeds(adapted, tmp_path):
    _, result = adapted
    found = json.loads(result.read_text())["sets"]["plain"]["cad"]
    assert found["random"] == {"mean": pytest.approx(0.36), "deviation": pytest.approx(0.01), "seeds": 3}
    assert found["difference"]["mean"] == pytest.approx(0.2)
    assert found["difference"]["verdict"] == "better"
    shown = tables.render("<!-- table: sam-tiny-adapted --><!-- end -->", tmp_path)
    assert (
        "| plain | 8 | `cad` | 0.560 ± 0.010 | 0.360 ± 0.010 | +0.200 (+0.200 to +0.200) | better |" in shown
    )


def test_a_training_that_has_failed_is_not_left_out_silently():
    of_starts = {start: of_start(start == "random") for start in ("random", "trained")}
    of_starts["random"]["rows"][1]["errors"] = ["decoder-0: memory ran out"]
    with pytest.raises(ValueError, match="decoder has failed: decoder-0: memory ran out"):
        adapt_sam_tiny.compared(of_starts)


def test_the_middle_of_a_mask_is_the_pixel_farthest_from_its_border_and_the_images():
    mask = np.zeros((30, 40), np.float32)
    mask[5:8, 2:30] = 1
    mask[:, 33:] = 1  # seven wide, and cut off by the image on three sides
    middle = scoring._middle(mask)
    ((row, column),) = np.argwhere(middle)
    assert column == 36
    assert 3 <= row <= 26
