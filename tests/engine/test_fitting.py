"""Making a training fit: what is chosen for `--vram`, what is left alone, and when checkpointing is on."""

import logging
from pathlib import Path

import pytest
import torch
from plan_support import MB, WEIGHTS, estimate, of_prediction

from samfit import processes
from samfit.defaults import resolve
from samfit.engine import fitting
from samfit.engine.fitting import fit_to_vram, needs_checkpointing
from samfit.errors import SettingError
from samfit.plan import choice
from samfit.plan.choice import ALLOWANCE
from samfit.settings import TrainSettings

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _known_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "training", estimate)
    monkeypatch.setattr(choice, "prediction", of_prediction)


def settings(**given: object) -> TrainSettings:
    """Return settings of a batch of four images of 40 MB each."""
    usual = {"data": Path("d"), "output": Path("r"), "backbone": "sam-tiny", "method": "cad", "batch_size": 4}
    return resolve(TrainSettings.model_validate(usual | {"vram": ALLOWANCE + WEIGHTS + 160 * MB} | given))


def fit(asked: TrainSettings) -> TrainSettings:
    """Fit a training on two images and one for validation."""
    return fit_to_vram(asked, 1, CPU, training=2, validation=1)


def fitted(**given: object) -> dict[str, object]:
    chosen = fit(settings(**given))
    return {name: getattr(chosen, name) for name in ("precision", "checkpointing", "accumulate", "cache")}


def vram(megabytes: float) -> int:
    """Return what leaves so much for the images of a step."""
    return ALLOWANCE + WEIGHTS + int(megabytes * MB)


def test_without_vram_nothing_is_chosen():
    asked = settings(vram=None)
    assert fit(asked) is asked


def test_what_fits_stays_as_it_is():
    assert fitted() == {"precision": "32", "checkpointing": "off", "accumulate": 1, "cache": "auto"}


def test_what_is_chosen_is_said_and_written_into_the_settings(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "samfit"):
        chosen = fitted(vram=vram(20), method="medical-adapter")
    assert chosen == {"precision": "32", "checkpointing": "on", "accumulate": 2, "cache": "auto"}
    for word in ("--checkpointing on", "--accumulate 2", "time, to compute", "--vram 0.82 GB"):
        assert word in caplog.text


def test_a_cache_takes_the_encoder_off_the_device_where_that_helps():
    alone = {"precision": "32", "checkpointing": "off", "accumulate": 1, "cache": "disk"}
    assert fitted(vram=vram(80)) == alone
    assert fitted(vram=vram(80), augment="affine") == alone | {"cache": "auto", "checkpointing": "on"}
    assert fitted(vram=vram(80), cache="off") == alone | {"cache": "off", "checkpointing": "on"}


def test_a_cache_is_chosen_only_where_it_has_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SAMFIT_CACHE", str(tmp_path))
    one = 16 * 16 * 64 * 4
    fits, too_small = 17 * one, 17 * one - 1  # two images in eight views, and one for validation
    assert fitted(vram=vram(80), cache_limit=fits)["cache"] == "disk"
    assert fitted(vram=vram(80), cache_limit=too_small)["cache"] == "auto"
    assert fitted(vram=vram(80), cache_limit=too_small)["checkpointing"] == "on"
    assert fitted(vram=vram(80), cache_limit=too_small, cache="disk")["cache"] == "disk"


def test_a_batch_is_not_cut_into_more_parts_than_it_has_images():
    assert fitted(vram=vram(19), method="lora", precision="32", batch_size=5, accumulate=2)["accumulate"] == 5


def test_given_settings_are_kept():
    assert fitted(vram=vram(80), method="lora", checkpointing="off")["checkpointing"] == "off"
    assert fitted(vram=vram(20), precision="32", batch_size=1)["precision"] == "32"
    assert fitted(vram=vram(20), precision="bf16", batch_size=1)["precision"] == "bf16"
    assert fitted(vram=vram(80), cache="memory")["cache"] == "memory"


def test_bfloat16_is_not_chosen_for_embeddings_that_were_asked_for_in_float16():
    assert fitted(vram=vram(25))["precision"] == "bf16"
    chosen = fit(settings(vram=vram(25), cache_half=True))
    assert (chosen.precision, chosen.checkpointing, chosen.accumulate) == ("32", "on", 2)
    assert resolve(chosen) == chosen


def test_parts_that_were_asked_for_are_split_further():
    assert fitted(vram=vram(40), method="lora", accumulate=2)["accumulate"] == 4


def test_what_cannot_fit_is_refused_with_what_would():
    with pytest.raises(SettingError) as refused:
        fit(settings(vram=vram(25), method="lora", image_size=1024, backbone="sam-vit-b"))
    message = str(refused.value)
    assert "--vram 0.82 GB: lora on sam-vit-b at 1024 px takes" in message
    assert "for a single image" in message
    assert "what would fit: --image-size 256 (" in message


def test_of_each_kind_the_nearest_that_fits_is_named():
    with pytest.raises(SettingError) as refused:
        fit(settings(vram=vram(150), method="cad", image_size=1024, backbone="sam-vit-l", cache="off"))
    assert "what would fit: --image-size 512 (" in str(refused.value)


def test_what_nothing_makes_fit_is_refused_plainly():
    with pytest.raises(SettingError, match="nothing near it would fit"):
        fit(settings(vram=ALLOWANCE))


STEP = WEIGHTS + 160 * MB
GPU = torch.device("cuda")


@pytest.mark.parametrize(
    ("device", "free", "expected"),
    [
        (CPU, 20 * STEP, False),
        (CPU, 20 * STEP - 20, True),
        (CPU, None, False),
        (GPU, STEP + ALLOWANCE, False),
        (GPU, STEP + ALLOWANCE - 1, True),
    ],
)
def test_checkpointing_is_on_by_itself_where_a_step_would_not_fit(
    device: torch.device, free: int | None, expected: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fitting, "free_bytes", lambda _: free)
    assert needs_checkpointing(settings(vram=None), 1, device) is expected
    assert needs_checkpointing(settings(vram=None, checkpointing="on"), 1, device)
    assert not needs_checkpointing(settings(vram=None, checkpointing="off"), 1, device)


def test_cached_embeddings_need_less(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fitting, "free_bytes", lambda _: 20 * (STEP - WEIGHTS // 5))
    assert needs_checkpointing(settings(vram=None), 1, CPU)
    assert not needs_checkpointing(settings(vram=None), 1, CPU, cached=True)


def test_processes_of_which_one_is_short_of_memory_all_compute_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    said = []
    monkeypatch.setattr(processes, "anywhere", lambda here, device: said.append(here) or True)
    monkeypatch.setattr(fitting, "free_bytes", lambda _: 20 * STEP)
    with caplog.at_level(logging.INFO, "samfit"):
        assert needs_checkpointing(settings(vram=None), 1, CPU)
    assert said == [False]
    assert "--checkpointing on: another process has less memory free" in caplog.text


def test_processes_on_one_cpu_share_its_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fitting, "free_bytes", lambda _: 2 * 20 * STEP)
    assert not needs_checkpointing(settings(vram=None, devices=2), 1, CPU)
    assert needs_checkpointing(settings(vram=None, devices=3), 1, CPU)
