"""Packages that not every installation has, and the extras that bring them."""

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from types import MappingProxyType

from samfit.errors import SettingError

EXTRAS: Mapping[str, str] = MappingProxyType(
    {
        "jinja2": "report",
        "matplotlib": "report",
        "monai": "metrics",
        "py_sod_metrics": "metrics",
        "scipy": "metrics",
        "submitit": "slurm",
        "tensorboard": "tensorboard",
        "wandb": "wandb",
    }
)
"""What is imported, to the extra of samfit that installs it."""


def is_installed(package: str) -> bool:
    """Return whether a package can be imported."""
    return find_spec(package) is not None


def require_packages(purpose: str, packages: Iterable[str]) -> None:
    """Raise `SettingError` if some of the packages are not installed. `purpose`: the flag that needs them."""
    missing = [name for name in dict.fromkeys(packages) if not is_installed(name)]
    if missing:
        extras = ",".join(dict.fromkeys(EXTRAS[name] for name in missing))
        raise SettingError(
            f"{purpose}: not installed: {', '.join(missing)}; pip install '.[{extras}]' in samfit's folder"
        )
