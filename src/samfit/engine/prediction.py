"""`predict`: segment image files and write their masks."""

import logging
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samfit.data.prompts import Points
from samfit.data.prompts_file import read_prompts_file
from samfit.data.reading import image_size, read_image
from samfit.data.sources.listing import is_image_name
from samfit.engine.loaded import LoadedRun, load_run
from samfit.errors import DataError
from samfit.progress import track
from samfit.report.overlays import draw_overlay, write_png
from samfit.runs import require_folder
from samfit.settings import PredictSettings

logger = logging.getLogger(__name__)

_LONGEST_NAME = 255
"""Bytes in the name of a file, on every common file system."""


@dataclass(frozen=True)
class _Targets:
    """The files that one image gives."""

    masks: dict[str, Path]
    probabilities: dict[str, Path]
    overlay: Path | None

    def __iter__(self) -> Iterator[Path]:
        yield from self.masks.values()
        yield from self.probabilities.values()
        if self.overlay is not None:
            yield self.overlay


def predict(settings: PredictSettings) -> list[Path]:
    """Segment images and return the files written: masks of 0 and 255 at the original size.

    One class is written as `<name>.png`, several as `<name>_<class>.png`. An image that cannot be read does
    not end the rest; all of them are named in one `DataError` at the end. Raises before anything is written
    if two results would have the same name, or a file is there already, or a prompt is missing.
    """
    images = _find_images(settings.images)
    run = load_run(settings.run, accelerator=settings.accelerator, attention=settings.attention)
    targets = _targets(images, run.classes, settings)
    prompts = _prompts(run, images, settings)
    written: list[Path] = []
    faults: list[str] = []
    for image in track(images, "segmenting"):
        try:
            pixels = read_image(image, settings.page)
        except DataError as error:
            faults.extend(error.faults)
            continue
        written.extend(_write(targets[image], pixels, run.answer(pixels, prompts[image])))
    if faults:
        others = f"the {len(written)} files of the others were written"
        raise DataError([f"{len(faults)} of {len(images)} images cannot be read; {others}:", *faults])
    return written


def _find_images(given: Sequence[Path]) -> list[Path]:
    """Return the images that the arguments name, folders opened one level deep, each once."""
    images: list[Path] = []
    faults = []
    for path in given:
        if path.is_dir():
            everything = sorted(path.iterdir())
            inside = [file for file in everything if file.is_file() and is_image_name(file.name)]
            images.extend(inside)
            if not inside:
                faults.append(f"{path}: the folder holds no image")
            elif len(inside) < len(everything):
                passed_over = [file.name for file in everything if file not in inside]
                logger.info("%s: passed over %s, no images by name", path, ", ".join(passed_over))
        elif path.is_file():
            images.append(path)
        else:
            faults.append(f"{path}: there is no such file or folder")
    if faults:
        raise DataError(faults)
    return list(dict.fromkeys(images))


def _targets(
    images: Sequence[Path], classes: Sequence[str], settings: PredictSettings
) -> dict[Path, _Targets]:
    """Return where the results of each image go. Raises `DataError` for two of one name."""
    require_folder(settings.output)
    targets = {image: _targets_of(image.stem, classes, settings) for image in images}
    sources = defaultdict(list)
    for image, files in targets.items():
        for file in files:
            sources[file].append(image)
    faults = [
        f"{' and '.join(map(str, same))} would write {file}: rename one, or predict them into two folders"
        for file, same in sources.items()
        if len(same) > 1
    ]
    lengths = {file: len(os.fsencode(file.name)) for file in sources}
    faults += [
        f"{file}: a name of {length} bytes, and {_LONGEST_NAME} are allowed; rename {sources[file][0]}"
        for file, length in lengths.items()
        if length > _LONGEST_NAME
    ]
    if faults:
        raise DataError(faults)
    inputs = {image.resolve() for image in images}
    ours = [file for file in sources if file.resolve() in inputs]
    if ours:
        raise DataError(f"{_first_of(ours)}: an image to segment; choose another --output, so that it stays")
    taken = [file for file in sources if file.exists()]
    if taken and not settings.overwrite:
        raise DataError(
            f"{_first_of(taken)}: there already; choose another --output, or replace them with --overwrite"
        )
    return targets


def _first_of(files: Sequence[Path]) -> str:
    return f"{files[0]} and {len(files) - 1} more" if len(files) > 1 else str(files[0])


def _targets_of(stem: str, classes: Sequence[str], settings: PredictSettings) -> _Targets:
    ends = {name: "" if len(classes) == 1 else f"_{name}" for name in classes}
    return _Targets(
        masks={name: settings.output / f"{stem}{end}.png" for name, end in ends.items()},
        probabilities={name: settings.output / f"{stem}{end}_probability.png" for name, end in ends.items()}
        if settings.probabilities
        else {},
        overlay=settings.output / f"{stem}_overlay.png" if settings.overlay else None,
    )


def _prompts(run: LoadedRun, images: Sequence[Path], settings: PredictSettings) -> dict[Path, Points]:
    """Return the prompt of each image whose size can be read, from the file or as the run was trained."""
    sizes: dict[Path, tuple[int, int]] = {}
    for image in images:
        try:
            sizes[image] = image_size(image, settings.page)
        except DataError:
            continue  # named with the other unreadable images at the end
    if settings.prompts is None:
        return {image: run.own_prompt(*size) for image, size in sizes.items()}
    # macOS stores names decomposed (NFD): the same letters as in the file, in other bytes.
    given = {_composed(name): prompt for name, prompt in read_prompts_file(settings.prompts).items()}
    names = {image: (_composed(image.name), _composed(image.stem)) for image in images}
    chosen = {image: name if name in given else stem for image, (name, stem) in names.items()}
    faults = [
        f"{settings.prompts}: no prompt for {image}" for image, name in chosen.items() if name not in given
    ]
    faults += [
        f"{settings.prompts}: '{name}' is none of the images to segment"
        for name in sorted(given.keys() - set(chosen.values()))
    ]
    for image, size in sizes.items():
        if chosen[image] in given:
            try:
                run.check_prompt(str(image), given[chosen[image]], *size)
            except DataError as error:
                faults.extend(error.faults)
    if faults:
        raise DataError(faults)
    return {image: given[chosen[image]] for image in sizes}


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _write(
    targets: _Targets, image: NDArray[np.uint8], answer: Mapping[str, NDArray[np.float32]]
) -> list[Path]:
    masks = {name: probability >= 0.5 for name, probability in answer.items()}
    for name, path in targets.masks.items():
        write_png(path, masks[name])
    for name, path in targets.probabilities.items():
        write_png(path, np.rint(answer[name] * 65535).astype(np.uint16))
    if targets.overlay is not None:
        write_png(targets.overlay, draw_overlay(image, np.stack(list(masks.values()))))
    return list(targets)
