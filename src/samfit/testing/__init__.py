"""The promises of every method as functions, for methods of the table and for those written elsewhere.

A method is a `MethodRow` and a module of its own with `build`; `samfit.attach` takes the row. In its tests:

    check_method(ROW, functools.partial(small_backbone, "sam-tiny"), names=NAMES)

or each check by itself, `CHECKS[name](Case(ROW, ...))`. No test framework is needed.
"""

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any

from samfit.backbones.base import Backbone
from samfit.methods.row import MethodRow
from samfit.testing.backbones import SMALL, small_backbone
from samfit.testing.case import Case
from samfit.testing.checks import (
    adapter_names,
    check_a_step_is_traceable,
    check_a_step_moves_the_trained_alone,
    check_checkpointing_changes_no_gradient,
    check_disabled_is_the_base,
    check_gradient_from_is_true,
    check_gradients_on_the_declared_alone,
    check_half_precision_is_close,
    check_identity_at_start,
    check_images_one_by_one_change_no_gradient,
    check_merged_equals_unmerged,
    check_names_equal_the_stored,
    check_the_file_holds_the_trained_alone,
    check_two_images_are_learned,
)
from samfit.testing.processes import check_two_processes_equal_one

__all__ = [
    "CHECKS",
    "SMALL",
    "Case",
    "adapter_names",
    "check_method",
    "small_backbone",
]

CHECKS: Mapping[str, Callable[[Case], None]] = MappingProxyType(
    {
        check.__name__.removeprefix("check_"): check
        for check in (
            check_identity_at_start,
            check_disabled_is_the_base,
            check_gradients_on_the_declared_alone,
            check_a_step_moves_the_trained_alone,
            check_the_file_holds_the_trained_alone,
            check_merged_equals_unmerged,
            check_names_equal_the_stored,
            check_checkpointing_changes_no_gradient,
            check_images_one_by_one_change_no_gradient,
            check_half_precision_is_close,
            check_two_images_are_learned,
            check_gradient_from_is_true,
            check_two_processes_equal_one,
            check_a_step_is_traceable,
        )
    }
)
"""Every check by its name. Each raises `AssertionError` with the tensor and what was expected of it."""


def check_method(
    row: MethodRow, make_backbone: Callable[[], Backbone], *, names: Collection[str], **options: Any
) -> None:
    """Run every check on a method; see `Case` for the arguments. `options`: options of the method.

    Raises one `AssertionError` that says of each promise that is broken what was found.
    """
    case = Case(row, make_backbone, names, options)
    faults = []
    for name, check in CHECKS.items():
        try:
            check(case)
        except AssertionError as fault:
            faults.append(f"{name}: {fault}")
    if faults:
        raise AssertionError(f"{row.name} breaks {len(faults)} promises:\n" + "\n".join(faults))
