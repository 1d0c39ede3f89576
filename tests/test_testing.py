"""The checks of methods: sound methods pass, and each check finds what it is for."""

import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest
from broken_methods import BESIDE, INSIDE, MergesAnyway, MethodRow

from samfit.methods.adapted import AdaptedModel
from samfit.testing import CHECKS, Case, adapter_names, check_method, small_backbone

MERGEABLE = replace(BESIDE, mergeable=True)
MERGES_ANYWAY = MergesAnyway(**vars(BESIDE))
SMALLEST = partial(small_backbone, "efficientsam-ti", image_size=64)

FAULTS = {
    "identity_at_start": [
        (BESIDE, "BeginsElsewhere", r"away from the base's, but the row says identity_at_start=True"),
        (replace(BESIDE, identity_at_start=False), "Shift", r"are 0\.0e\+00 away .* identity_at_start=False"),
    ],
    "disabled_is_the_base": [
        (BESIDE, "ForgetsToSwitchOff", r"inside disabled\(\) are not the base's"),
        (BESIDE, "StaysOff", r"after disabled\(\) are not those before"),
        (BESIDE, "FreezesWhenOff", r"adapter\.shift is not trained after disabled\(\)"),
    ],
    "gradients_on_the_declared_alone": [
        (BESIDE, "HidesATensor", r"tensor of shape \(32, 1, 1\) that is no parameter gets a gradient"),
        (BESIDE, "Thaws", r"backbone\.prompt_encoder\.\S+ gets a gradient, expected none"),
        (BESIDE, "HasAnIdleTensor", r"gradient of adapter\.idle is 0\.0 after a step, expected some"),
        (
            replace(BESIDE, without_gradient={"adapter.sh*": "it is said to have none"}),
            "Shift",
            r"gradient of adapter\.shift is \S+, but the row says that it has none",
        ),
    ],
    "a_step_moves_the_trained_alone": [
        (BESIDE, "HasAnIdleTensor", r"adapter\.idle is trained, but a step does not move it"),
        (BESIDE, "ChangesAFrozenTensor", r"backbone\.prompt_encoder\.\S+ is frozen, but a step changes it"),
        (BESIDE, "WakesAFrozenModule", r"backbone\.prompt_encoder is in train mode .* expected eval mode"),
    ],
    "the_file_holds_the_trained_alone": [
        (BESIDE, "LeavesABuffer", r"backbone\.counted is not in the adapter file, but should be"),
        (BESIDE, "Remembers", r"logits of a new model with the adapter loaded are not those"),
    ],
    "merged_equals_unmerged": [
        (MERGEABLE, "Shift", r"logits of the merged backbone are \S+ away"),
        (MERGES_ANYWAY, "Shift", r"merge\(\) works, but the row says mergeable=False"),
        (MERGEABLE, "MergesUnderAnotherName", r"shift is in the merged backbone, but should not be"),
    ],
    "names_equal_the_stored": [
        (BESIDE, "Shift", r"adapter\.shift is in the adapter file, against the stored")
    ],
    "checkpointing_changes_no_gradient": [
        (INSIDE, "DrawsNumbers", r"the gradient of \S+ is \S+ away from its own without checkpointing"),
        (
            replace(BESIDE, gradient_from=0),
            "Shift",
            r"keeps \d+ bytes with checkpointing, 0 without: expected fewer",
        ),
    ],
    "images_one_by_one_change_no_gradient": [
        (INSIDE, "MixesImages", r"the gradient of \S+ is off by \S+ if images pass one by one")
    ],
    "half_precision_is_close": [(BESIDE, "LosesPrecision", r"logits in bf16 are \S+ of their size away")],
    "two_images_are_learned": [
        (
            replace(BESIDE, trains=()),
            "HardlyMoves",
            r"the loss on two images goes from \S+ to \S+ in twenty steps",
        )
    ],
    "gradient_from_is_true": [
        (INSIDE, "LastBlockAlone", r"block 0 keeps nothing, expected some: gradient_from is 0"),
        (INSIDE, "KeepsEverywhere", r"block 0 keeps \d+ tensors .* none: gradient_from is 1"),
        (replace(BESIDE, options=INSIDE.options), "KeepsEverywhere", r"expected none: gradient_from is None"),
    ],
    "two_processes_equal_one": [(BESIDE, "NormalisesEachProcess", r"process 0 of 2 is off by")],
    "a_step_is_traceable": [(BESIDE, "ReadsAValue", r"a step asks for the values of a tensor")],
}
"""Check to rows, kinds of `broken_methods` and what is said of them."""


@pytest.mark.parametrize("row", [BESIDE, INSIDE], ids=lambda row: row.name)
def test_a_sound_method_keeps_every_promise(row):
    check_method(row, SMALLEST, names=adapter_names(Case(row, SMALLEST)))


@pytest.mark.parametrize(
    ("check", "row", "kind", "message"),
    [
        pytest.param(check, *fault, id=f"{check}-{fault[1]}-{number}")
        for check, faults in FAULTS.items()
        for number, fault in enumerate(faults)
    ],
)
def test_a_broken_promise_is_found(check, row: MethodRow, kind: str, message: str):
    with pytest.raises(AssertionError, match=message):
        CHECKS[check](Case(row, SMALLEST, options={"kind": kind}))


def test_a_model_that_an_error_leaves_switched_off_is_found(monkeypatch):
    @contextmanager
    def disabled(model):
        model._enable(False)
        yield
        model._enable(True)

    monkeypatch.setattr(AdaptedModel, "disabled", disabled)
    with pytest.raises(AssertionError, match=r"logits after an error in disabled\(\) are others"):
        CHECKS["disabled_is_the_base"](Case(replace(BESIDE, trains=()), SMALLEST))


def test_every_check_is_seen_to_fail():
    assert FAULTS.keys() == CHECKS.keys()


def test_all_broken_promises_of_a_method_are_said_at_once(monkeypatch):
    names = ("identity_at_start", "gradients_on_the_declared_alone", "names_equal_the_stored")
    monkeypatch.setattr("samfit.testing.CHECKS", {name: CHECKS[name] for name in names})
    with pytest.raises(AssertionError, match="beside breaks 2 promises") as found:
        check_method(BESIDE, SMALLEST, names=["adapter.lost"], kind="HasAnIdleTensor")
    said = [line.split(":")[0] for line in str(found.value).splitlines()]
    assert tuple(said[1:]) == names[1:]


def test_the_checks_need_no_test_framework():
    code = "import sys, samfit.testing; print('pytest' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout == "False\n"
