"""Steps that run out of memory and end as if they had not."""

import logging
import weakref
from functools import partial

import pytest
import torch
from shortage_support import MESSAGE, WORLD, Shortage, Trained, assert_same, measures_from, run_out_in_turn
from torch.multiprocessing.spawn import start_processes

from samfit import processes
from samfit.engine import stepping
from samfit.engine.memory import ran_out
from samfit.engine.stepping import AtOnce, NothingLess
from samfit.testing.held import peak_bytes

pytestmark = pytest.mark.usefixtures("quick_collection")

METHODS = ("cad", "medical-adapter")
"""Without and with a gradient through the encoder."""
INJECTED = (20, pytest.param(100, marks=pytest.mark.slow))
"""How many errors are spread over the steps of all methods."""


@pytest.mark.parametrize("injected", INJECTED)
@pytest.mark.parametrize("method", METHODS)
def test_a_step_that_runs_out_anywhere_is_the_step_that_never_did(method, injected):
    """From two images at once to one; where the optimizer runs out, it alone is repeated."""
    trained = Trained(method, steps=1)
    expected = {shortages: trained.taken(shortages) for shortages in (1, 2)}
    trained.taken(1, counted := Shortage())
    count = len(counted.seen)
    assert counted.names[-1] == "aten::_fused_adamw_"
    reached = set()
    for number in torch.linspace(1, count, injected // len(METHODS)).long().tolist():
        torch.manual_seed(number)
        found = trained.taken(1, shortage := Shortage(number))
        assert len(shortage.seen) > number
        shortages = trained.stepper.at_once.shortages
        reached.add(shortages)
        assert_same(found, expected[shortages])
        assert all(parameter.grad is None for parameter in trained.stepper.trained)
    assert reached == {1, 2}


def test_an_optimizer_that_runs_out_in_its_first_step_takes_it_again():
    trained = Trained("decoder", steps=0)
    expected = trained.taken(0)
    trained.taken(0, counted := Shortage())
    made = [number for number, name in enumerate(counted.names, 1) if name == "aten::zeros_like"]
    for number in (*made[-2:], len(counted.seen) - 1, len(counted.seen)):
        assert_same(trained.taken(0, Shortage(number)), expected)
        assert trained.stepper.at_once.shortages == 0


@pytest.mark.parametrize("method", METHODS)
def test_the_least_of_a_part_at_once_gives_the_gradients_of_everything_at_once(method):
    """To a millionth of all of them: they are added up in another order."""
    trained = Trained(method, steps=0)
    whole, least = (trained.taken(shortages) for shortages in (0, 4))
    one, other = (
        torch.cat([tensor.flatten() for name, tensor in state.items() if name.startswith("exp_avg of")])
        for state in (whole, least)
    )
    assert not torch.equal(one, other), "it must be able to fail"
    assert (one - other).norm() <= 1e-6 * one.norm()


def test_checkpointing_and_then_fewer_images_take_less_memory():
    trained = Trained("medical-adapter", steps=1, image_size=128)
    peaks = []
    for place in (0, 1, 2):  # at this size an image is a single chunk
        trained.go_back(place)
        peaks.append(peak_bytes(trained.step))
    assert peaks[1] < 0.7 * peaks[0]
    assert peaks[2] < 0.9 * peaks[1]


def test_first_what_costs_least_is_taken_back():
    assert measures_from(AtOnce(False, 5, 5)) == [
        AtOnce(False, 5, 5),
        AtOnce(True, 5, 5, shortages=1),
        AtOnce(True, 2, 5, shortages=2),
        AtOnce(True, 1, 5, shortages=3),
        AtOnce(True, 1, 5, 2, shortages=4),
        AtOnce(True, 1, 5, 4, shortages=5),
        AtOnce(True, 1, 2, 4, shortages=6),
        AtOnce(True, 1, 1, 4, shortages=7),
    ]


def test_a_step_that_always_runs_out_ends_as_it_began_and_says_what_was_tried(caplog):
    trained = Trained("cad", steps=1)
    trained.go_back(0)
    before = trained.state()
    with pytest.raises(NothingLess), Shortage(named="aten::gelu_backward"):
        trained.step()
    assert_same(trained.state(), before)
    assert all(record.levelno == logging.WARNING for record in caplog.records)
    said = "out of memory in step 3 of epoch 1: repeating it and going on with "
    assert [record.getMessage().removeprefix(said) for record in caplog.records] == [
        "checkpointing and at most 2 images at once",
        "checkpointing and at most 1 image at once",
        "one image at once, in chunks of 1/2 of their size",
        "one image at once, in chunks of 1/4 of their size",
        "one image at once, in chunks of 1/4 of their size, in parts of at most 1 image; "
        "batch statistics are those of such a part",
    ]


@pytest.mark.parametrize(("method", "split"), [("cad", True), ("medical-adapter", False)])
def test_a_part_that_is_cut_in_the_end_is_the_step_in_as_many_parts(method, split, caplog):
    """For a method with batch statistics that is another step, and the log says so."""
    trained = Trained(method, steps=0)
    trained.go_back(4)
    expected = trained.stepper.take(trained.batch.split(1), 7, "step"), trained.state()
    assert not trained.stepper.splits_statistics
    trained.go_back(5)
    found = trained.step(), trained.state()
    assert_same(found[1], expected[1])
    assert found[0] == expected[0]
    assert trained.stepper.splits_statistics == split
    assert ("statistics" in trained.stepper._in_words()) == split


def test_processes_cut_a_part_into_equally_many_pieces(monkeypatch):
    """One that has fewer images repeats some without a share in the loss and the batch statistics."""
    trained = Trained("cad", steps=0)
    trained.go_back(5)
    monkeypatch.setattr(processes, "most", lambda count, _: count + 1)
    pieces = trained.stepper._pieces(trained.batch)
    assert [piece.weight.tolist() for piece in pieces] == [[0.5], [0.5], [0.0]]
    torch.testing.assert_close(torch.cat([piece.frame for piece in pieces[:2]]), trained.batch.frame)
    torch.testing.assert_close(pieces[2].frame, pieces[0].frame)


def test_an_optimizer_that_always_runs_out_leaves_weights_and_state_as_they_were():
    trained = Trained("decoder", steps=1)
    weights = trained.state()
    with pytest.raises(NothingLess), Shortage(named="aten::_fused_adamw_"):
        trained.step()
    assert_same(trained.state(), weights)


def test_nothing_of_a_failed_attempt_is_held_when_the_next_begins(monkeypatch):
    trained = Trained("medical-adapter", steps=1)
    trained.go_back(1)
    made: list[weakref.ref[torch.Tensor]] = []
    left: list[int] = []

    class Watched(Shortage):
        def __torch_dispatch__(self, *call):
            result = super().__torch_dispatch__(*call)
            if isinstance(result, torch.Tensor) and result.numel() > 1:
                made.append(weakref.ref(result))
            return result

    original = stepping.training_step

    def training_step(*inputs):
        left.append(sum(reference() is not None for reference in made))
        return original(*inputs)

    monkeypatch.setattr(stepping, "training_step", training_step)
    with Watched(3000):
        trained.step()
    assert len(made) > 3000
    assert left == [0, 0]


def test_other_errors_pass():
    trained = Trained("decoder", steps=0)

    def fail(*_):
        raise RuntimeError("shapes do not fit")

    trained.stepper.model.backbone.decode = fail
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        trained.step()
    assert trained.stepper.at_once.shortages == 0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError(MESSAGE), True),
        (MemoryError(), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB)"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("could not create a primitive descriptor for the matmul primitive"), False),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("DefaultCPUAllocator"), False),
    ],
    ids=str,
)
def test_a_lack_of_memory_is_told_from_other_errors(error, expected):
    assert ran_out(error) == expected


def test_the_cpus_own_error_is_a_lack_of_memory():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert ran_out(caught.value)


@pytest.mark.parametrize("failures", [3, pytest.param(9, marks=pytest.mark.slow)])
def test_two_processes_of_which_one_runs_out_repeat_a_step_alike(tmp_path, failures):
    start_processes(
        partial(run_out_in_turn, failures=failures), (tmp_path,), nprocs=WORLD, start_method="spawn"
    )
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD))
    assert_same(one, other)
