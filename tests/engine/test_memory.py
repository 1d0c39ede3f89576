"""What passes a model one image at a time goes on in smaller chunks when memory runs out."""

import pytest
import torch
from shortage_support import MESSAGE
from torch import nn

from samfit.backbones.chunks import limits
from samfit.engine.memory import OneByOne, on_device
from samfit.errors import RunError

pytestmark = pytest.mark.usefixtures("quick_collection")


def with_memory_for(divisor: int):
    """Return what computes in such small chunks alone, and the divisors that it was tried with."""
    tried = []

    def compute() -> str:
        tried.append(limits().divisor)
        if tried[-1] < divisor:
            raise MemoryError
        return "done"

    return compute, tried


def test_an_image_is_tried_in_smaller_chunks_until_memory_suffices_and_so_are_those_after_it(caplog):
    compute, tried = with_memory_for(4)
    one_by_one = OneByOne()
    assert [one_by_one(compute), one_by_one(compute)] == ["done", "done"]
    assert tried == [1, 2, 4, 4]
    assert limits().divisor == 1
    assert [record.getMessage() for record in caplog.records] == [
        "out of memory while one image passed the model: repeating it and going on in chunks of "
        f"1/{part} of their size"
        for part in (2, 4)
    ]


def test_an_image_that_no_chunk_is_small_enough_for_is_an_error_that_says_what_can_be_done(caplog):
    compute, tried = with_memory_for(8)
    with pytest.raises(RunError, match=r"free the device .* --accelerator cpu, .* smaller --image-size"):
        OneByOne()(compute)
    assert tried == [1, 2, 4]


def test_another_error_is_raised_as_it_is():
    with pytest.raises(ZeroDivisionError):
        OneByOne()(lambda: 1 / 0)


class TooLarge(nn.Linear):
    """A module that no device has room for."""

    def to(self, *_):
        """Run out of memory."""
        raise torch.OutOfMemoryError(MESSAGE)


def test_weights_that_a_device_has_no_room_for_are_an_error_that_says_what_can_be_done():
    said = r"the weights of the model \(4.00 GB\) .* smaller --backbone \('samfit plan --vram SIZE' .* --acc"
    with pytest.raises(RunError, match=said):
        on_device(TooLarge(10**6, 1000, bias=False, device="meta"), torch.device("cuda"))


def test_what_fits_is_on_the_device_afterwards():
    module = nn.Linear(2, 2)
    assert on_device(module, torch.device("meta")) is module
    assert module.weight.device.type == "meta"
