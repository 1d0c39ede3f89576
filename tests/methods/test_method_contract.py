"""What every method promises, for every family of backbones: both tables multiplied.

`names/` holds the tensors of every adapter file, one a line. A name that changes makes files unreadable that
exist already. Where that is meant, or for a new method, write them again with
`python tests/methods/test_method_contract.py`.
"""

from functools import cache, partial
from pathlib import Path

import pytest
import torch

from samfit.errors import SettingError
from samfit.methods import METHODS, attach, row_of
from samfit.options import BlockOptions
from samfit.testing import CHECKS, SMALL, Case, adapter_names, small_backbone

NAMES = Path(__file__).parent / "names"
SIZES = {"sam-tiny": 64, "sam-vit-b": 128, "efficientsam-ti": 64}
"""Image sizes at which the whole file takes little more than a minute of one core."""
WITH_BLOCKS = [method for method, row in METHODS.items() if issubclass(row.options, BlockOptions)]
LATE_CHECKS = (
    "identity_at_start",
    "disabled_is_the_base",
    "gradients_on_the_declared_alone",
    "a_step_moves_the_trained_alone",
    "the_file_holds_the_trained_alone",
    "merged_equals_unmerged",
    "checkpointing_changes_no_gradient",
)
"""What the number of adapted blocks could change, beside `gradient_from_is_true`, which tries it itself."""


@cache
def case_of(method: str, family: str, **options: object) -> Case:
    path = names_file(method, family)
    names = path.read_text(encoding="utf-8").split() if path.exists() else ()
    return Case(METHODS[method], partial(small_backbone, family, image_size=SIZES[family]), names, options)


def names_file(method: str, family: str) -> Path:
    return NAMES / f"{method}-{family}.txt"


@pytest.mark.parametrize("family", SMALL)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("check", CHECKS)
def test_every_method_keeps_every_promise(check, method, family):
    CHECKS[check](case_of(method, family))


@pytest.mark.parametrize("method", WITH_BLOCKS)
@pytest.mark.parametrize("check", LATE_CHECKS)
def test_promises_hold_for_the_last_block_alone(check, method):
    CHECKS[check](case_of(method, "efficientsam-ti", late_blocks=1))


def test_every_list_of_names_is_of_a_method_and_a_family():
    expected = {names_file(method, family).name for method in METHODS for family in SMALL}
    assert {path.name for path in NAMES.iterdir()} == expected


def test_an_unknown_method_is_refused_with_the_nearest_name():
    with pytest.raises(SettingError, match="did you mean 'decoder'"):
        row_of("decoders")


@pytest.mark.parametrize("family", SMALL)
def test_several_classes_are_the_decoders_candidate_masks_in_turn(family):
    batch = case_of("decoder", family).batch
    model = attach(small_backbone(family, image_size=SIZES[family]), "decoder", classes=("disc", "cup"))
    with torch.no_grad():
        masks = model.backbone.decode(model.backbone.encode(batch.frame), batch.prompts).logits
        assert torch.equal(model(batch.frame, batch.extra, batch.prompts), masks[:, 1:3])


def test_new_modules_depend_on_the_seed_alone():
    torch.manual_seed(1)
    one = attach(small_backbone("sam-tiny"), "cad", seed=5).adapter_state()
    torch.manual_seed(2)
    same = attach(small_backbone("sam-tiny"), "cad", seed=5).adapter_state()
    other = attach(small_backbone("sam-tiny"), "cad", seed=6).adapter_state()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["adapter.conv_up.weight"], other["adapter.conv_up.weight"])


if __name__ == "__main__":
    NAMES.mkdir(exist_ok=True)
    for method in METHODS:
        for family in SMALL:
            names = adapter_names(case_of(method, family))
            names_file(method, family).write_text("\n".join(names) + "\n", encoding="utf-8")
