"""Options of methods: typed, checked and kept wherever they are given, and refused for any other method."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from cli_support import TINY, drawn_data, refuse, succeed

from samfit.errors import SettingError
from samfit.methods import METHODS, attach, owners
from samfit.options import MethodOptions
from samfit.runs import read_adapter
from samfit.testing import small_backbone

FLAGS = ("--dataset", "isic2016", *TINY, "--method", "lora", "--epochs", "1")
OWN = {"late_blocks": 2, "rank": 2, "alpha": 3.0, "targets": ["q", "v"], "dora": False, "rslora": True}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return drawn_data(tmp_path_factory)


@pytest.fixture(scope="module")
def run(tmp_path_factory, data) -> Path:
    """A run of lora with options of its own."""
    run = tmp_path_factory.mktemp("lora") / "run"
    flags = ("--late-blocks", "2", "--rank", "2", "--alpha", "3", "--targets", "q,v", "--rslora")
    succeed("train", "--data", data, "--output", run, *FLAGS, *flags)
    return run


def test_config_and_adapter_hold_the_options_of_the_method(run):
    settings = yaml.safe_load((run / "config.yaml").read_text())
    assert {field: settings[field] for field in OWN} == OWN
    header, _ = read_adapter(run / "adapter.safetensors")
    assert header.options == OWN


def test_the_config_of_a_run_repeats_it_with_its_options(run, tmp_path):
    succeed("train", "--config", run / "config.yaml", "--output", tmp_path / "again")
    first, again = (folder / "adapter.safetensors" for folder in (run, tmp_path / "again"))
    assert again.read_bytes() == first.read_bytes()


def test_the_config_of_a_run_holds_no_option_of_another_method(data, tmp_path):
    flags = ("--dataset", "isic2016", *TINY, "--method", "decoder", "--epochs", "1")
    succeed("train", "--data", data, "--output", tmp_path / "run", *flags)
    assert not yaml.safe_load((tmp_path / "run/config.yaml").read_text()).keys() & OWN.keys()


def test_an_option_of_another_method_in_a_config_file_is_refused(run, tmp_path):
    message = refuse("train", "--config", run / "config.yaml", "--output", tmp_path / "no", "--method", "cad")
    assert "6 settings are wrong" in message
    assert "--targets q,v: an option of --method lora; cad has no options" in message
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("cad", {"rank": 4}, "--rank 4: an option of --method lora; cad has no options"),
        ("full", {"dora": True}, "--dora: an option of --method lora; full takes --late-blocks"),
        (
            "decoder",
            {"late_blocks": 1},
            "an option of --method sam-adapter, medical-adapter, lora, full; dec",
        ),
        ("lora", {"rnk": 4}, "--rnk 4: there is no such setting; did you mean '--rank'?"),
        ("cad", {"colour": "red"}, "--colour red: there is no such setting"),
        ("lora", {"rank": 0}, "--rank 0: expected a whole number, at least 1 and at most 512"),
        ("lora", {"targets": ("q", "prjo")}, "did you mean 'proj'?"),
        ("lora", {"late_blocks": 5}, "--late-blocks 5: sam-tiny has 4 blocks"),
    ],
)
def test_a_wrong_option_from_python_says_what_is_right(method, options, message):
    with pytest.raises(SettingError) as caught:
        attach(small_backbone("sam-tiny", image_size=32), method, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_options_of_other_methods_are_listed_at_once():
    with pytest.raises(SettingError, match="2 settings are wrong") as caught:
        attach(small_backbone("sam-tiny", image_size=32), "cad", rank=4, late_blocks=2)
    assert [line.split()[0] for line in str(caught.value).splitlines()[1:]] == ["--rank", "--late-blocks"]


class _OwnOptions(MethodOptions):
    rank: int = 7
    """Another method's name for something else."""


def test_a_row_of_ones_own_has_its_own_options():
    row = replace(METHODS["decoder"], name="mine", options=_OwnOptions)
    backbone = small_backbone("sam-tiny", image_size=32)
    assert dict(attach(backbone, row, rank=9).options) == {"rank": 9}
    with pytest.raises(SettingError, match="--alpha 1: an option of --method lora; mine takes --rank"):
        attach(backbone, row, alpha=1)


def test_owners_are_the_methods_that_have_an_option():
    assert owners("rank") == ("lora",)
    assert owners("late_blocks") == ("sam-adapter", "medical-adapter", "lora", "full")
    assert owners("epochs") == ()
