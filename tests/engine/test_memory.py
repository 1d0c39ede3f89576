"""What passes a model one image at a time goes on in smaller chunks when memory runs out."""

import pytest

from samfit.backbones.chunks import limits
from samfit.engine.memory import of_one_image
from samfit.errors import RunError


def with_memory_for(divisor: int):
    """Return what computes in such small chunks alone, and the divisors that it was tried with."""
    tried = []

    def compute() -> str:
        tried.append(limits().divisor)
        if tried[-1] < divisor:
            raise MemoryError
        return "done"

    return compute, tried


def test_an_image_is_tried_in_smaller_chunks_until_memory_suffices(caplog):
    compute, tried = with_memory_for(4)
    assert of_one_image(compute) == "done"
    assert tried == [1, 2, 4]
    assert limits().divisor == 1
    assert [record.getMessage() for record in caplog.records] == [
        f"out of memory while one image passed the model: repeating it in chunks of 1/{part} of their size"
        for part in (2, 4)
    ]


def test_an_image_that_no_chunk_is_small_enough_for_is_an_error_that_says_what_can_be_done(caplog):
    compute, tried = with_memory_for(8)
    with pytest.raises(RunError, match=r"free the device .* --accelerator cpu, .* smaller --image-size"):
        of_one_image(compute)
    assert tried == [1, 2, 4]


def test_another_error_is_raised_as_it_is():
    with pytest.raises(ZeroDivisionError):
        of_one_image(lambda: 1 / 0)
