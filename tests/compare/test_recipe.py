"""A recipe spans a grid, and everything that is wrong with it is said at once."""

from pathlib import Path

import pytest

from samfit.compare.recipe import KEYS, Recipe, read_recipe
from samfit.errors import SettingError

RIGHT = """
data: lesions
backbone: sam-tiny
weights: random
methods: [decoder, lora]
image-sizes: [64, 96]
seeds: [0, 1]
"""


@pytest.fixture
def read(tmp_path):
    """Read a recipe from its text."""

    def function(text: str) -> Recipe:
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return read_recipe(path, Path("report/runs"))

    return function


@pytest.fixture
def faults(read):
    """Return the faults of a recipe, without the place of the file."""

    def function(text: str) -> list[str]:
        with pytest.raises(SettingError) as caught:
            read(text)
        return [
            fault.replace(f" (in {path})", "")
            for fault in caught.value.faults
            for path in [fault.partition(" (in ")[2].partition(")")[0]]
        ]

    return function


def test_lists_span_a_grid_whatever_their_order_in_the_file(read):
    cells = read(RIGHT).cells
    assert [cell.name for cell in cells] == [
        f"sam-tiny-{size}-{method}-seed{seed}"
        for size in (64, 96)
        for method in ("decoder", "lora")
        for seed in (0, 1)
    ]
    settings = cells[3].settings
    assert (settings.method, settings.image_size, settings.seed) == ("lora", 64, 1)
    assert settings.output == Path("report/runs/sam-tiny-64-lora-seed1")
    assert settings.epochs is not None  # resolved


def test_without_lists_there_is_one_run(read):
    (cell,) = read("data: lesions\nmethod: decoder\nbackbone: sam-tiny\nweights: random\nseed: 3\n").cells
    assert (cell.settings.method, cell.settings.seed) == ("decoder", 3)
    assert cell.name == "sam-tiny-decoder-seed3"


def test_an_option_goes_to_the_methods_that_have_it(read):
    cells = read(RIGHT + "rank: 2\n").cells
    assert {cell.settings.method: cell.settings.rank for cell in cells if cell.settings.method == "lora"} == {
        "lora": 2
    }
    assert all(
        "rank" not in cell.settings.model_fields_set for cell in cells if cell.settings.method == "decoder"
    )


def test_flags_of_evaluate_go_to_the_evaluation_and_shared_ones_to_both(read):
    recipe = read(RIGHT + "protocol: [no-truth, default]\naccelerator: cpu\nbatch_size: 3\n")
    scored = recipe.evaluation_of(Path("run"))
    assert (scored.protocol, scored.accelerator, scored.batch_size) == (("no-truth", "default"), "cpu", 4)
    assert all(one.settings.accelerator == "cpu" and one.settings.batch_size == 3 for one in recipe.cells)


def test_all_faults_are_said_at_once_with_the_nearest_names(faults):
    found = faults(
        "method: [cad]\nbackbones: sam-tiny\nseeds: [0, 0]\nepoch: 3\nprotocol: defualt\noutput: x\n"
    )
    assert len(found) == 7
    text = "\n".join(found)
    assert "epoch: there is no such setting; did you mean 'epochs'?" in text
    assert "output: each run has a folder of its own" in text
    assert "backbones sam-tiny: expected a list, as [first, second]" in text
    assert "seeds 0,0: a value is there twice" in text
    assert "data: is needed here or as --data: folder of the data set" in text
    assert "unknown protocol 'defualt'; did you mean 'default'?" in text
    assert "method cad: " in text


@pytest.mark.parametrize("beside", ["u-net", "[unet]", "[[u-net]]"])
def test_what_may_stand_beside_the_runs_is_said(faults, beside):
    (fault,) = faults(RIGHT + f"beside: {beside}\n")
    assert fault.endswith(": expected a list with any of mean-mask, u-net, or [] for neither")


def test_a_wrong_value_of_a_list_is_said_once_with_the_key_of_the_list_known(faults):
    (fault,) = faults(RIGHT.replace("decoder", "decodr"))
    assert fault.startswith("methods decodr: unknown method 'decodr'; did you mean 'decoder'?")


def test_what_does_not_fit_in_one_combination_names_it(faults):
    found = faults(RIGHT.replace("96", "70"))
    assert len(found) == 4
    assert found[0].startswith("sam-tiny-70-decoder-seed0: --image-size 70: sam-tiny needs a multiple of 8;")


def test_a_list_and_its_single_value_cannot_both_be_there(faults):
    assert faults(RIGHT + "seed: 1\n") == ["seeds 0,1: seed is given too; take one of them"]


def test_an_option_that_no_method_of_the_recipe_has_is_refused(faults):
    (fault,) = faults(RIGHT.replace("lora", "cad") + "rank: 2\n")
    assert fault == "rank 2: only lora has it, and the recipe has no such method"


def test_every_key_is_a_flag_or_a_plural_and_devices_are_not_the_recipes(faults):
    assert len(KEYS) == len(set(KEYS))
    assert {"backbones", "methods", "epochs", "protocol", "rank"} <= set(KEYS)
    assert faults(RIGHT + "devices: 2\n") == ["devices: each run has one device; leave it out"]


def test_a_missing_file_is_said_as_such(tmp_path):
    with pytest.raises(SettingError, match=r"^RECIPE .*none\.yaml: there is no such file$"):
        read_recipe(tmp_path / "none.yaml", tmp_path)
