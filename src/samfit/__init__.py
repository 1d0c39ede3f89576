"""Adapt a Segment-Anything backbone to your own images, on the machine that you have."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from samfit.backbones import BACKBONES, load_backbone
    from samfit.engine.evaluation import evaluate
    from samfit.engine.export import export
    from samfit.engine.importing import import_checkpoint
    from samfit.engine.loaded import load_run
    from samfit.engine.merging import merge
    from samfit.engine.prediction import predict
    from samfit.engine.training import fit, resume, train
    from samfit.errors import (
        DataError,
        DownloadError,
        Interrupted,
        MachineError,
        RunError,
        SamfitError,
        SettingError,
        StorageError,
        UserError,
        WeightsError,
    )
    from samfit.methods import METHODS, attach
    from samfit.settings import (
        EvaluateSettings,
        ExportSettings,
        ImportSettings,
        MergeSettings,
        PredictSettings,
        TrainSettings,
    )

__version__ = "0.1.0"

__all__ = [
    "BACKBONES",
    "METHODS",
    "DataError",
    "DownloadError",
    "EvaluateSettings",
    "ExportSettings",
    "ImportSettings",
    "Interrupted",
    "MachineError",
    "MergeSettings",
    "PredictSettings",
    "RunError",
    "SamfitError",
    "SettingError",
    "StorageError",
    "TrainSettings",
    "UserError",
    "WeightsError",
    "__version__",
    "attach",
    "evaluate",
    "export",
    "fit",
    "import_checkpoint",
    "load_backbone",
    "load_run",
    "merge",
    "predict",
    "resume",
    "train",
]

_NAMES_BY_MODULE = {
    "backbones": ("BACKBONES", "load_backbone"),
    "settings": (
        "EvaluateSettings",
        "ExportSettings",
        "ImportSettings",
        "MergeSettings",
        "PredictSettings",
        "TrainSettings",
    ),
    "engine.evaluation": ("evaluate",),
    "engine.loaded": ("load_run",),
    "engine.export": ("export",),
    "engine.importing": ("import_checkpoint",),
    "engine.merging": ("merge",),
    "engine.prediction": ("predict",),
    "engine.training": ("fit", "resume", "train"),
    "errors": (
        "DataError",
        "DownloadError",
        "Interrupted",
        "MachineError",
        "RunError",
        "SamfitError",
        "SettingError",
        "StorageError",
        "UserError",
        "WeightsError",
    ),
    "methods": ("METHODS", "attach"),
}
_MODULE_OF = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import samfit` loads no torch."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'samfit' has no attribute '{name}'")
    value = getattr(import_module(f"samfit.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
