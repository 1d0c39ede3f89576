"""`demo`: drawn lesions that sam-tiny does badly on, before and after it is adapted to them."""

import logging
from pathlib import Path
from typing import Any

from samfit.compare.comparing import compare, require_report
from samfit.compare.work import one_by_one
from samfit.config import read_config, write_config
from samfit.data.drawn import draw_lesions
from samfit.errors import Interrupted, RunError, to_call
from samfit.files import remove
from samfit.runs import require_folder
from samfit.settings import CompareSettings

logger = logging.getLogger(__name__)

RECIPE: dict[str, Any] = {
    "dataset": "isic2016",
    "backbone": "sam-tiny",
    "methods": ["decoder", "cad"],
    "prompt": "click",
    "epochs": 15,
    "beside": [],
}
"""What is compared; two minutes at most on two cores."""
_DATA, _REPORT, _RECIPE = "data", "report", "recipe.yaml"


def run_demo(output: Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Write `recipe.yaml`, `data/` and `report/` under `output`; return what `results.json` holds.

    Needs no data and no network. Raises `SettingError` if the report's packages are missing, `RunError` if
    `output` is a file, or holds anything and `overwrite` is not given, or is given and what is there is no
    demo; only these three are ever replaced.
    """
    require_report()
    require_folder(output)
    recipe = output / _RECIPE
    content = {"data": str(output / _DATA), **RECIPE}
    if output.is_dir() and any(output.iterdir()):
        if not overwrite:
            raise RunError(
                f"--output {output} is not empty: choose another folder, or replace a demo with --overwrite"
            )
        if not _is_demo(recipe):
            raise RunError(
                f"--overwrite: {output} holds no demo, of which {_RECIPE} is a part: choose another folder"
            )
        remove(output / _DATA)
        remove(output / _REPORT)
    write_config(recipe, content)
    logger.info("drawing 80 skin lesions as faint negatives, which sam-tiny does badly on")
    draw_lesions(output / _DATA, faint_negatives=True)
    try:
        return compare(CompareSettings(recipe=recipe, output=output / _REPORT), one_by_one)
    except Interrupted as error:
        on = to_call("compare", recipe, "--output", output / _REPORT)
        raise Interrupted(f"stopped; go on with {on}", error.exit_status) from error


def _is_demo(recipe: Path) -> bool:
    """Return whether a recipe is one that this or an earlier version of the demo wrote."""
    if not recipe.is_file():
        return False
    found = read_config(recipe, "RECIPE")
    told = ("dataset", "backbone", "methods")
    return Path(str(found.get("data"))).name == _DATA and all(found.get(key) == RECIPE[key] for key in told)
