"""A run with embeddings that were kept is the run without, and the encoder has nothing left to do in it."""

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from cli_support import refuse
from engine_support import Killed, assert_same_run, interrupted, kill, metrics_of, run_samfit, tiny_settings
from safetensors.torch import load_file
from torch import Tensor, nn

from samfit import processes
from samfit.backbones import card, load_backbone
from samfit.backbones.base import Backbone
from samfit.backbones.chunks import limits
from samfit.cache.size import cache_bytes
from samfit.cache.stores import InMemory, OnDisk
from samfit.config import write_config
from samfit.data import batches
from samfit.data.batches import Preparation, PromptRule, TrainingSet
from samfit.data.drawn import draw_lesions
from samfit.data.order import Draw, StepOrder
from samfit.data.reading import MaskReading
from samfit.data.shown import Frames, Shown
from samfit.data.sources import find_samples
from samfit.data.splits import hold_out
from samfit.data.transforms import UNMOVED, View
from samfit.defaults import in_words, resolve
from samfit.engine import embeddings
from samfit.engine.embeddings import Embeddings, asked_for, choose, on_disk
from samfit.engine.training import resume, train
from samfit.errors import Interrupted, SettingError
from samfit.files import sha256_of_file
from samfit.frame import Frame
from samfit.methods import attach
from samfit.runs import read_checkpoint
from samfit.settings import TrainSettings

