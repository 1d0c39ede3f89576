"""Defaults: a bare command gets everything from the tables, and values that do not fit are told at once."""

from pathlib import Path

import pytest

from samfit.backbones import BACKBONES
from samfit.config import parse, read_config, write_config
from samfit.defaults import as_in_run, in_words, options_of, resolve, tables
from samfit.errors import SettingError
from samfit.methods import METHODS
from samfit.metrics.protocols import PROTOCOLS
from samfit.settings import EvaluateSettings, TrainSettings

MAY_STAY_NONE = {
    *("patience", "checkpoint_every", "logger", "classes", "mask_values", "page", "prompt_class"),
    *("group", "variant", "late_blocks", "max_steps", "vram"),
}
PAIRS = [(backbone, method) for backbone in BACKBONES for method in METHODS]


def settings(**values) -> TrainSettings:
    return TrainSettings(data=Path("images"), output=Path("run"), **values)


@pytest.mark.parametrize(("backbone", "method"), PAIRS)
def test_a_bare_command_gets_every_value_and_config_yaml_repeats_it(tmp_path, backbone, method):
    resolved = resolve(settings(backbone=backbone, method=method))
    left_open = {field for field, value in resolved if value is None}
    assert left_open <= MAY_STAY_NONE
    assert resolve(resolved) == resolved
    write_config(tmp_path / "config.yaml", in_words(resolved))
    again = parse(TrainSettings, read_config(tmp_path / "config.yaml"), tables())
    assert resolve(again) == resolved


@pytest.mark.parametrize("row", [*BACKBONES.values(), *METHODS.values()], ids=lambda row: row.name)
def test_defaults_of_a_row_name_open_settings_with_values_that_they_may_have(row):
    for field in row.defaults:
        assert TrainSettings.model_fields[field].default is None, f"{field} is never open"
    values = {"data": "images", "output": "run"} | row.defaults
    parsed = parse(TrainSettings, values, tables())
    assert {field: getattr(parsed, field) for field in row.defaults} == row.defaults


def test_the_card_goes_before_the_row_and_the_user_before_both():
    assert METHODS["cad"].defaults["epochs"] != BACKBONES["sam-tiny"].defaults["epochs"]
    assert resolve(settings(backbone="sam-vit-b")).epochs == METHODS["cad"].defaults["epochs"]
    assert resolve(settings(backbone="sam-tiny")).epochs == BACKBONES["sam-tiny"].defaults["epochs"]
    assert resolve(settings(backbone="sam-tiny", epochs=3)).epochs == 3


def test_the_loss_size_follows_the_image_size():
    assert resolve(settings()).loss_size == 512
    assert resolve(settings(image_size=256)).loss_size == 128
    assert resolve(settings(image_size=256, loss_size=64)).loss_size == 64


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_size": 250}, "--image-size 250: sam-vit-b needs a multiple of 16; the nearest is 256"),
        ({"image_size": 256, "loss_size": 300}, "--loss-size 300: expected at most the image size, 256"),
        (
            {"backbone": "efficientsam-s", "prompt": "click", "negative_clicks": 2},
            "--negative-clicks 2: efficientsam-s knows no negative clicks",
        ),
        ({"accumulate": 5}, "--accumulate 5: a batch of 4 has no more than 4 parts"),
        ({"devices": 3, "accumulate": 2}, "--batch-size 4: too small for 1 x 3 devices"),
        ({"devices": 3, "nodes": 2}, "expected at least 6"),
        ({"clicks": 2}, "--clicks 2: only --prompt click uses it, and the prompt is full-box"),
        ({"box_jitter": 2, "prompt": "click"}, "--box-jitter 2: only --prompt box uses it"),
        (
            {"prompt_class": "disc"},
            "--prompt-class disc: only --prompt click or box uses it, and the prompt is full-box",
        ),
        ({"prompt_class": "disc", "prompt": "none"}, "and the prompt is none"),
        (
            {"prompt_class": "dsc", "prompt": "box", "classes": ("disc", "cup")},
            "--prompt-class dsc: unknown class 'dsc'; did you mean 'disc'? (known: disc, cup)",
        ),
        ({"method": "lora", "late_blocks": 13}, "--late-blocks 13: sam-vit-b has 12 blocks"),
        ({"method": "full", "backbone": "sam-tiny", "late_blocks": 5}, "sam-tiny has 4 blocks"),
        (
            {"method": "lora", "cache": "disk"},
            "--cache disk: --method lora trains in the encoder, so that every step changes the embeddings; "
            "leave it out",
        ),
        (
            {"augment": "affine", "cache": "memory"},
            "--cache memory: --augment affine shows an image differently each time, so that no embedding is "
            "used twice; leave it out",
        ),
        (
            {"cache_half": True, "precision": "bf16"},
            "--cache-half: with --precision bf16 embeddings have half the size already; leave it out",
        ),
        (
            {"cache_half": True, "cache": "off"},
            "--cache-half: with --cache off nothing is kept; leave it out",
        ),
        (
            {"cache_half": True, "method": "lora"},
            "--cache-half: --method lora trains in the encoder, so that",
        ),
        ({"rank": 8}, "--rank 8: an option of --method lora; cad has no options"),
        ({"method": "full", "dora": True}, "--dora: an option of --method lora; full takes --late-blocks"),
        ({"method": "sam-adapter", "targets": "q,v"}, "--targets q,v: an option of --method lora; sam-adap"),
        (
            {"method": "decoder", "late_blocks": 2},
            "--late-blocks 2: an option of --method sam-adapter, medical-adapter, lora, full; decoder has no",
        ),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_the_remedy(values, message):
    with pytest.raises(SettingError) as caught:
        resolve(settings(**values))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_values_that_do_not_fit_are_listed_at_once():
    with pytest.raises(SettingError) as caught:
        resolve(settings(image_size=250, accumulate=8, clicks=2, rank=8))
    lines = str(caught.value).splitlines()
    assert lines[0] == "4 settings are wrong:"
    assert [line.split()[0] for line in lines[1:]] == ["--image-size", "--accumulate", "--clicks", "--rank"]


