"""What every method promises. Each check takes a `Case` and raises `AssertionError` where one is broken.

Messages name the tensor, and say what was expected. A check makes its own models and leaves nothing behind.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from samfit.backbones.base import PATCH_EMBEDDING
from samfit.backbones.chunks import Limits, limited
from samfit.errors import SettingError
from samfit.losses import loss_function
from samfit.methods.adapted import AdaptedModel
from samfit.options import BlockOptions
from samfit.runs import load_adapter, read_adapter, save_adapter
from samfit.step import training_step
from samfit.testing.case import Case, answer, decoded, expect, gradients, loss_of, take_step, tensors, unread
from samfit.testing.kept import BETWEEN, kept_by_place, kept_bytes
from samfit.types import Batch, Prompts


def check_identity_at_start(case: Case) -> None:
    """Check that a new model equals the base within 1e-5 where the row says so, and only there."""
    away = _distance(answer(case.attached(), case.batch), case.base_answer)
    expect(
        (away <= 1e-5) == case.row.identity_at_start,
        f"logits of a new model are {away:.1e} away from the base's, but the row says "
        f"identity_at_start={case.row.identity_at_start}",
    )


def check_disabled_is_the_base(case: Case) -> None:
    """Check that a trained model is the base inside `disabled`, to the last bit, and itself afterwards.

    Also where the block raises.
    """
    model, base = case.attached(), case.base_answer
    model.keep_base()
    take_step(model, case.batch)
    logits, values, trained = answer(model, case.batch), _copied(model), set(model.trained())
    expect(not torch.equal(logits, base), "logits do not change when the method is trained for one step")
    with model.disabled():
        expect(torch.equal(answer(model, case.batch), base), "logits inside disabled() are not the base's")
    _expect_unchanged(model, values, trained, "after disabled()")
    expect(torch.equal(answer(model, case.batch), logits), "logits after disabled() are not those before it")
    with suppress(ZeroDivisionError), model.disabled():
        raise ZeroDivisionError
    _expect_unchanged(model, values, trained, "after disabled() around an error")
    expect(torch.equal(answer(model, case.batch), logits), "logits after an error in disabled() are others")


def _expect_unchanged(model: AdaptedModel, values: dict[str, Tensor], trained: set[str], when: str) -> None:
    _expect_names(set(model.trained()), trained, f"trained {when}")
    for name, tensor in tensors(model).items():
        expect(torch.equal(tensor, values[name]), f"{name} is not {when} what it was before")


def check_gradients_on_the_declared_alone(case: Case) -> None:
    """Check that the parts that the row names and the method's parameters get gradients, and nothing else.

    None of them is zero but those that the row names (`without_gradient`), after one step: what is multiplied
    by a zero at the start has no gradient before. The graph of the loss is searched too, so that a tensor
    which no module knows is found.
    """
    model, roles = case.attached_with_roles()
    _expect_names(set(model.trained()), roles.trained, "trained")
    take_step(model, case.batch)
    loss = loss_of(model, case.batch)
    names = {id(tensor): name for name, tensor in tensors(model).items()}
    for leaf in _leaves(loss):
        name = names.get(id(leaf), f"a tensor of shape {tuple(leaf.shape)} that is no parameter")
        expect(name in roles.trained, f"{name} gets a gradient, expected none: the row does not declare it")
    sizes = {name: float(gradient.abs().max()) for name, gradient in gradients(model, loss).items()}
    for name, size in sizes.items():
        if unread(name):
            expect(size == 0, f"the gradient of {name} is {size:.1e}, expected zero: its mask is not read")
        elif name in roles.silent:
            expect(
                size <= 1e-5 * max(sizes.values()),
                f"the gradient of {name} is {size:.1e}, but the row says that it has none",
            )
        else:
            expect(size > 0, f"the gradient of {name} is {size} after a step, expected some: it is trained")


def _leaves(loss: Tensor) -> Iterator[Tensor]:
    """Yield every tensor that backward would give a gradient."""
    waiting, seen = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(leaf := getattr(node, "variable", None), Tensor):
            yield leaf
        waiting.extend(following for following, _ in node.next_functions)


def check_a_step_moves_the_trained_alone(case: Case) -> None:
    """Check that a step moves every trained tensor and leaves every other as it is, to the last bit.

    Frozen modules stay in eval mode meanwhile, those of the method are in train mode. The step is the second
    one, for what begins at zero. Buffers of the method may change or not.
    """
    model, roles = case.attached_with_roles()
    take_step(model, case.batch)
    before = _copied(model)
    take_step(model, case.batch)
    for name, tensor in tensors(model).items():
        still = torch.equal(tensor, before[name])
        if name in roles.trained and not unread(name):
            expect(not still or name in roles.silent, f"{name} is trained, but a step does not move it")
        elif name not in roles.buffers:
            expect(still, f"{name} is frozen, but a step changes it")
    for name, module in model.named_modules():
        frozen = module is model.backbone or name.startswith("backbone.")
        mode = {True: "train", False: "eval"}
        expect(
            module.training != frozen,
            f"module {name} is in {mode[module.training]} mode in training, expected {mode[not frozen]} mode",
        )


def check_the_file_holds_the_trained_alone(case: Case) -> None:
    """Check that an adapter file holds the trained tensors and the method's buffers, and nothing else.

    A model that is new, with other random modules, gives the same logits after loading it.
    """
    model, roles = case.attached_with_roles()
    take_step(model, case.batch)
    fresh = case.attached(seed=1)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "adapter.safetensors"
        save_adapter(path, model)
        _, state = read_adapter(path)
        _expect_names(set(state), roles.trained | roles.buffers, "in the adapter file")
        load_adapter(path, fresh)
    expect(
        torch.equal(answer(fresh, case.batch), answer(model, case.batch)),
        "logits of a new model with the adapter loaded are not those of the model that was saved",
    )


def check_merged_equals_unmerged(case: Case) -> None:
    """Check that the merged backbone answers as the model did, within 1e-5, under the plain names and shapes.

    Where the row says that the method cannot be merged, `merge` must say so with a `SettingError`.
    """
    model = case.stepped()
    before = answer(model, case.batch)
    if not case.row.mergeable:
        with suppress(SettingError):
            model.merge()
            raise AssertionError("merge() works, but the row says mergeable=False: expected a SettingError")
        return
    merged = model.merge()
    shapes, plain = ({n: t.shape for n, t in b.state_dict().items()} for b in (merged, case.make_backbone()))
    _expect_names(set(shapes), set(plain), "in the merged backbone")
    for name, shape in shapes.items():
        expect(shape == plain[name], f"{name} has shape {tuple(shape)} when merged, not {tuple(plain[name])}")
    away = _distance(decoded(merged, case), before)
    expect(away <= 1e-5, f"logits of the merged backbone are {away:.1e} away from the model's")


def check_names_equal_the_stored(case: Case) -> None:
    """Check that the adapter file's names are those of `case.names`: files that exist must stay readable."""
    _expect_names(set(adapter_names(case)), set(case.names), "in the adapter file, against the stored names")


