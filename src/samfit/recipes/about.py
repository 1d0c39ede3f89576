"""What a recipe may say of its experiment: whose it is, what was printed of it, what is otherwise here."""

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from samfit.errors import unknown_name
from samfit.metrics.protocols import PROTOCOLS

Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Score = Annotated[float, Field(ge=0, le=1)]
_CONFIG = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_CONFIG)
class Published:
    """What a source printed of one model. Nothing of it was measured here."""

    model: Words
    source: Words
    protocol: Words
    """The name of the protocol here by which it was scored, or which comes nearest."""
    figures: dict[str, Score] = field(default_factory=dict)
    """Metric of the protocol to its score in the unit that the metric has here."""
    claim: Words | None = None
    """A result that is known in words only."""
    memory_mb: Annotated[int, Field(gt=0)] | None = None
    """As printed, whatever the source counted."""
    memory_measured: bool = True
    """False where the printed memory cannot be a measurement of this model."""
    setup: Words = "not known"
    """Machine and batch size, as printed."""
    remark: Words | None = None
    """What is not known of the way it was taken, and what is odd about it."""

    @model_validator(mode="after")
    def _by_its_protocol(self) -> "Published":
        """Refuse metrics that the protocol does not have, and a row that says nothing."""
        if self.protocol not in PROTOCOLS:
            raise ValueError(unknown_name("protocol", self.protocol, PROTOCOLS))
        metrics = PROTOCOLS[self.protocol].metrics
        for name in self.figures:
            if name not in metrics:
                raise ValueError(f"figures: {unknown_name(f'metric of {self.protocol}', name, metrics)}")
        if not self.figures and self.claim is None and self.memory_mb is None:
            raise ValueError("says nothing; expected figures, a claim or memory_mb")
        return self


@dataclass(frozen=True, config=_CONFIG)
class About:
    """What is known of an experiment beside its settings."""

    summary: Words
    source: Words
    """Whose experiment it is: paper or guide."""
    data: Words
    """Where the data set comes from, and which folder of it `--data` is."""
    published: tuple[Published, ...]
    departures: tuple[Words, ...]
    """What is done otherwise than at the source, or is not known of it."""


_ABOUT = TypeAdapter(About)


def check_about(value: Any) -> tuple[About | None, list[str]]:
    """Return what the key `about` of a recipe holds, or None, and everything that is wrong with it."""
    try:
        return _ABOUT.validate_python(value), []
    except ValidationError as error:
        return None, [_fault(detail) for detail in error.errors()]


def _fault(detail: Mapping[str, Any]) -> str:
    """Return one fault with its place: `published 2, memory_mb: …`, counted from 1."""
    place = ""
    for part in detail["loc"]:
        place += f" {part + 1}" if isinstance(part, int) else f"{', ' if place else ''}{part}"
    reason = str(detail["ctx"]["error"]) if detail["type"] == "value_error" else detail["msg"]
    return f"{place}: {reason}" if place else reason