def test_settings_that_fit_pass():
    resolve(settings(accumulate=4))
    resolve(settings(cache="disk", augment="none"))
    resolve(settings(cache="off", augment="affine", method="lora"))
    resolve(settings(devices=2, nodes=2))
    resolve(settings(prompt="click", clicks=3, negative_clicks=2))
    resolve(settings(prompt="box", box_jitter=5))
    resolve(settings(prompt="click", classes=("disc", "cup"), prompt_class="cup"))
    resolve(settings(method="lora", late_blocks=12, rank=512, alpha=0.5, targets=("mlp",), dora=True))


def test_an_option_of_another_method_is_refused_even_at_its_default():
    with pytest.raises(SettingError, match="--rank 4: an option of --method lora"):
        resolve(settings(rank=4))


@pytest.mark.parametrize("method", METHODS)
def test_the_written_settings_hold_the_options_of_the_method_and_no_others(method):
    everyones = {field for row in METHODS.values() for field in row.options.model_fields}
    assert everyones >= {"rank", "late_blocks"}
    own = set(METHODS[method].options.model_fields)
    resolved = resolve(settings(method=method))
    assert in_words(resolved).keys() & everyones == own
    assert dict(options_of(resolved)) == dict(METHODS[method].options())


@pytest.mark.parametrize(("field", "kind"), [("backbone", "backbone"), ("method", "method")])
def test_an_unknown_name_from_python_is_a_setting_error(field, kind):
    with pytest.raises(SettingError, match=f"unknown {kind} 'nothing'"):
        resolve(settings(**{field: "nothing"}))


def test_an_evaluation_takes_what_is_not_given_from_the_run():
    run = resolve(settings(prompt="click", clicks=3, negative_clicks=1))
    filled = as_in_run(EvaluateSettings(run=Path("run")), run)
    assert (filled.data, filled.dataset) == (Path("images"), "folder")
    assert (filled.prompt, filled.clicks, filled.negative_clicks) == ("click", 3, 1)
    assert {field for field, value in filled if value is None} == {
        *("group", "prompt_class", "spacing", "tolerance")
    }
    other = as_in_run(EvaluateSettings(run=Path("run"), prompt="box", box_jitter=4), run)
    assert (other.prompt, other.box_jitter) == ("box", 4)


def test_an_evaluation_asks_for_the_class_of_the_run_unless_another_is_given():
    run = resolve(settings(prompt="click", prompt_class="disc"))
    assert as_in_run(EvaluateSettings(run=Path("run")), run).prompt_class == "disc"
    assert as_in_run(EvaluateSettings(run=Path("run"), prompt_class="cup"), run).prompt_class == "cup"
    as_in_run(EvaluateSettings(run=Path("run"), prompt="full-box"), run)  # nothing idle was given


@pytest.mark.parametrize(
    ("protocol", "trained", "asked"),
    [
        ("default", {"prompt": "box", "box_jitter": 3}, {"prompt": "box", "box_jitter": 3}),
        ("cad", {"prompt": "click"}, {"prompt": "full-box"}),
        ("msa-guide", {"prompt": "full-box"}, {"prompt": "click", "clicks": 1}),
        (
            "msa-guide",
            {"prompt": "click", "clicks": 3, "negative_clicks": 1},
            {"clicks": 1, "negative_clicks": 0},
        ),
        ("no-truth", {"prompt": "click"}, {"prompt": "full-box"}),
        ("no-truth", {"prompt": "none"}, {"prompt": "none"}),
    ],
)
def test_a_protocol_asks_its_own_prompt_and_the_runs_where_it_leaves_that_open(protocol, trained, asked):
    row, run = PROTOCOLS[protocol], resolve(settings(**trained))
    filled = as_in_run(EvaluateSettings(run=Path("run")), run, row)
    assert {field: getattr(filled, field) for field in asked} == asked


@pytest.mark.parametrize(
    ("protocol", "given", "words"),
    [
        ("cad", {"prompt": "click"}, "--prompt click: the protocol cad asks with full-box; leave it out, or"),
        ("no-truth", {"prompt": "box"}, "--prompt box: the protocol no-truth asks with full-box or none; "),
        ("msa-guide", {"clicks": 2}, "--clicks 2: the protocol msa-guide asks with --clicks 1; "),
        ("msa-guide", {"negative_clicks": 1}, "the protocol msa-guide asks with --negative-clicks 0; "),
    ],
)
def test_a_given_prompt_that_contradicts_a_protocol_is_refused(protocol, given, words):
    run = resolve(settings(prompt="click"))
    with pytest.raises(SettingError, match=words):
        as_in_run(EvaluateSettings(run=Path("run"), **given), run, PROTOCOLS[protocol])
    as_in_run(EvaluateSettings(run=Path("run"), prompt="none"), run, PROTOCOLS["no-truth"])


def test_an_evaluation_refuses_a_setting_that_its_prompt_does_not_use():
    with pytest.raises(SettingError, match="--clicks 1: only --prompt click uses it"):
        as_in_run(EvaluateSettings(run=Path("run"), clicks=1), resolve(settings()))
    with pytest.raises(SettingError, match="--prompt-class disc: only --prompt click or box uses it"):
        as_in_run(EvaluateSettings(run=Path("run"), prompt_class="disc"), resolve(settings()))
