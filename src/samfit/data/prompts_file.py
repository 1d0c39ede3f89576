"""Reading clicks and boxes for many images from one CSV or JSON file (`predict --prompts FILE`).

    image,x,y,label          one click a line, several lines an image; label 1 (the default) or 0
    image,x1,y1,x2,y2        one box an image

    {"name.jpg": {"points": [[x, y], ...], "labels": [1, 0, ...], "box": [x1, y1, x2, y2]}}

Coordinates are pixels of the original image, x from the left and y from the top, from 0.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samfit.errors import DataError, nearest
from samfit.types import BOTTOM_RIGHT, NEGATIVE, POSITIVE, TOP_LEFT

CLICK_COLUMNS = ("image", "x", "y", "label")
BOX_COLUMNS = ("image", "x1", "y1", "x2", "y2")
JSON_KEYS = ("points", "labels", "box")
_EXPECTED = f"expected the columns {','.join(CLICK_COLUMNS)} or {','.join(BOX_COLUMNS)}"


def read_prompts_file(path: Path) -> dict[str, tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Return the prompt of each image by the name that the file gives it, with or without extension.

    A prompt is points (P, 2), (x, y) in original pixels, and their labels (P,): clicks first, then the two
    corners of a box if there is one. A file whose name ends in .json is read as JSON, any other as CSV.
    Raises one `DataError` that lists every fault of the file with its line or image.
    """
    if not path.is_file():
        raise DataError(f"--prompts {path}: there is no such file")
    reader = _Reader(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file in UTF-8: {error.reason}") from error
    except OSError as error:
        raise DataError(f"--prompts {path}: {error.strerror}") from error
    if path.suffix.lower() == ".json":
        reader.read_json(text)
    else:
        reader.read_csv(text)
    if not reader.prompts and not reader.faults:
        reader.fault("", "the file holds no prompts")
    if reader.faults:
        raise DataError(reader.faults)
    return {name: prompt.arrays() for name, prompt in reader.prompts.items()}


@dataclass
class _Prompt:
    points: list[list[float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    box: list[float] | None = None

    def arrays(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        box = self.box or []
        points = np.array([*self.points, box[:2], box[2:]] if box else self.points, dtype=np.float32)
        labels = self.labels + ([TOP_LEFT, BOTTOM_RIGHT] if box else [])
        return points, np.array(labels, dtype=np.int64)


class _Reader:
    """Collects prompts and faults, so that one look at the message mends the whole file."""

    def __init__(self, path: Path):
        self.path = path
        self.prompts: dict[str, _Prompt] = {}
        self.faults: list[str] = []

    def fault(self, place: str, reason: str) -> None:
        self.faults.append(f"{self.path}{', ' if place else ''}{place}: {reason}")

    def read_csv(self, text: str) -> None:
        lines = csv.reader(io.StringIO(text, newline=""))
        try:
            self._csv_rows(lines)
        except csv.Error as error:
            self.fault(f"line {lines.line_num}", f"not CSV: {error}")

    def _csv_rows(self, lines: Any) -> None:
        header = [name.strip() for name in next(lines, [])]
        columns = BOX_COLUMNS if set(header) & set(BOX_COLUMNS[1:]) else CLICK_COLUMNS
        if not self._header_is_right(header, columns):
            return
        for cells in lines:
            place = f"line {lines.line_num}"
            values = [cell.strip() for cell in cells]
            if not any(values):
                continue
            if len(values) != len(header):
                self.fault(place, f"has {len(values)} values, the header has {len(header)} columns")
                continue
            row = dict(zip(header, values, strict=True))
            if not row["image"]:
                self.fault(place, "image is empty, expected the name of an image file")
            elif columns == BOX_COLUMNS:
                self._csv_box(place, row)
            else:
                self._csv_click(place, row)

    def _header_is_right(self, header: Sequence[str], columns: Sequence[str]) -> bool:
        known = [*CLICK_COLUMNS, *BOX_COLUMNS[1:]]
        unknown = [name for name in header if name not in columns]
        missing = [name for name in columns if name not in header and name != "label"]
        for name in unknown:
            guess = "" if name in known else nearest(name, known)
            self.fault("line 1", f"column '{name}' has no place here{guess} ({_EXPECTED})")
        if missing and not unknown:
            self.fault("line 1", f"column {', '.join(missing)} is missing ({_EXPECTED})")
        if len(set(header)) < len(header):
            self.fault("line 1", "a column comes twice")
        return not self.faults

    def _csv_click(self, place: str, row: dict[str, str]) -> None:
        point = self._coordinates(place, [(name, row[name]) for name in ("x", "y")])
        label = self._label(place, row.get("label") or "1")
        if point and label is not None:
            prompt = self.prompts.setdefault(row["image"], _Prompt())
            prompt.points.append(point)
            prompt.labels.append(label)

    def _csv_box(self, place: str, row: dict[str, str]) -> None:
        box = self._box(place, [row[name] for name in BOX_COLUMNS[1:]])
        if row["image"] in self.prompts:
            self.fault(place, f"a second box for {row['image']}, expected one an image")
        elif box:
            self.prompts[row["image"]] = _Prompt(box=box)

    def read_json(self, text: str) -> None:
        try:
            content = json.loads(text, object_pairs_hook=self._object)
        except json.JSONDecodeError as error:
            self.fault(f"line {error.lineno}", f"not JSON: {error.msg}")
            return
        except RecursionError:
            self.fault("", "not JSON of prompts: nested too deeply")
            return
        if not isinstance(content, dict):
            self.fault("", f'expected {{"name.jpg": {{"points": ..., "box": ...}}}}, found {_kind(content)}')
            return
        for name, entry in content.items():
            self._json_prompt(name, entry)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        for name in sorted({name for name in names if names.count(name) > 1}):
            self.fault("", f'"{name}" comes twice')
        return dict(pairs)

    def _json_prompt(self, name: str, entry: Any) -> None:
        if not isinstance(entry, dict):
            self.fault(name, f"expected points, a box or both, found {_kind(entry)}")
            return
        for key in entry:
            if key not in JSON_KEYS:
                self.fault(name, f"unknown key '{key}'{nearest(key, JSON_KEYS)}")
        points = self._list(name, "points", entry.get("points"))
        labels = self._list(name, "labels", entry.get("labels"))
        box = self._list(name, "box", entry.get("box"))
        if not points and not box:
            self.fault(name, "expected points, a box or both")
        if entry.get("labels") is not None and len(labels) != len(points):
            self.fault(name, f"has {len(points)} points and {len(labels)} labels, expected one each")
        prompt = _Prompt()
        for number, point in enumerate(points, start=1):
            place = f"{name}, point {number}"
            if not isinstance(point, list) or len(point) != 2:
                self.fault(place, f"expected [x, y], found {json.dumps(point)}")
                continue
            prompt.points.append(self._coordinates(place, zip("xy", point, strict=True)))
        prompt.labels = [self._label(name, label) or 0 for label in labels] or [POSITIVE] * len(points)
        if box:
            prompt.box = self._box(name, box)
        self.prompts[name] = prompt

    def _list(self, place: str, key: str, value: Any) -> list[Any]:
        if value is None:
            return []
        if not isinstance(value, list):
            self.fault(place, f"{key}: expected a list, found {_kind(value)}")
            return []
        return value

    def _box(self, place: str, values: Sequence[Any]) -> list[float]:
        if len(values) != 4:
            self.fault(place, f"box: expected [x1, y1, x2, y2], found {len(values)} values")
            return []
        box = self._coordinates(place, zip(BOX_COLUMNS[1:], values, strict=True))
        if not box:
            return []
        for axis in (0, 1):
            first, second = box[axis], box[axis + 2]
            if second < first:
                names = BOX_COLUMNS[1:][axis], BOX_COLUMNS[1:][axis + 2]
                self.fault(place, f"{names[1]} = {second:g} is smaller than {names[0]} = {first:g}")
        return box

    def _coordinates(self, place: str, named: Iterable[tuple[str, Any]]) -> list[float]:
        """Return the numbers, or an empty list after noting what is wrong with them."""
        numbers: list[float] = []
        sound = True
        for name, value in named:
            number = _number(value)
            if number is None:
                self.fault(place, f"{name} is not a number: {json.dumps(value)}")
                sound = False
            elif number < 0:
                self.fault(place, f"{name} = {number:g} is negative, expected pixels from 0")
                sound = False
            else:
                numbers.append(number)
        return numbers if sound else []

    def _label(self, place: str, value: Any) -> int | None:
        if _number(value) in (NEGATIVE, POSITIVE):
            return int(float(value))
        self.fault(place, f"label is {json.dumps(value)}, expected 1 (object) or 0 (background)")
        return None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
