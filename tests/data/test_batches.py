"""What a step gets: image, target and prompt of one image, moved together into the model frame."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from samfit.data.batches import Preparation, PromptRule, ScoredSet, TrainingSet, join
from samfit.data.order import Draw
from samfit.data.reading import MaskReading
from samfit.data.transforms import Augmentation
from samfit.frame import Fit, Frame
from samfit.settings import PromptKind
from samfit.types import BOTTOM_RIGHT, NEGATIVE, NOTHING, POSITIVE, TOP_LEFT, Batch, Sample

SIZE = 64
"""Side of the model frame; the loss is taken at half of it."""
CLASSES = ("disc", "spot")
EPOCHS = st.integers(0, 10_000)
AUGMENTATIONS = st.sampled_from(["none", "flips", "affine"])
FITS = st.sampled_from(["pad", "squeeze"])
SHAPES = {"wide": (120, 80), "tall": (50, 110), "small": (46, 38), "square": (64, 64)}
"""Width and height."""


def draw_disc(width: int, height: int, centre: tuple[float, float], radius: float) -> np.ndarray:
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return np.hypot(x - centre[0] * width, y - centre[1] * height) <= radius * min(width, height)


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> list[Sample]:
    """Draw black images with a red disc and a green spot beside it, and masks of both; one has neither."""
    folder = tmp_path_factory.mktemp("discs")
    made = []
    for name, (width, height) in SHAPES.items():
        # So near the middle that no augmentation moves a part of them out of the image.
        disc = draw_disc(width, height, (0.4, 0.55), 0.22)
        spot = draw_disc(width, height, (0.65, 0.35), 0.1)
        made.append(_write(folder, name, disc, spot))
    nothing = np.zeros((40, 60), dtype=bool)
    return [*made, _write(folder, "empty", nothing, nothing)]


def _write(folder: Path, name: str, disc: np.ndarray, spot: np.ndarray) -> Sample:
    Image.fromarray(np.stack([disc, spot, 0 * disc], axis=-1).astype(np.uint8) * 255).save(
        folder / f"{name}.png"
    )
    paths = {}
    for class_name, mask in zip(CLASSES, (disc, spot), strict=True):
        paths[class_name] = (folder / f"{name}_{class_name}.png",)
        Image.fromarray(mask).save(paths[class_name][0])
    return Sample(name, "train", folder / f"{name}.png", paths)


def training_set(
    samples: list[Sample],
    *,
    augment: Augmentation = "affine",
    fit: Fit = "pad",
    prompt: PromptKind = "click",
    classes: tuple[str, ...] = CLASSES,
    of_class: str | None = None,
    **rule: int,
) -> TrainingSet:
    """Return a training set whose method reads a copy of the frame at half its size."""
    return TrainingSet(
        samples,
        Preparation(
            classes=classes,
            reading=MaskReading(),
            frame=frame_of(fit),
            prompt=PromptRule(prompt, of_class=of_class, **rule),
            read_extra=lambda image, frame: frame.at(SIZE // 2).to_model(image),
        ),
        loss_size=SIZE // 2,
        augment=augment,
    )


def frame_of(fit: Fit) -> Frame:
    """A frame whose values are 0…1 on the image; -1 would be black if padding were not zero after all."""
    return Frame(SIZE, mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0), fit=fit)


def at_loss_size(batch: Batch) -> torch.Tensor:
    """Return disc and spot as the model sees them (2, L, L): the red and the green of the frame."""
    return torch.nn.functional.avg_pool2d(batch.frame[0, :2], 2)


@given(EPOCHS, AUGMENTATIONS, FITS)
@settings(max_examples=25, deadline=None)
def test_image_target_and_extra_are_moved_alike(samples, epoch, augment, fit):
    images = training_set(samples, augment=augment, fit=fit)
    for index, name in enumerate(SHAPES):
        batch = images[Draw(epoch, index, 1.0)]
        seen, target, valid = at_loss_size(batch), batch.target[0], batch.valid[0]
        # Every resizing blurs rims, and rounds the image's own area to whole pixels: half a pixel at most.
        assert (seen - target).abs().mean() < 0.02, name
        for one, other in zip(seen, target, strict=True):
            torch.testing.assert_close(centre_of(one), centre_of(other), atol=0.5, rtol=0)
        assert batch.extra is not None
        assert (batch.extra[0, :2] - target).abs().mean() < 0.02
        assert not (target * (1 - valid)).any()
        assert not (seen * (1 - grown(valid))).any()


def grown(picture: torch.Tensor) -> torch.Tensor:
    """Return the largest value of each pixel (1, H, W) and its neighbours."""
    return torch.nn.functional.max_pool2d(picture, 3, 1, 1)


def centre_of(picture: torch.Tensor) -> torch.Tensor:
    """Return the centre of mass (x, y) of a picture (L, L)."""
    y, x = torch.meshgrid(*(torch.arange(float(side)) for side in picture.shape), indexing="ij")
    return torch.stack([(x * picture).sum(), (y * picture).sum()]) / picture.sum()


@given(EPOCHS, AUGMENTATIONS, FITS)
@settings(max_examples=25, deadline=None)
def test_clicks_lie_on_and_beside_the_object(samples, epoch, augment, fit):
    images = training_set(samples, augment=augment, fit=fit, clicks=3, negative_clicks=2)
    for index, name in enumerate(SHAPES):
        batch = images[Draw(epoch, index, 1.0)]
        assert batch.prompts.labels.tolist() == [[POSITIVE] * 3 + [NEGATIVE] * 2]
        # A pixel's corner is its coordinate, so its middle lies half a pixel of the original further on.
        union = batch.frame[0, :2].amax(0)
        around, within = grown(union[None])[0], -grown(-union[None])[0]
        columns, rows = batch.prompts.points[0].T.long().clamp(0, SIZE - 1)
        assert (around[rows, columns][:3] > 0.4).all(), name
        assert (within[rows, columns][3:] < 0.6).all(), name
        assert grown(batch.valid[0])[0, rows // 2, columns // 2].all()


@given(EPOCHS, AUGMENTATIONS, FITS)
@settings(max_examples=25, deadline=None)
def test_a_box_is_that_of_all_classes_in_frame_pixels(samples, epoch, augment, fit):
    images = training_set(samples, augment=augment, fit=fit, prompt="box")
    for index, (width, height) in enumerate(SHAPES.values()):
        batch = images[Draw(epoch, index, 1.0)]
        assert batch.prompts.has_box
        assert batch.prompts.labels.tolist() == [[TOP_LEFT, BOTTOM_RIGHT]]
        rows, columns = torch.nonzero(batch.frame[0, :2].amax(0) > 0.5, as_tuple=True)
        expected = torch.stack([columns.min(), rows.min(), columns.max(), rows.max()]).float()
        pixel = max(1.0, SIZE / min(width, height))  # of the original, in the frame
        torch.testing.assert_close(batch.prompts.points.flatten(), expected, atol=pixel + 1, rtol=0)


@given(EPOCHS, AUGMENTATIONS, FITS, st.sampled_from(CLASSES), st.permutations(CLASSES))
@settings(max_examples=25, deadline=None)
def test_the_box_of_one_class_is_its_own_in_whatever_order_the_classes_are(
    samples, epoch, augment, fit, of_class, classes
):
    images = training_set(
        samples, augment=augment, fit=fit, prompt="box", classes=tuple(classes), of_class=of_class
    )
    for index, (width, height) in enumerate(SHAPES.values()):
        batch = images[Draw(epoch, index, 1.0)]
        rows, columns = torch.nonzero(batch.frame[0, CLASSES.index(of_class)] > 0.5, as_tuple=True)
        expected = torch.stack([columns.min(), rows.min(), columns.max(), rows.max()]).float()
        pixel = max(1.0, SIZE / min(width, height))  # of the original, in the frame
        torch.testing.assert_close(batch.prompts.points.flatten(), expected, atol=pixel + 1, rtol=0)


@given(EPOCHS)
@settings(max_examples=10, deadline=None)
def test_a_full_box_is_the_area_of_the_image(samples, epoch):
    images = training_set(samples, prompt="full-box")
    for index in range(len(samples)):
        batch = images[Draw(epoch, index, 1.0)]
        rows, columns = (int(batch.valid[0, 0].amax(axis).sum()) for axis in (1, 0))
        assert batch.prompts.points[0, 0].tolist() == [0, 0]
        torch.testing.assert_close(
            batch.prompts.points[0, 1], torch.tensor([2.0 * columns, 2.0 * rows]), atol=1, rtol=0
        )


@pytest.mark.parametrize(("fit", "name", "rows", "columns"), [
    ("pad", "wide", 21, 32),
    ("pad", "tall", 32, 15),
    ("pad", "square", 32, 32),
    ("squeeze", "wide", 32, 32),
    ("squeeze", "tall", 32, 32),
])  # fmt: skip
def test_the_valid_area_is_the_image_without_its_padding(samples, fit, name, rows, columns):
    images = training_set(samples, augment="none", fit=fit)
    valid = images[Draw(0, list(SHAPES).index(name), 1.0)].valid
    expected = torch.zeros(1, 1, SIZE // 2, SIZE // 2)
    expected[..., :rows, :columns] = 1
    assert torch.equal(valid, expected)


def test_an_image_without_objects_has_a_prompt_of_no_points(samples):
    batch = training_set(samples, clicks=2)[Draw(0, len(SHAPES), 0.5)]
    assert batch.prompts.labels.tolist() == [[NOTHING, NOTHING]]
    assert not batch.target.any()


@pytest.mark.parametrize(("kind", "labels"), [("click", [POSITIVE]), ("box", [TOP_LEFT, BOTTOM_RIGHT])])
def test_an_image_without_the_class_asked_for_has_a_prompt_of_no_points(tmp_path, kind, labels):
    nothing, spot = np.zeros((40, 60), dtype=bool), draw_disc(60, 40, (0.5, 0.5), 0.2)
    sample = _write(tmp_path, "no disc", nothing, spot)
    for of_class, expected in {"disc": [NOTHING] * len(labels), "spot": labels, None: labels}.items():
        batch = training_set([sample], prompt=kind, of_class=of_class)[Draw(0, 0, 1.0)]
        assert batch.prompts.labels.tolist() == [expected]
        assert batch.target.any()


@pytest.mark.parametrize("kind", ["click", "box", "full-box", "none"])
def test_images_of_all_sizes_make_one_batch(samples, kind):
    images = training_set(samples, prompt=kind)
    shares = [0.2, 0.3, 0.0, 0.5, 0.1]
    batch = join([images[Draw(4, index, share)] for index, share in enumerate(shares)])
    points = {"click": 1, "box": 2, "full-box": 2, "none": 0}[kind]
    assert batch.extra is not None
    assert {
        "frame": batch.frame.shape,
        "extra": batch.extra.shape,
        "target": batch.target.shape,
        "valid": batch.valid.shape,
        "points": batch.prompts.points.shape,
        "labels": batch.prompts.labels.shape,
    } == {
        "frame": (5, 3, SIZE, SIZE),
        "extra": (5, 3, SIZE // 2, SIZE // 2),
        "target": (5, 2, SIZE // 2, SIZE // 2),
        "valid": (5, 1, SIZE // 2, SIZE // 2),
        "points": (5, points, 2),
        "labels": (5, points),
    }
    assert batch.prompts.has_box == (kind in ("box", "full-box"))
    torch.testing.assert_close(batch.weight, torch.tensor(shares))
    floats = (batch.frame, batch.extra, batch.target, batch.valid, batch.weight, batch.prompts.points)
    assert {tensor.dtype for tensor in floats} == {torch.float32}
    assert batch.prompts.labels.dtype == torch.int64
    assert 0 <= batch.target.min() <= batch.target.max() <= 1


def test_a_method_that_reads_nothing_gets_nothing(samples):
    images = training_set(samples)
    images.preparation = replace(images.preparation, read_extra=None)
    assert join([images[Draw(0, 0, 1.0)], images[Draw(0, 1, 1.0)]]).extra is None


def same(one: Batch, other: Batch) -> bool:
    return torch.equal(one.frame, other.frame) and torch.equal(one.prompts.points, other.prompts.points)


def test_a_batch_is_a_function_of_seed_epoch_and_image(samples):
    first = training_set(samples)
    again = training_set(samples)
    batch = first[Draw(3, 0, 1.0)]
    first[Draw(4, 1, 1.0)]
    torch.manual_seed(5)
    assert same(batch, again[Draw(3, 0, 1.0)])
    assert same(batch, first[Draw(3, 0, 1.0)])
    assert not same(batch, first[Draw(2, 0, 1.0)])
    assert not same(batch, training_set(samples, seed=1)[Draw(3, 0, 1.0)])


def test_images_are_read_from_disk_once_as_far_as_they_fit(samples, monkeypatch):
    read = []
    original = Image.open
    monkeypatch.setattr(Image, "open", lambda path, *a, **k: read.append(path) or original(path, *a, **k))
    images = training_set(samples)
    for epoch in range(3):
        images[Draw(epoch, 0, 1.0)]
    once = len(read)
    assert once >= 1
    images.decoded._free = 0
    for epoch in range(3):
        images[Draw(epoch, 1, 1.0)]
    assert len(read) == 4 * once


def scored_set(samples: list[Sample], **rule: int) -> ScoredSet:
    prompt = PromptRule("click", **rule)
    return ScoredSet(samples, Preparation(CLASSES, MaskReading(), frame_of("pad"), prompt, read_extra=None))


def test_a_scored_image_is_as_it_is_on_disk_with_the_same_prompt_every_time(samples):
    scored = scored_set(samples)
    assert len(scored) == len(samples)
    for index, (name, (width, height)) in enumerate(SHAPES.items()):
        item = scored[index]
        assert item.sample.id == name
        np.testing.assert_array_equal(item.image, np.array(Image.open(item.sample.image)))
        np.testing.assert_array_equal(item.masks, item.image.transpose(2, 0, 1)[:2] / 255)
        assert item.inputs.frame.shape == (1, 3, SIZE, SIZE)
        assert item.image.shape == (height, width, 3)
        again = scored_set(samples)[index]
        assert torch.equal(item.inputs.prompts.points, again.inputs.prompts.points)
        assert torch.equal(item.inputs.frame, again.inputs.frame)
        other = scored_set(samples, seed=1)[index]
        assert not torch.equal(item.inputs.prompts.points, other.inputs.prompts.points)
