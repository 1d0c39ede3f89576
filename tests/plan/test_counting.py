"""Counting bytes of tensors without values."""

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from samfit.plan.counting import Counter, bytes_of, without_values

KILOBYTE = 250
"""Numbers in float32 that take 1000 bytes."""


def test_what_dies_is_no_longer_counted_and_the_peak_is_kept():
    with FakeTensorMode(), Counter([]) as counter:
        first = torch.empty(KILOBYTE)
        second = first + 1
        del first
        assert (counter.bytes, counter.peak) == (1000, 2000)
        del second
    assert (counter.bytes, counter.peak) == (0, 2000)


def test_a_view_is_no_new_storage():
    with FakeTensorMode(), Counter([]) as counter:
        whole = torch.empty(KILOBYTE, 2)
        part = whole[:, 0]
    assert part.shape == (KILOBYTE,)
    assert counter.bytes == 2000


def test_what_was_known_before_is_not_counted():
    with FakeTensorMode():
        known = torch.empty(KILOBYTE)
        with Counter([known]) as counter:
            known.add_(1)
    assert counter.peak == 0


def test_a_module_without_values_keeps_forms_flags_and_shared_tensors():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(3, 4))
    module[2].weight = module[0].weight
    module[0].bias.requires_grad_(False)
    forms = {name: (tensor.shape, tensor.dtype) for name, tensor in module.state_dict().items()}
    size = bytes_of([*module.parameters(), *module.buffers()])
    without_values(module, FakeTensorMode())
    tensors = [*module.parameters(), *module.buffers()]
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in module.state_dict().items()} == forms
    assert module[2].weight is module[0].weight
    assert [parameter.requires_grad for parameter in module.parameters()] == [True, False, True, True, True]
    assert bytes_of(tensors) == size == 4 * (12 + 4 + 4 * 4 + 4) + 8