def adapter_names(case: Case) -> list[str]:
    """Return the names of the tensors in the method's adapter file, sorted: what `Case.names` expects."""
    return sorted(case.attached().adapter_state())


def check_checkpointing_changes_no_gradient(case: Case) -> None:
    """Check that gradients are the same to the last bit with checkpointing.

    Where they cross the encoder, it must keep less for them.
    """
    model = case.stepped().train()
    found, kept = {}, {}
    for checkpointing in (False, True):
        model.checkpointing = checkpointing
        found[checkpointing] = gradients(model, loss_of(model, case.batch))
        with kept_bytes(model) as counted:
            model.encode(case.frames)
        kept[checkpointing] = counted()
    for name, gradient in found[False].items():
        away = _distance(found[True][name], gradient)
        expect(away == 0, f"the gradient of {name} is {away:.1e} away from its own without checkpointing")
    expect(
        case.row.caches_embedding or kept[True] < kept[False],
        f"the encoder keeps {kept[True]} bytes with checkpointing, {kept[False]} without: expected fewer",
    )


def check_images_one_by_one_change_no_gradient(case: Case) -> None:
    """Check that gradients are the same if encoder and decoder get one image at a time, as after a shortage.

    Within 1e-5 of their largest value, or of a hundredth of the largest gradient: some hold rounding noise
    alone. What the method does to the embeddings still sees all images.
    """
    model = case.stepped().train()
    expected = gradients(model, loss_of(model, case.batch))
    with limited(Limits(images=1)):
        found = gradients(model, loss_of(model, case.batch))
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        scale = max(float(gradient.abs().max()), 1e-2 * largest)
        away = float((found[name] - gradient).abs().max()) / scale
        expect(away <= 1e-5, f"the gradient of {name} is off by {away:.1e} if images pass one by one")


