"""The table of protocols: what one must say of a score before it can be compared with another.

A protocol is a row. It says what the model is asked and whether the answer is in the question, at which size
and which thresholds masks are compared, how scores are smoothed and averaged, and which images may have
chosen the checkpoint.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from samfit.errors import SettingError, unknown_name
from samfit.metrics import METRICS
from samfit.settings import PROMPTS, PROMPTS_FROM_TRUTH, PromptKind


@dataclass(frozen=True)
class Protocol:
    """One way to take scores."""

    name: str
    summary: str
    source: str
    """Whose way it is."""
    metrics: tuple[str, ...]
    """Names in `samfit.metrics.METRICS`."""
    prompts: tuple[PromptKind, ...] = PROMPTS
    """Kinds of prompt that it knows: the run's own if it is among them, else the first."""
    clicks: int | None = None
    """How many clicks, all of them positive; None: as many as in the run."""
    size: int | None = None
    """Side in pixels of the square at which is scored, aspect lost; None: the original size of each image."""
    thresholds: tuple[float, ...] = (0.5,)
    """At which a probability, and the truth with it, becomes foreground; the scores are means over them.
    Metrics of maps take the truth at the first and the probabilities as they are."""
    reached: bool = True
    """Whether a value that equals the threshold is foreground."""
    smoothing: Mapping[str, float] = field(default_factory=dict)
    """Metric to what is added to both numbers of its ratio; 0 for those that are not named."""
    stretch: bool = False
    """Whether the probabilities of each image are stretched to 0…1 before metrics of maps are taken."""
    fit: Literal["pad", "squeeze"] | None = None
    """How its published results bring an image into the model frame; None if it does not matter."""
    averaging: tuple[str, ...] = ("thresholds", "classes", "images")
    """What scores are averaged over, one after the other; each image counts once."""
    checkpoint: str = "validation"
    """The images by which the checkpoint may have been chosen; scores of these are too good."""

    def describe(self) -> str:
        """Return all traits as one line, for people."""
        return "; ".join(f"{name}: {value}" for name, value in self.traits().items())

    def traits(self) -> dict[str, str]:
        """Return every trait in words, by its name."""
        over = self.averaging if len(self.thresholds) > 1 else self.averaging[1:]
        return {
            "scores": ", ".join(METRICS[name].title for name in self.metrics),
            "prompt": self._prompt(),
            "scored size": f"{self.size} × {self.size}, aspect lost" if self.size else "original",
            "thresholds": self._thresholds(),
            "smoothing": self._smoothing() or "none",
            "empty masks": self._empty(),
            "mean over": ", then ".join(over),
            "checkpoint chosen on": f"{self.checkpoint} images",
        }

    def _prompt(self) -> str:
        kinds = "any" if self.prompts == PROMPTS else " or ".join(self.prompts)
        if self.clicks is not None:
            kinds = f"{self.clicks} positive {kinds}"
        telling = list(filter(from_truth, self.prompts))
        if not telling:
            return f"{kinds}, not from the truth"
        if len(telling) == len(self.prompts):
            return f"{kinds}, from the truth"
        return f"{kinds} ({' and '.join(telling)} are from the truth)"

    def _thresholds(self) -> str:
        levels = ", ".join(map(str, self.thresholds))
        reached = "from it on" if self.reached else "above it"
        if all(METRICS[name].kind == "maps" for name in self.metrics):
            stretch = ", probabilities stretched to 0 … 1" if self.stretch else ""
            return f"{levels} on the truth, foreground {reached}{stretch}"
        return f"{levels} on probability and truth, foreground {reached}"

    def _smoothing(self) -> str:
        return ", ".join(f"{METRICS[name].title} {value:g}" for name, value in self.smoothing.items())

    def _empty(self) -> str:
        """Say what each metric makes of a mask without foreground."""
        titles: dict[str, list[str]] = {}
        for name in self.metrics:
            smoothed = "1 if both are empty, nearly 0 if one is, as smoothing has it"
            empty = smoothed if name in self.smoothing else METRICS[name].empty
            titles.setdefault(empty, []).append(METRICS[name].title)
        return ", ".join(f"{' and '.join(names)} {empty}" for empty, names in titles.items())


def from_truth(prompt: str) -> bool:
    """Return whether this kind of prompt tells the model something that only the truth knows."""
    return prompt in PROMPTS_FROM_TRUTH


DEFAULT = Protocol(
    name="default",
    summary="each image at its original size, nothing smoothed",
    source="samfit",
    metrics=("dice", "iou"),
)
"""What is used where nothing is said, in training too."""

_WITHOUT_TRUTH: tuple[PromptKind, ...] = ("full-box", "none")

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        row.name: row
        for row in (
            DEFAULT,
            Protocol(
                name="no-truth",
                summary="as default, with a prompt that any new image can have",
                source="samfit",
                metrics=("dice", "iou"),
                prompts=_WITHOUT_TRUTH,
            ),
            Protocol(
                name="cad",
                summary="as CAD's published code scores",
                source="CAD, arXiv 2409.15889",
                metrics=("dice", "iou"),
                prompts=("full-box",),
                size=512,
                reached=False,
                smoothing={"dice": 1e-3, "iou": 1e-3},
                fit="squeeze",
            ),
            Protocol(
                name="msa-guide",
                summary="as the published guide of Medical SAM Adapter's EfficientSAM scores",
                source="Medical SAM Adapter, arXiv 2304.12620",
                metrics=("dice", "iou"),
                prompts=("click",),
                clicks=1,
                size=256,
                thresholds=(0.1, 0.3, 0.5, 0.7, 0.9),
                reached=False,
                smoothing={"dice": 1e-4, "iou": 1e-6},
                fit="squeeze",
            ),
            Protocol(
                name="cod",
                summary="camouflaged objects: S-measure, E-measure, weighted F and MAE",
                source="COD10K, CVPR 2020, and CAMO, CVIU 2019",
                metrics=("s_measure", "e_measure", "weighted_f", "mae"),
                stretch=True,
            ),
            Protocol(
                name="istd",
                summary="shadows: balanced error rate",
                source="ISTD, arXiv 1712.02478",
                metrics=("ber",),
            ),
        )
    }
)
"""Every protocol by its name."""


def protocol_of(name: str) -> Protocol:
    """Return a row. Raises `SettingError` with the nearest name if there is no such protocol."""
    if name not in PROTOCOLS:
        raise SettingError(f"--protocol: {unknown_name('protocol', name, PROTOCOLS)}")
    return PROTOCOLS[name]
