"""What is to be done of a comparison, and what of it is done already, as files say. No torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from samfit.defaults import in_words
from samfit.files import sha256_of_file, write_json
from samfit.settings import EvaluateSettings, TrainSettings

Kind = Literal["run", "mean-mask", "u-net"]
_ASKED, _FINISHED = "asked.json", "finished.json"


@dataclass(frozen=True)
class Job:
    """One independent piece of work. What it needs comes with it, what it finds goes into its folder."""

    name: str
    kind: Kind
    folder: Path
    train: TrainSettings
    """Resolved."""
    evaluate: EvaluateSettings
    data_fingerprint: str

    def training(self) -> dict[str, Any]:
        """Return everything that the result of the training depends on, wherever data and folders lie."""
        words = in_words(self.train)
        words = {key: value for key, value in words.items() if key not in ("data", "output")}
        named = [Path(self.train.weights), Path(self.train.group or "")]
        files = [sha256_of_file(path) if path.is_file() else None for path in named]
        return {"kind": self.kind, "data": self.data_fingerprint, "files": files, "settings": words}

    def asked(self) -> dict[str, Any]:
        """Return everything that the result depends on."""
        evaluation = self.evaluate.model_dump(mode="json", exclude={"run"})
        return {"training": self.training(), "evaluation": evaluation}

    def is_finished(self) -> bool:
        """Return whether the folder holds the result of exactly this."""
        return _read(self.folder / _FINISHED) == self.asked()

    def finish(self) -> None:
        """Write that the folder holds the result."""
        write_json(self.folder / _FINISHED, self.asked())

    def was_begun(self) -> bool | None:
        """Return whether the training in the folder is exactly this one; None if there is none of ours."""
        before = _read(self.folder / _ASKED)
        return None if before is None else before == self.training()

    def begin(self) -> None:
        """Write that the folder holds this training from now on."""
        (self.folder / _FINISHED).unlink(missing_ok=True)
        write_json(self.folder / _ASKED, self.training())

    def to_json(self) -> str:
        """Return the job as text, for a process or a machine that is to do it."""
        return json.dumps(
            {
                "name": self.name,
                "kind": self.kind,
                "folder": str(self.folder),
                "train": in_words(self.train),
                "evaluate": self.evaluate.model_dump(mode="json"),
                "data_fingerprint": self.data_fingerprint,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "Job":
        """Return the job that `to_json` wrote."""
        values = json.loads(text)
        return cls(
            name=values["name"],
            kind=values["kind"],
            folder=Path(values["folder"]),
            train=TrainSettings(**values["train"]),
            evaluate=EvaluateSettings(**values["evaluate"]),
            data_fingerprint=values["data_fingerprint"],
        )


def _read(path: Path) -> Any:
    """Return the content of a JSON file, or None if it is not there or cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
