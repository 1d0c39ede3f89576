"""Where the figures of a training go: metrics.csv always, W&B or TensorBoard when asked."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from samfit.files import write_text
from samfit.metrics.protocols import DEFAULT
from samfit.packages import require_packages
from samfit.runs import RunFolder

Row = Mapping[str, float | int]


class Logger(Protocol):
    """A tool that is told the figures of each epoch."""

    def log(self, row: Row) -> None:
        """Take one row; `epoch` in it is the axis."""

    def close(self) -> None:
        """Write what is left."""


def write_metrics(path: Path, rows: Sequence[Row]) -> None:
    """Write one row an epoch as CSV, with the protocol by which validation images are always scored."""
    text = io.StringIO()
    figures = [name for name in rows[0] if name != "epoch"]
    writer = csv.DictWriter(text, ("epoch", "protocol", *figures), lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "protocol": DEFAULT.name} for row in rows)
    write_text(path, text.getvalue())


class WandbLogger:
    """Weights & Biases; offline where WANDB_MODE says so."""

    def __init__(self, folder: RunFolder, settings: dict[str, Any]):
        import wandb

        config = settings | {"validation_protocol": DEFAULT.name}
        self._run = wandb.init(project="samfit", name=folder.path.name, dir=folder.path, config=config)

    def log(self, row: Row) -> None:
        """Take one row."""
        self._run.log(dict(row), step=int(row["epoch"]))

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class TensorBoardLogger:
    """TensorBoard event files in `tensorboard/` of the run folder."""

    def __init__(self, folder: RunFolder, settings: dict[str, Any]):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(folder.tensorboard)
        self._writer.add_text("validation_protocol", DEFAULT.name)

    def log(self, row: Row) -> None:
        """Take one row."""
        for name, value in row.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, int(row["epoch"]))

    def close(self) -> None:
        """Flush the files."""
        self._writer.close()


_LOGGERS = {"wandb": WandbLogger, "tensorboard": TensorBoardLogger}


def require_logger(name: Literal["wandb", "tensorboard"] | None) -> None:
    """Raise `SettingError` if the package of the logger is not installed."""
    if name is not None:
        require_packages(f"--logger {name}", (name,))


@contextmanager
def open_logger(
    name: Literal["wandb", "tensorboard"] | None, folder: RunFolder, settings: dict[str, Any]
) -> Iterator[Logger | None]:
    """Start the logger that was asked for, and close it however the run ends."""
    if name is None:
        yield None
        return
    tool = _LOGGERS[name](folder, settings)
    try:
        yield tool
    finally:
        tool.close()
