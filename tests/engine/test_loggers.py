"""W&B and TensorBoard get the figures of every epoch, inside the run folder, without a network."""

import importlib.util
from pathlib import Path

import pytest
from cli_support import samfit
from engine_support import Killed, interrupted, kill, metrics_of, tiny_settings

from samfit.config import write_config
from samfit.data.drawn import draw_lesions
from samfit.defaults import in_words
from samfit.engine.training import train
from samfit.errors import SettingError

FIGURES = {"loss", "loss_bce", "loss_iou", "validation_dice", "validation_iou", "learning_rate"}

# What the two packages do when they are imported and stopped is none of our code's business.
foreign = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def settings(tmp_path):
    """Return a function that gives settings of a short training that logs to a tool."""
    draw_lesions(tmp_path / "data", training=10, test=2, size=(40, 30))

    def make(tool: str | None):
        return tiny_settings(
            tmp_path / "data", tmp_path / "run", method="decoder", epochs=2, samples_every=100, logger=tool
        )

    return make


def scalars(run: Path) -> dict[str, dict[int, float]]:
    """Return the values by name and epoch that TensorBoard would show."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    [said] = events.Tensors("validation_protocol/text_summary")
    assert said.tensor_proto.string_val == [b"default"]
    return {
        name: {event.step: event.value for event in events.Scalars(name)} for name in events.Tags()["scalars"]
    }


@foreign
def test_tensorboard_holds_the_figures_of_every_epoch(settings):
    run = train(settings("tensorboard"))
    held = scalars(run)
    assert held.keys() == FIGURES | {"seconds", "peak_bytes"}
    for row in metrics_of(run):
        for name in FIGURES:
            assert held[name][int(row["epoch"])] == pytest.approx(float(row[name]), rel=1e-6)
    assert {tuple(values) for values in held.values()} == {(1, 2)}


@foreign
def test_tensorboard_holds_what_was_logged_before_a_run_was_killed(settings):
    changed = settings("tensorboard")
    with interrupted(24, kill) as done, pytest.raises(Killed):
        train(changed)
    assert done.count("write_metrics") == 1
    assert list(scalars(changed.output)["loss"]) == [1]


@foreign
def test_wandb_works_without_a_network_and_stays_in_the_run_folder(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    run = train(settings("wandb"))
    [offline] = (run / "wandb").glob("offline-run-*")
    [log] = offline.glob("*.wandb")  # records of its own format, with every figure as JSON text
    held = log.read_bytes()
    assert b"validation_protocol" in held
    for row in metrics_of(run):
        for name in FIGURES:
            assert name.encode() in held
            assert row[name].encode() in held, (name, row[name])
    assert {path.name for path in tmp_path.iterdir()} <= {"data", "run", "home"}


@pytest.mark.parametrize("tool", ["wandb", "tensorboard"])
def test_a_tool_that_is_not_installed_is_a_message_and_nothing_is_written(
    settings, tmp_path, monkeypatch, tool
):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("samfit.packages.find_spec", lambda name: None if name == tool else find_spec(name))
    message = f"--logger {tool}: not installed: {tool}; pip install '.[{tool}]' in samfit's folder"
    with pytest.raises(SettingError) as caught:
        train(settings(tool))
    assert str(caught.value) == message
    write_config(tmp_path / "run.yaml", in_words(settings(tool)))
    answer = samfit("train", "--config", tmp_path / "run.yaml")
    assert (answer.status, answer.err) == (2, f"samfit: error: {message}\n")
    assert not (tmp_path / "run").exists()


def test_no_tool_writes_nothing_of_its_own(settings):
    run = train(settings(None))
    assert not (run / "tensorboard").exists()
    assert not (run / "wandb").exists()
