"""What is to be done of a comparison, and what of it is done already, as files say. No torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from samfit.backbones import card_of
from samfit.defaults import in_words
from samfit.files import sha256_of_file, write_json
from samfit.settings import EvaluateSettings, TrainSettings, resolved

Kind = Literal["run", "mean-mask", "u-net"]
_ASKED, _FINISHED = "asked.json", "finished.json"
_ADAPTER = "adapter.safetensors"
_RESULT = (_ADAPTER, "summary.json", "metrics.csv", "evaluation/summary.json", "evaluation/per_image.csv")
"""Files of a run folder that the report is made of, and the adapter that was scored."""


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
    named_files: tuple[str | None, ...]
    """What `hashes_of_named_files` returns for `train`."""

    def training(self) -> dict[str, Any]:
        """Return everything that the result of the training depends on, wherever data and folders lie."""
        words = in_words(self.train)
        words = {key: value for key, value in words.items() if key not in ("data", "output")}
        files = list(self.named_files)
        if self.train.weights == "published":  # another release may have others
            files[0] = card_of(self.train.backbone).weights.sha256
        return {"kind": self.kind, "data": self.data_fingerprint, "files": files, "settings": words}

    def asked(self) -> dict[str, Any]:
        """Return everything that the result depends on."""
        evaluation = self.evaluate.model_dump(mode="json", exclude={"run"})
        return {"training": self.training(), "evaluation": evaluation}

    def is_finished(self) -> bool:
        """Return whether the folder holds the result of exactly this, and nobody has changed it since."""
        finished = _read(self.folder / _FINISHED)
        if finished is None:
            return False
        files = finished.pop("result", None)
        return finished == self.asked() and files == {name: self._hash(name) for name in _RESULT}

    def finish(self) -> None:
        """Write that the folder holds the result."""
        result = {name: self._hash(name) for name in _RESULT}
        write_json(self.folder / _FINISHED, self.asked() | {"result": result})

    def was_begun(self) -> bool | None:
        """Return whether the training in the folder is exactly this one; None if there is none of ours.

        It is another one if an adapter was scored here and now there is another, from a training by hand say.
        """
        before, finished = _read(self.folder / _ASKED), _read(self.folder / _FINISHED)
        if before is None:
            return None
        replaced = finished is not None and finished.get("result", {}).get(_ADAPTER) != self._hash(_ADAPTER)
        return before == self.training() and not replaced

    def begin(self) -> None:
        """Write that the folder holds this training from now on."""
        (self.folder / _FINISHED).unlink(missing_ok=True)
        write_json(self.folder / _ASKED, self.training())

    def to_json(self) -> str:
        """Return the job as text, for a process or a machine that is to do it.

        A setting that nobody gave is not written, so that the job's process may choose it.
        """
        return json.dumps(
            {
                "name": self.name,
                "kind": self.kind,
                "folder": str(self.folder),
                "train": self.train.model_dump(mode="json", exclude_unset=True),
                "evaluate": self.evaluate.model_dump(mode="json", exclude_unset=True),
                "data_fingerprint": self.data_fingerprint,
                "named_files": self.named_files,
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
            named_files=tuple(values["named_files"]),
        )

    def _hash(self, name: str) -> str | None:
        return _hash(self.folder / name)


def hashes_of_named_files(settings: TrainSettings) -> tuple[str | None, ...]:
    """Return the SHA-256 of the files that settings name: weights and groups; None for what is no file."""
    return _hash(Path(settings.weights)), _hash(Path(settings.group or ""))


def budget(settings: TrainSettings, images: int) -> int:
    """Return how many optimizer steps a training on so many images takes at most."""
    steps = resolved(settings.epochs) * -(-images // resolved(settings.batch_size))
    return min(steps, settings.max_steps or steps)


def _hash(path: Path) -> str | None:
    return sha256_of_file(path) if path.is_file() else None


def _read(path: Path) -> dict[str, Any] | None:
    """Return the object that a JSON file holds, or None if there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
