"""The lines of `samfit plan`: what each method takes on each backbone, or what fits."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from samfit.backbones import BACKBONES
from samfit.defaults import resolve
from samfit.methods import METHODS, row_of
from samfit.options import LoraOptions
from samfit.plan.choice import ALLOWANCE, Way, encoding, offers, peak, setups_of
from samfit.plan.remembered import prediction, training
from samfit.plan.setup import Estimate, Setup, setup_of
from samfit.progress import track
from samfit.settings import PlanSettings, TrainSettings

_NOWHERE = Path("nowhere")
"""Stands for data and run, of which a plan reads nothing."""


@dataclass(frozen=True)
class Line:
    """One setup and what it takes."""

    setup: Setup
    largest_batch: int | None = None
    """Images that can pass at once within the memory that was asked about; None where none was."""
    parts: int = 1
    """In how many parts the batch passes then."""

    @property
    def training(self) -> Estimate:
        """What a training step takes."""
        return training(self.setup)

    @property
    def prediction(self) -> Estimate:
        """What it takes to segment one image, as is done in float32."""
        return prediction(replace(self.setup, batch_size=1, precision="32"))

    @property
    def peak(self) -> int:
        """The most bytes that a training takes."""
        return peak(self.setup)

    @property
    def given_up(self) -> tuple[str, ...]:
        """What is given up for it, in words, the worst first."""
        return Way(self.setup, self.parts).given_up

    def look_up(self) -> None:
        """Trace what is not known yet, so that every number is at hand."""
        self.in_words()

    def in_words(self) -> dict[str, Any]:
        """Return the line as plain values."""
        return {
            "setup": asdict(self.setup) | {"options": dict(self.setup.options)},
            "largest_batch": self.largest_batch,
            "given_up": list(self.given_up),
            "training": asdict(self.training),
            "encoding": encoding(self.setup) if self.setup.cached else None,
            "peak": self.peak,
            "prediction": asdict(self.prediction),
            "allowance": ALLOWANCE,
        }


def lines(settings: PlanSettings) -> list[Line]:
    """Return what was asked for, every number known."""
    backbones = [settings.backbone] if settings.backbone else list(BACKBONES)
    methods = [settings.method] if settings.method else list(METHODS)
    pairs = [(backbone, method) for backbone in backbones for method in methods]
    found = []
    for backbone, method in track(pairs, "planning", len(pairs)):
        for line in _of_pair(settings, backbone, method, every_way=len(pairs) == 1):
            line.look_up()
            found.append(line)
    return found


def _of_pair(settings: PlanSettings, backbone: str, method: str, *, every_way: bool) -> Iterator[Line]:
    setups = _setups(settings, backbone, method)
    if settings.vram is None:
        yield from map(Line, setups if every_way else setups[:1])
        return
    offered = offers(setups, settings.vram - ALLOWANCE)
    if not offered:
        yield Line(replace(setups[-1], batch_size=1), 0)
        return
    batch = setups[0].batch_size
    found = [
        Line(replace(offer.setup, batch_size=1), offer.largest_batch, -(-batch // offer.largest_batch))
        for offer in offered
    ]
    found.sort(key=lambda line: Way(line.setup, line.parts).costs)
    yield from found if every_way else found[:1]


def _setups(settings: PlanSettings, backbone: str, method: str) -> list[Setup]:
    """Return the setups of one method on one backbone that the settings leave open, best first."""
    row = row_of(method)
    options = set(row.options.model_fields if settings.method is None else LoraOptions.model_fields)
    given = settings.model_fields_set & (options | {"image_size", "batch_size", "attention"})
    values = {field: getattr(settings, field) for field in given}
    train = resolve(TrainSettings(data=_NOWHERE, output=_NOWHERE, backbone=backbone, method=method, **values))
    asked = setup_of(
        train, classes=settings.classes, device=settings.accelerator, checkpointing=False, cached=False
    )
    caches = {"on": [True], "off": [False], None: [False, True]}[settings.cache]
    return setups_of(
        asked,
        precisions=[settings.precision] if settings.precision else ["32", "bf16"],
        checkpointing={"on": [True], "off": [False], None: [False, True]}[settings.checkpointing],
        cached=caches if row.caches_embedding else [False],
    )