def check_half_precision_is_close(case: Case) -> None:
    """Check that under bf16 autocast logits are within a tenth of themselves, and gradients finite."""
    model = case.stepped()
    full = answer(model, case.batch)
    with torch.autocast(full.device.type, torch.bfloat16):
        half = answer(model, case.batch)
        loss = loss_of(model, case.batch)
    away = float((half - full).norm() / full.norm())
    expect(away < 0.1, f"logits in bf16 are {away:.1e} of their size away from those in float32")
    for name, gradient in gradients(model, loss).items():
        expect(bool(gradient.isfinite().all()), f"the gradient of {name} is not finite in bf16")


def check_two_images_are_learned(case: Case) -> None:
    """Check that twenty steps halve the loss on two images whose objects are at opposite sides."""
    model = case.attached()
    optimizer = torch.optim.AdamW(model.trained().values(), lr=5e-3)
    losses = []
    for _ in range(20):
        loss = loss_of(model, case.batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    expect(
        losses[-1] < 0.5 * losses[0],
        f"the loss on two images goes from {losses[0]:.3f} to {losses[-1]:.3f} in twenty steps, not to half",
    )


def check_gradient_from_is_true(case: Case) -> None:
    """Check that no part of the encoder before the row's `gradient_from` keeps a tensor for backward.

    Every block from there on keeps some. Where the method has the option, `late_blocks=1` is checked too.
    """
    _check_gradient_from(case)
    if issubclass(case.row.options, BlockOptions):
        _check_gradient_from(replace(case, options={**case.options, "late_blocks": 1}))


def _check_gradient_from(case: Case) -> None:
    model = case.attached().train()
    first, depth = model.gradient_from, len(model.backbone.blocks)
    with kept_by_place(model.backbone) as kept:
        model.encode(case.frames)
    for place in range(depth if first is None else first, depth):
        expect(kept[place] > 0, f"{_named(place)} keeps nothing, expected some: gradient_from is {first}")
    for parameter in model.parameters():
        parameter.requires_grad_(True)  # so that only gradient_from can keep a block from keeping anything
    with kept_by_place(model.backbone) as kept:
        model.encode(case.frames)
    without = [PATCH_EMBEDDING, *range(depth), BETWEEN] if first is None else range(PATCH_EMBEDDING, first)
    for place in without:
        expect(
            kept[place] == 0,
            f"{_named(place)} keeps {kept[place]} tensors for backward, expected none: "
            f"gradient_from is {first}",
        )


def _named(place: int | str) -> str:
    return {PATCH_EMBEDDING: "the patch embedding", BETWEEN: "the encoder outside its blocks"}.get(
        place, f"block {place}"
    )


def check_a_step_is_traceable(case: Case) -> None:
    """Check that a step runs on tensors without values, so that what it needs can be known before it."""
    model, batch = (
        case.attached().train(),
        case.batch,
    )  # the batch is made here: inside it would have no values
    with FakeTensorMode() as mode:
        state = {
            name: mode.from_tensor(tensor).requires_grad_(tensor.requires_grad)
            for name, tensor in tensors(model).items()
        }
        try:
            result = training_step(
                lambda *inputs: functional_call(model, state, inputs),
                model.backbone.frame,
                _faked(batch, mode),
                loss_function("bce-iou"),
            )
            result.loss.backward()
        except RuntimeError as error:
            raise AssertionError(f"a step asks for the values of a tensor: {error}") from error
    for name in model.trained():
        expect(state[name].grad is not None, f"{name} gets no gradient when the step is traced")


def _faked(batch: Batch, mode: FakeTensorMode) -> Batch:
    points, labels = mode.from_tensor(batch.prompts.points), mode.from_tensor(batch.prompts.labels)
    return Batch(
        frame=None if batch.frame is None else mode.from_tensor(batch.frame),
        prompts=Prompts(points, labels, batch.prompts.has_box),
        extra=None if batch.extra is None else mode.from_tensor(batch.extra),
        target=mode.from_tensor(batch.target),
        valid=mode.from_tensor(batch.valid),
        weight=mode.from_tensor(batch.weight),
    )


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors(model).items()}


def _distance(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference as a share of the largest expected value."""
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


def _expect_names(found: set[str], expected: set[str], where: str) -> None:
    faults = [f"{name} is {where}, but should not be" for name in sorted(found - expected)]
    faults += [f"{name} is not {where}, but should be" for name in sorted(expected - found)]
    expect(not faults, "; ".join(faults[:3]) + f" ({len(faults)} in all)")
