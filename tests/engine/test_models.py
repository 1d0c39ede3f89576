"""From settings to what the engine works with."""

from pathlib import Path

import pytest

from samfit.data.batches import PromptRule
from samfit.defaults import as_in_run, resolve
from samfit.engine.models import prompt_rule
from samfit.settings import EvaluateSettings, TrainSettings


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, PromptRule("full-box", seed=7)),
        (
            {"prompt": "click", "clicks": 3, "negative_clicks": 2, "prompt_class": "cup"},
            PromptRule("click", clicks=3, negative_clicks=2, seed=7, of_class="cup"),
        ),
        ({"prompt": "box", "box_jitter": 4}, PromptRule("box", box_jitter=4, seed=7)),
    ],
)
def test_training_and_evaluation_ask_as_the_settings_say(given, expected):
    trained = resolve(TrainSettings(data=Path("images"), output=Path("run"), **given))
    assert prompt_rule(trained, 7) == expected
    assert prompt_rule(as_in_run(EvaluateSettings(run=Path("run")), trained), 7) == expected
    plain = resolve(TrainSettings(data=Path("images"), output=Path("run")))
    assert prompt_rule(as_in_run(EvaluateSettings(run=Path("run"), **given), plain), 7) == expected
