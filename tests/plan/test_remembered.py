"""Estimates that are kept: those that samfit comes with and those of this machine."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from plan_support import SETUP, forget

from samfit.files import write_json
from samfit.plan import remembered, tracing
from samfit.plan.setup import Estimate

ESTIMATE = Estimate(weights=6, inputs=5, optimizer=4, gradients=3, activations=2, temporary=1)


@pytest.fixture
def traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Trace nothing, say what would have been traced, and keep it in a folder of the test's own."""
    made: list[str] = []
    for kind in ("training", "prediction"):
        monkeypatch.setattr(tracing, f"trace_{kind}", lambda _, kind=kind: made.append(kind) or ESTIMATE)
    monkeypatch.setenv("SAMFIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remembered, "TRACED", tmp_path / "traced.json")
    forget()
    yield made
    forget()


def test_a_setup_is_traced_once_on_a_machine(traces: list[str]):
    assert remembered.training(SETUP) == ESTIMATE
    forget()
    assert remembered.training(SETUP) == ESTIMATE
    assert traces == ["training"]


def test_training_and_prediction_of_one_setup_are_kept_apart(traces: list[str]):
    remembered.training(SETUP)
    remembered.prediction(SETUP)
    assert traces == ["training", "prediction"]


def test_a_prediction_is_the_same_however_training_is_done(traces: list[str]):
    for changes in ({}, {"checkpointing": True}, {"cached": True}):
        remembered.prediction(replace(SETUP, **changes))
    assert traces == ["prediction"]


@pytest.mark.parametrize("field", asdict(SETUP))
def test_every_part_of_a_setup_has_its_own_trace(traces: list[str], field: str):
    other = {
        "backbone": "sam-vit-b",
        "variant": "medical-sam-adapter",
        "method": "full",
        "options": (("late_blocks", 1),),
        "loss": "bce-dice",
        "precision": "bf16",
        "checkpointing": True,
        "cached": True,
        "device": "gpu",
        "attention": "folded",
    }
    changed = replace(SETUP, **{field: other.get(field, 7)})
    remembered.training(SETUP)
    remembered.training(changed)
    assert traces == ["training", "training"]


def test_what_samfit_comes_with_is_not_traced(traces: list[str]):
    shipped = {remembered.key_of("training", SETUP): ESTIMATE}
    write_json(remembered.TRACED, remembered.in_words(shipped))
    assert remembered.training(SETUP) == ESTIMATE
    assert traces == []


def test_what_samfit_comes_with_counts_for_its_own_torch_alone(traces: list[str]):
    shipped = remembered.in_words({remembered.key_of("training", SETUP): ESTIMATE})
    write_json(remembered.TRACED, shipped | {"torch": "1.0"})
    remembered.training(SETUP)
    assert traces == ["training"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"estimates": {"x": [1]}}'])
def test_a_damaged_file_is_traced_again(traces: list[str], content: str):
    remembered.training(SETUP)
    remembered.own_file().write_text(content)
    forget()
    assert remembered.training(SETUP) == ESTIMATE
    assert traces == ["training", "training"]


def test_a_folder_that_cannot_be_written_costs_time_alone(traces: list[str], tmp_path: Path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert remembered.training(SETUP) == ESTIMATE


def test_other_code_has_another_file(traces: list[str], monkeypatch: pytest.MonkeyPatch):
    before = remembered.own_file()
    remembered.own_file.cache_clear()
    monkeypatch.setattr(remembered, "version", lambda library: f"9.9 of {library}")
    assert remembered.own_file() != before