METHODS = ("cad", "decoder")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    draw_lesions(folder, training=10, test=2, size=(40, 30))
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_by_one() -> Iterator[None]:
    """Let images pass the model one by one, as they do at 1024 px: then runs are the same to the last bit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(card, "_CELLS_AT_ONCE", 1)
        yield


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """Keep what is cached where no other test looks; return the folder of the embeddings."""
    monkeypatch.setenv("SAMFIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "embeddings"


@pytest.fixture
def settings(data, tmp_path) -> Callable[..., TrainSettings]:
    """Return a function that gives settings of a short training with flips, with changes."""

    def make(name: str = "run", **changes: object) -> TrainSettings:
        return tiny_settings(
            data, tmp_path / name, **({"augment": "flips", "epochs": 2, "accumulate": 1} | changes)
        )

    return make


@pytest.fixture(scope="module")
def uncached(tmp_path_factory, data) -> Callable[..., Path]:
    """Return a function that gives a run of a method and precision without a cache."""
    runs: dict[tuple[str, str], Path] = {}

    def run_of(method: str, precision: str = "32") -> Path:
        if (method, precision) not in runs:
            run = tmp_path_factory.mktemp("uncached") / "run"
            changes = {"method": method, "precision": precision, "cache": "off", "accumulate": 1}
            train(tiny_settings(data, run, augment="flips", epochs=2, **changes))
            runs[method, precision] = run
        return runs[method, precision]

    return run_of


@pytest.fixture
def encoded(monkeypatch) -> list[str]:
    """Note every image that passes an encoder, and every training step."""
    done: list[str] = []
    encode, step = Backbone.encode, embeddings.AdaptedModel.forward

    def watched(self, frame, *others, **named):
        done.extend(["image"] * len(frame))
        return encode(self, frame, *others, **named)

    def stepped(self, *inputs):
        done.append("forward")
        return step(self, *inputs)

    monkeypatch.setattr(Backbone, "encode", watched)
    monkeypatch.setattr(embeddings.AdaptedModel, "forward", stepped)
    return done


def split(settings: TrainSettings) -> tuple[list, list]:
    """Return the training and the validation samples of a run."""
    found = find_samples(settings.dataset, settings.data)
    return hold_out(found.samples, settings.validation_fraction, settings.seed)


def asked(settings: TrainSettings, done: int = 0) -> list[Shown]:
    return asked_for(resolve(settings), *split(settings), done)


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def cache_of(run: Path) -> dict[str, object]:
    return json.loads((run / "summary.json").read_text())["cache"]


def assert_same_curve(run: Path, other: Path, rel: float) -> None:
    """Compare every figure of metrics.csv."""
    rows, others = metrics_of(run), metrics_of(other)
    assert len(rows) == len(others) == 2
    for row, expected in zip(rows, others, strict=True):
        assert {name: float(value) for name, value in row.items()} == {
            name: pytest.approx(float(value), rel=rel, abs=1e-7) for name, value in expected.items()
        }


@pytest.mark.parametrize("place", ["memory", "disk"])
@pytest.mark.parametrize("method", METHODS)
def test_the_curve_in_float32_is_the_one_without_and_each_view_is_encoded_once(
    settings, uncached, encoded, folder, caplog, monkeypatch, method, place
):
    caplog.set_level("INFO", "samfit")
    framed, to_model = [], Frame.to_model
    monkeypatch.setattr(Frame, "to_model", lambda frame, image: framed.append(1) or to_model(frame, image))
    given = settings(method=method, cache=place)
    expected = uncached(method)
    encoded.clear()
    framed.clear()
    run = train(given)
    assert metrics_of(run) == metrics_of(expected)
    assert (run / "adapter.safetensors").read_bytes() == (expected / "adapter.safetensors").read_bytes()
    images = encoded.count("image")
    assert images == len(asked(given)) > 10
    assert len(framed) == images
    assert encoded[:images] == ["image"] * images  # neither a step nor a validation needs the encoder
    summary = cache_of(run)
    assert summary["place"] == place
    assert summary["embeddings"] == images
    assert summary["bytes"] == images * 64 * 8 * 8 * 4
    assert summary["folder"] == (str(folder) if place == "disk" else None)
    where = folder if place == "disk" else "memory"
    assert (
        f" of 16.4 kB, {images * 16.384:.1f} kB in all) are kept in {where}\n"
        in (run / "log.txt").read_text()
    )
    assert len(files_in(folder)) == (images if place == "disk" else 0)


@pytest.mark.parametrize("method", METHODS)
def test_the_curve_in_half_precision_is_within_a_hundredth_of_the_one_without(settings, uncached, method):
    run = train(settings(method=method, cache="memory", precision="bf16"))
    losses, scores = curve_of(run)
    for precision in ("bf16", "32"):
        expected = curve_of(uncached(method, precision))
        assert losses == pytest.approx(expected[0], rel=1e-2)
        assert scores == pytest.approx(expected[1], abs=1e-2)
    assert cache_of(run)["bytes"] == 64 * 8 * 8 * 2 * cache_of(run)["embeddings"]


@pytest.mark.parametrize(("method", "place"), [("cad", "memory"), ("decoder", "disk")])
def test_the_curve_with_embeddings_in_float16_is_within_a_hundredth_of_the_one_without(
    settings, uncached, folder, method, place
):
    run = train(settings(method=method, cache=place, cache_half=True))
    (losses, scores), expected = curve_of(run), curve_of(uncached(method))
    assert losses != expected[0]
    assert losses == pytest.approx(expected[0], rel=1e-2)
    assert scores == pytest.approx(expected[1], abs=1e-2)
    assert cache_of(run)["bytes"] == 64 * 8 * 8 * 2 * cache_of(run)["embeddings"]
    kept = [tensor for path in files_in(folder) for tensor in load_file(path).values()]
    assert {tensor.dtype for tensor in kept} == ({torch.float16} if place == "disk" else set())


def curve_of(run: Path) -> tuple[list[float], list[float]]:
    """Return losses and Dice of the epochs."""
    rows = metrics_of(run)
    return [float(row["loss"]) for row in rows], [float(row["validation_dice"]) for row in rows]


def test_methods_that_leave_the_encoder_alone_share_what_is_on_disk(settings, encoded, uncached):
    expected = uncached("decoder")
    train(settings("first", method="cad", cache="disk"))
    encoded.clear()
    run = train(settings("second", method="decoder", cache="disk", attention="eager"))
    assert "image" not in encoded
    assert_same_curve(run, expected, rel=1e-6)


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_a_run_that_was_stopped_and_resumed_uses_the_cache_again(settings, encoded, place):
    given = settings(method="cad", cache=place)
    with interrupted(16, lambda: signal.raise_signal(signal.SIGTERM)), pytest.raises(Interrupted):
        train(given)
    position = read_checkpoint(given.output / "last.ckpt")["position"]
    done = position["epoch"] * 3 + position["step"]
    assert 3 <= done < 6
    encoded.clear()
    resume(given.output)
    assert encoded.count("image") == (len(asked(given, done)) if place == "memory" else 0)
    encoded.clear()
    whole = train(settings("whole", method="cad", cache=place))
    assert encoded.count("image") == (len(asked(given)) if place == "memory" else 0)
    assert_same_run(given.output, whole)


@pytest.mark.parametrize(
    ("action", "raised"),
    [(kill, Killed), (lambda: signal.raise_signal(signal.SIGTERM), Interrupted)],
    ids=["kill -9", "SIGTERM"],
)
def test_what_was_encoded_before_a_cut_is_not_encoded_again(settings, encoded, monkeypatch, action, raised):
    given = settings(method="decoder", cache="disk")
    put = OnDisk.put

    def cut(self, *entry):
        put(self, *entry)
        if encoded.count("image") == 6:
            action()

    monkeypatch.setattr(OnDisk, "put", cut)
    with pytest.raises(raised):
        train(given)
    monkeypatch.setattr(OnDisk, "put", put)
    assert encoded == ["image"] * 6
    resume(given.output)
    assert encoded.count("image") == len(asked(given))


def test_what_is_lost_or_damaged_while_a_run_goes_on_is_computed_again(
    settings, encoded, uncached, folder, monkeypatch
):
    expected = uncached("cad")
    fill = Embeddings.fill

    def spoiled(self, *arguments):
        fill(self, *arguments)
        encoded.clear()
        for number, path in enumerate(sorted(files_in(folder))):
            if number % 3 == 0:
                path.unlink()
            if number % 3 == 1:
                content = path.read_bytes()
                path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    monkeypatch.setattr(Embeddings, "fill", spoiled)
    given = settings(method="cad", cache="disk")
    run = train(given)
    assert metrics_of(run) == metrics_of(expected)
    assert encoded.count("image") == len(asked(given)) - len(asked(given)) // 3
    assert encoded[0] == "image"


def test_an_image_that_runs_out_of_memory_while_the_cache_fills_passes_in_smaller_chunks(
    settings, uncached, monkeypatch, caplog
):
    expected, encode, tried = uncached("cad"), Backbone.encode, []

    def short(self, *arguments, **named):
        tried.append(limits().divisor)
        if len(tried) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return encode(self, *arguments, **named)

    monkeypatch.setattr(Backbone, "encode", short)
    run = train(settings(method="cad", cache="memory"))
    assert tried[:4] == [1, 1, 2, 2]
    assert "going on in chunks of 1/2 of their size" in caplog.text
    losses, others = ([float(row["loss"]) for row in metrics_of(one)] for one in (run, expected))
    assert losses == pytest.approx(others, rel=1e-5)


def trained_apart(given: TrainSettings) -> "subprocess.CompletedProcess[str]":
    """Train in a process of its own."""
    config = given.output.with_suffix(".yaml")
    write_config(config, in_words(given))
    return run_samfit("train", "--config", str(config), timeout=280)


def test_a_run_may_find_that_another_has_filled_the_cache_meanwhile(
    settings, uncached, folder, encoded, monkeypatch
):
    """The other trains from its start to its end while this one has put its sixth embedding."""
    put, one, other = OnDisk.put, *(settings(name, method="decoder", cache="disk") for name in "ab")

    def with_another(self, *entry):
        put(self, *entry)
        if encoded.count("image") == 6:
            train(other)

    monkeypatch.setattr(OnDisk, "put", with_another)
    train(one)
    for given in (one, other):
        assert_same_curve(given.output, uncached("decoder"), rel=1e-6)
    assert len(files_in(folder)) == len(asked(one))


@pytest.mark.slow
def test_two_runs_may_fill_the_cache_at_once(settings, uncached, folder):
    runs = [settings(name, method="decoder", cache="disk") for name in ("one", "two")]
    with ThreadPoolExecutor() as pool:
        for ended in pool.map(trained_apart, runs):
            assert ended.returncode == 0, ended.stderr
    for given in runs:
        assert_same_curve(given.output, uncached("decoder"), rel=1e-6)
    assert len(files_in(folder)) == len(asked(runs[0]))


def two_processes(given: TrainSettings) -> TrainSettings:
    return given.model_copy(update={"devices": 2, "strategy": "ddp"})


@pytest.mark.slow
def test_two_processes_of_a_run_share_the_work_and_give_the_numbers_of_one(settings, uncached, folder):
    given = two_processes(settings(method="cad", cache="disk"))
    ended = trained_apart(given)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("are kept in") == 1
    assert_same_curve(given.output, uncached("cad"), rel=1e-5)
    assert len(files_in(folder)) == len(asked(given))


class Fabric(SimpleNamespace):
    """What embeddings need of a Fabric: one of two processes on one machine."""

    device = torch.device("cpu")
    world_size = 2

    def barrier(self) -> None:
        """Do nothing."""


@pytest.fixture(scope="module")
def model():
    return attach(load_backbone("sam-tiny", weights="random", image_size=64), "decoder")


def test_each_of_two_processes_encodes_every_second_image(settings, encoded, model, folder, monkeypatch):
    monkeypatch.setattr(processes, "most", lambda count, _: count + 1)  # the other has one more to do
    given = resolve(settings(cache="disk"))
    wanted = asked(given)
    hashes = {shown.image: sha256_of_file(shown.image) for shown in wanted}
    for rank in (0, 1):
        fabric = Fabric(global_rank=rank, local_rank=rank)
        store, after = on_disk(two_processes(given), model.backbone, hashes), Mock()
        Embeddings(store, model, fabric, two_processes(given)).fill(wanted, after)
        own = len(wanted[rank::2])
        assert after.call_count == own + 1  # as often as in the other process
        assert encoded == ["image"] * own
        encoded.clear()
        assert [store.holds(shown) for shown in wanted[rank::2]] == [True] * own
    assert len(files_in(folder)) == len(wanted)


def test_the_encoder_leaves_the_device_and_comes_back(settings, model, monkeypatch):
    encoder = model.backbone.image_encoder
    parameter = SimpleNamespace(device=torch.device("cuda", 0))
    places = []

    def to(device: torch.device) -> nn.Module:
        parameter.device = device
        places.append(device)
        return encoder

    monkeypatch.setattr(encoder, "to", to)
    monkeypatch.setattr(encoder, "parameters", lambda: iter([parameter]))
    cache = Embeddings(InMemory(), model, Fabric(global_rank=0, local_rank=0), resolve(settings()))
    with suppress(Killed), cache.without_encoder():
        assert parameter.device == torch.device("cpu")
        raise Killed
    assert places == [torch.device("cpu"), torch.device("cuda", 0)]


def test_a_run_asks_for_what_its_steps_will_show(settings):
    given = resolve(settings(epochs=9))
    training, validation = split(given)
    everything = set(asked(given))
    shown = {Shown(sample.image, UNMOVED) for sample in validation}
    order = StepOrder(len(training), 3, accumulate=2, seed=0)
    draws = [draw for epoch in range(9) for parts in order.epoch(epoch) for part in parts for draw in part]
    preparation = Preparation(("lesion",), MaskReading(), frame_of(), PromptRule("none"), None)
    images = TrainingSet(training, preparation, loss_size=32, augment="flips")
    assert everything == shown | {images.shown(draw) for draw in draws}
    assert len(everything) < len(validation) + len(draws)  # nine draws of eight views
    assert {view.view for view in everything} == {View(m, t) for m in (False, True) for t in range(4)}
    short = given.model_copy(update={"max_steps": 4})
    assert set(asked(short)) == shown | {images.shown(draw) for draw in draws[: 7 + 3]}
    assert set(asked(short, done=2)) == shown | {images.shown(draw) for draw in draws[6 : 7 + 3]}
    plain = given.model_copy(update={"augment": "none"})
    assert asked(plain) == sorted(Shown(sample.image, UNMOVED) for sample in training + validation)
    limit = cache_bytes(
        load_backbone("sam-tiny", weights="random").card,
        image_size=64,
        numbers="32",
        augment="flips",
        epochs=9,
        training=len(training),
        validation=len(validation),
    )
    assert len(everything) * 64 * 8 * 8 * 4 <= limit


def frame_of():
    return load_backbone("sam-tiny", weights="random", image_size=64).frame


def test_the_encoder_is_shown_what_a_step_without_cache_shows_it(settings):
    given = resolve(settings())
    training, _ = split(given)
    preparation = Preparation(("lesion",), MaskReading(), frame_of(), PromptRule("none"), None)
    images = TrainingSet(training, preparation, loss_size=32, augment="flips")
    frames = Frames(frame_of(), page=None)
    for epoch in range(6):
        for draw in next(StepOrder(len(training), 7, accumulate=1, seed=0).epoch(epoch))[0]:
            assert torch.equal(frames[images.shown(draw)], images[draw].frame)


def test_a_batch_without_frame_is_the_same_in_everything_else(settings):
    given = resolve(settings())
    training, _ = split(given)
    preparation = Preparation(("lesion",), MaskReading(), frame_of(), PromptRule("click"), read_corner)
    kinds = [preparation, replace(preparation, embedded=True)]
    sets = [TrainingSet(training, kind, loss_size=32, augment="flips") for kind in kinds]
    for draw in next(StepOrder(len(training), 7, accumulate=1, seed=0).epoch(3))[0]:
        whole, bare = (images[draw] for images in sets)
        assert bare.frame is bare.embedding is None
        assert torch.equal(bare.extra, whole.extra)
        assert torch.equal(bare.target, whole.target)
        assert torch.equal(bare.valid, whole.valid)
        assert torch.equal(bare.prompts.points, whole.prompts.points)


def read_corner(image, frame) -> Tensor:
    """Read a part of the image that tells its views apart."""
    return torch.from_numpy(image[:20, :20].astype("float32"))


def test_images_are_not_opened_for_a_method_that_does_not_read_them(settings, monkeypatch):
    monkeypatch.setattr(batches, "read_image", Mock(side_effect=AssertionError("an image was opened")))
    given = resolve(settings())
    training, _ = split(given)
    preparation = Preparation(("lesion",), MaskReading(), frame_of(), PromptRule("box"), None, embedded=True)
    images = TrainingSet(training, preparation, loss_size=32, augment="flips")
    for index in range(len(training)):
        assert images[Draw(1, index, 0.5)].target.shape == (1, 1, 32, 32)


LARGE, SMALL = 10**9, 1
ONE = 64 * 8 * 8 * 4


@pytest.mark.parametrize(
    ("cache", "memory", "disk", "limit", "place"),
    [
        ("auto", LARGE, LARGE, "1GiB", "memory"),
        ("auto", SMALL, LARGE, "1GiB", "disk"),
        ("auto", 0, LARGE, "1GiB", "disk"),  # the system does not say what is free
        ("auto", SMALL, SMALL, "1GiB", "off"),
        ("auto", SMALL, LARGE, "1KiB", "off"),
        ("auto", 2 * 10 * ONE, LARGE, "1GiB", "memory"),
        ("auto", 2 * 10 * ONE - 1, LARGE, "1GiB", "disk"),
        ("memory", 10 * ONE, LARGE, "1GiB", "memory"),
        ("memory", 0, LARGE, "1GiB", "memory"),
        ("disk", LARGE, 10 * ONE, "1GiB", "disk"),
    ],
)
def test_the_cache_lies_where_there_is_room(settings, model, monkeypatch, cache, memory, disk, limit, place):
    given = resolve(settings(cache=cache, cache_limit=limit, augment="none"))
    found = chosen(monkeypatch, given, model, memory, disk)
    assert found.place == place
    assert ("not kept" in found.said) == (place == "off")
    assert found.bytes == (0 if place == "off" else 10 * ONE)


def chosen(monkeypatch, given, model, memory: int, disk: int):
    monkeypatch.setattr(embeddings, "free_memory", lambda: memory)
    monkeypatch.setattr(embeddings, "free_disk", lambda folder: disk)
    wanted = asked(given)
    hashes = {shown.image: sha256_of_file(shown.image) for shown in wanted}
    return choose(given, model.backbone, wanted, on_disk(given, model.backbone, hashes))


def test_without_room_in_memory_it_is_said_what_to_do(settings, model, monkeypatch):
    given = two_processes(resolve(settings(cache="memory", augment="none")))
    with pytest.raises(SettingError) as caught:
        chosen(monkeypatch, given, model, 20 * ONE - 1, LARGE)
    assert str(caught.value) == (
        "--cache memory: the embeddings of this run (10 of 16.4 kB, 163.8 kB in all) take 327.7 kB in 2 "
        "processes, and 327.7 kB are free; take --cache disk, or leave --cache out"
    )


def test_without_room_on_disk_it_is_said_what_to_do_and_nothing_is_written(settings, folder, data):
    config = settings().output.with_suffix(".yaml")
    write_config(config, in_words(settings(method="cad", cache="disk", cache_limit="20KB")))
    message = refuse("train", "--config", config)
    assert f"{folder} holds 0.0 kB of the 20.0 kB of --cache-limit" in message
    assert "raise --cache-limit, delete the folder (nothing is lost but time)" in message
    assert not settings().output.exists()
    assert not folder.exists()


def test_the_limit_counts_what_other_runs_left_and_not_what_is_there_already(settings, model, monkeypatch):
    run = train(settings(method="decoder", cache="disk", augment="none", epochs=1))
    held = sum(path.stat().st_size for path in files_in(Path(str(cache_of(run)["folder"]))))
    same = resolve(settings(cache="disk", augment="none", cache_limit=str(held)))
    assert chosen(monkeypatch, same, model, LARGE, LARGE).place == "disk"
    more = resolve(settings(cache="disk", epochs=1, cache_limit=str(held + ONE)))
    with pytest.raises(SettingError, match=r"--cache disk: .* need .* more, and "):
        chosen(monkeypatch, more, model, LARGE, LARGE)


def test_a_run_without_room_goes_on_without_cache_and_says_so(settings, uncached, caplog, monkeypatch):
    caplog.set_level("INFO", "samfit")
    monkeypatch.setattr(embeddings, "free_memory", lambda: SMALL)
    run = train(settings(method="decoder", cache_limit="1KB"))
    assert cache_of(run) == {"place": "off", "folder": None, "embeddings": 0, "bytes": 0}
    assert "are not kept" in (run / "log.txt").read_text()
    assert metrics_of(run) == metrics_of(uncached("decoder"))


@pytest.mark.parametrize("changes", [{"method": "lora"}, {"augment": "affine"}], ids=["lora", "affine"])
def test_auto_is_off_where_no_embedding_could_be_used_twice(settings, caplog, changes):
    caplog.set_level("INFO", "samfit")
    run = train(settings(**({"method": "decoder", "epochs": 1} | changes)))
    assert cache_of(run)["place"] == "off"
    assert "embeddings" not in (run / "log.txt").read_text()
