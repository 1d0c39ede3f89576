"""A training on a device that runs out of memory: what is said, what is kept, and how it goes on."""

import json
from pathlib import Path

import pytest
import torch
from cli_support import refuse
from engine_support import assert_same_run, metrics_of, tiny_settings
from shortage_support import MESSAGE

from samfit.config import write_config
from samfit.data.drawn import draw_lesions
from samfit.defaults import in_words
from samfit.engine import loop, scoring, stepping
from samfit.engine.training import resume, train
from samfit.methods.adapted import AdaptedModel

pytestmark = pytest.mark.usefixtures("quick_collection")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    draw_lesions(folder, training=10, test=2, size=(40, 30))
    return folder


@pytest.fixture
def settings(data, tmp_path):
    """Return a function that gives settings of a training of three steps an epoch, each in two parts."""

    def make(run: str, **changes: object):
        return tiny_settings(data, tmp_path / run, **({"method": "decoder", "epochs": 2} | changes))

    return make


@pytest.fixture
def failing(monkeypatch):
    """Return a function that sets which of the parts of steps, counted from 1, run out of memory."""
    original = stepping.training_step

    def fail(fails) -> None:
        parts = []

        def training_step(*inputs):
            parts.append(1)
            if fails(len(parts)):
                raise torch.OutOfMemoryError(MESSAGE)
            return original(*inputs)

        monkeypatch.setattr(stepping, "training_step", training_step)

    return fail


def test_a_run_with_shortages_ends_well_and_says_what_happened(settings, failing):
    whole = train(settings("whole", method="cad"))
    failing(lambda part: part in (4, 5))
    run = train(settings("run", method="cad"))
    for row, other in zip(metrics_of(run), metrics_of(whole), strict=True):
        assert {name: float(value) for name, value in row.items()} == pytest.approx(
            {name: float(value) for name, value in other.items()}, rel=1e-3
        )
    lines = [line.partition(" WARNING ")[2] for line in (run / "log.txt").read_text().splitlines()]
    said = "out of memory in step 2 of epoch 1: repeating it and going on with checkpointing and at most "
    assert [line for line in lines if "memory" in line] == [
        f"{said}2 images at once",
        f"{said}1 image at once",
    ]
    nothing = {"divisor": 1, "part": 2, "splits_statistics": False}
    summaries = (json.loads((folder / "summary.json").read_text()) for folder in (whole, run))
    assert [summary["out_of_memory"] for summary in summaries] == [
        nothing | {"checkpointing": False, "images": 2, "shortages": 0},
        nothing | {"checkpointing": True, "images": 1, "shortages": 2},
    ]


def test_a_run_that_had_to_split_its_batch_statistics_says_so(settings, failing):
    """At the sixth attempt a part passes in two: then the step has a part more."""
    failing(lambda part: part <= 5)
    run = train(settings("run", method="cad", max_steps=1))
    shortage = json.loads((run / "summary.json").read_text())["out_of_memory"]
    assert (shortage["shortages"], shortage["part"], shortage["splits_statistics"]) == (5, 1, True)
    assert (
        "parts of at most 1 image; batch statistics are those of such a part" in (run / "log.txt").read_text()
    )


def test_after_a_shortage_validation_too_has_no_more_images_at_once(settings, failing, monkeypatch):
    """Three images are validated, one at once as in training."""
    passed: list[int] = []
    original = scoring._logits

    def logits(model, items, device):
        passed.append(len(items))
        return original(model, items, device)

    monkeypatch.setattr(scoring, "_logits", logits)
    failing(lambda part: part <= 2)
    train(settings("run", max_steps=1))
    assert passed[3:-3] == [1, 1, 1]  # between the sheets of samples


def test_a_model_that_the_device_has_no_room_for_is_refused_before_anything_is_written(
    settings, monkeypatch, tmp_path
):
    def to(*_):
        raise torch.OutOfMemoryError(MESSAGE)

    monkeypatch.setattr(AdaptedModel, "to", to)
    given = settings("run")
    write_config(tmp_path / "config.yaml", in_words(given))
    assert "out of memory while the weights of the model" in refuse(
        "train", "--config", tmp_path / "config.yaml"
    )
    assert not given.output.exists()


def test_a_run_that_is_resumed_goes_on_with_as_little_at_once(settings, failing):
    failing(lambda part: part in (4, 5))
    whole = train(settings("whole"))
    failing(lambda part: part in (4, 5))
    stopped = settings("stopped")
    checkpoints = []

    def stop_after_two(*arguments):
        checkpoints.append(1)
        if len(checkpoints) == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    original = loop.save_checkpoint
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            train(stopped)
    failing(lambda part: False)
    assert_same_run(resume(stopped.output), whole)


def test_a_run_for_which_nothing_suffices_says_what_can_be_done_and_keeps_its_checkpoint(
    settings, failing, tmp_path
):
    whole = train(settings("whole"))
    failing(lambda part: part >= 5)
    stopped = settings("stopped")
    config = tmp_path / "config.yaml"
    write_config(config, in_words(stopped))
    message = refuse("train", "--config", config).splitlines()[-1]
    assert message == (
        "samfit: error: out of memory in step 3 of epoch 1, though one image passes at once, in small chunks:"
        " choose a smaller --image-size (now 64), another --method (now decoder) or --backbone (now "
        "sam-tiny); 'samfit plan --vram SIZE' lists what fits. On a larger device the run goes on from its "
        f"last checkpoint with 'samfit train --resume {stopped.output}'"
    )
    assert not (stopped.output / "summary.json").exists()
    failing(lambda part: False)
    assert_same_run(resume(stopped.output), whole)
