import json
from pathlib import Path

import pytest

from samfit.data.prompts_file import read_prompts_file
from samfit.errors import DataError
from samfit.types import BOTTOM_RIGHT, NEGATIVE, POSITIVE, TOP_LEFT

CLICKS = "image,x,y,label\na.jpg,3,4,1\nb,5.5,6,0\na.jpg,7,8,\n"
BOXES = "image,x1,y1,x2,y2\na.jpg,1,2,30,40\nb,0,0,0,0\n"


def read(folder: Path, content: str | bytes, name: str = "prompts.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return {
        image: (points.tolist(), labels.tolist())
        for image, (points, labels) in read_prompts_file(path).items()
    }


def faults(folder: Path, content: str | bytes, name: str = "prompts.csv") -> list[str]:
    with pytest.raises(DataError) as caught:
        read(folder, content, name)
    assert all(str(folder / name) in fault for fault in caught.value.faults)
    return [fault.replace(str(folder / name), "").lstrip(", :") for fault in caught.value.faults]


def test_clicks_of_one_image_may_take_several_lines(tmp_path):
    assert read(tmp_path, CLICKS) == {
        "a.jpg": ([[3, 4], [7, 8]], [POSITIVE, POSITIVE]),
        "b": ([[5.5, 6]], [NEGATIVE]),
    }


def test_the_label_column_may_be_left_out(tmp_path):
    assert read(tmp_path, "image,x,y\na,3,4\n") == {"a": ([[3, 4]], [POSITIVE])}


def test_columns_may_come_in_any_order(tmp_path):
    assert read(tmp_path, "y, x ,image\n4,3,a\n") == {"a": ([[3, 4]], [POSITIVE])}


def test_boxes_become_two_corners(tmp_path):
    corners = [TOP_LEFT, BOTTOM_RIGHT]
    assert read(tmp_path, BOXES) == {"a.jpg": ([[1, 2], [30, 40]], corners), "b": ([[0, 0], [0, 0]], corners)}


@pytest.mark.parametrize("content", [CLICKS, BOXES])
def test_files_of_spreadsheets_are_read_alike(tmp_path, content):
    spreadsheet = b"\xef\xbb\xbf" + content.replace("\n", "\r\n").encode() + b"\r\n,,\r\n"
    assert read(tmp_path, spreadsheet) == read(tmp_path, content)


def test_quoted_names_may_hold_a_comma(tmp_path):
    assert read(tmp_path, 'image,x,y\n"a, b.jpg",3,4\n') == {"a, b.jpg": ([[3, 4]], [POSITIVE])}


def test_json_holds_points_and_boxes(tmp_path):
    content = {
        "a.jpg": {"points": [[3, 4], [5, 6]], "labels": [1, 0], "box": [1, 2, 30, 40]},
        "b": {"points": [[7, 8]]},
        "c": {"box": [0, 0, 9, 9]},
    }
    assert read(tmp_path, json.dumps(content), "prompts.json") == {
        "a.jpg": (
            [[3, 4], [5, 6], [1, 2], [30, 40]],
            [POSITIVE, NEGATIVE, TOP_LEFT, BOTTOM_RIGHT],
        ),
        "b": ([[7, 8]], [POSITIVE]),
        "c": ([[0, 0], [9, 9]], [TOP_LEFT, BOTTOM_RIGHT]),
    }


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", ["line 1: column image, x, y is missing"]),
        ("image,x,y\n", ["the file holds no prompts"]),
        ("image,x\na,1\n", ["line 1: column y is missing"]),
        ("image,x,y,lable\na,1,2,1\n", ["line 1: column 'lable' has no place here; did you mean 'label'?"]),
        ("image;x;y\na;1;2\n", ["line 1: column 'image;x;y' has no place here"]),
        ("image,x,y,x1\na,1,2,3\n", ["line 1: column 'x' has", "line 1: column 'y' has"]),
        ("image,x,x,y\na,1,1,2\n", ["line 1: a column comes twice"]),
        ("image,x,y\na,1\n", ["line 2: has 2 values, the header has 3 columns"]),
        ("image,x,y\n,1,2\n", ["line 2: image is empty"]),
        ("image,x,y\na,one,2\n", ['line 2: x is not a number: "one"']),
        ("image,x,y\na,nan,inf\n", ["line 2: x is not a number", "line 2: y is not a number"]),
        ("image,x,y\na,1,-2\n", ["line 2: y = -2 is negative"]),
        ("image,x,y,label\na,1,2,3\n", ['line 2: label is "3", expected 1 (object) or 0 (background)']),
        ("image,x1,y1,x2,y2\na,9,2,3,4\n", ["line 2: x2 = 3 is smaller than x1 = 9"]),
        ("image,x1,y1,x2,y2\na,1,2,3,1\n", ["line 2: y2 = 1 is smaller than y1 = 2"]),
        (BOXES + "a.jpg,1,2,3,4\n", ["line 4: a second box for a.jpg"]),
        ("image,x,y\na,?,2\n\nb,1,-1\n", ["line 2: x is not a number", "line 4: y = -1 is negative"]),
        ('image,x,y\n"' + 200_000 * "a" + '",1,2\n', ["line 2: not CSV"]),
        (b"image,x,y\n\xff\xfe,1,2\n", ["not a text file in UTF-8"]),
    ],
)
def test_every_fault_of_a_csv_file_is_named_with_its_line(tmp_path, content, expected):
    found = faults(tmp_path, content)
    assert len(found) == len(expected)
    for fault, start in zip(found, expected, strict=True):
        assert fault.startswith(start)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"a": {"points": [[1, 2]]', ["line 1: not JSON"]),
        ("[]", ["expected {"]),
        ("{}", ["the file holds no prompts"]),
        ('{"a": [1, 2]}', ["a: expected points, a box or both, found a list"]),
        ('{"a": {}}', ["a: expected points, a box or both"]),
        ('{"a": {"points": []}}', ["a: expected points, a box or both"]),
        ('{"a": {"points": 3}}', ["a: points: expected a list, found a number", "a: expected points"]),
        (
            '{"a": {"box": [1, 2, 3, 4], "point": [[1, 2]]}}',
            ["a: unknown key 'point'; did you mean 'points'?"],
        ),
        ('{"a": {"points": [[1, 2]], "labels": [1, 0]}}', ["a: has 1 points and 2 labels"]),
        ('{"a": {"box": [1, 2, 3, 4], "labels": [1]}}', ["a: has 0 points and 1 labels"]),
        (
            '{"a": {"points": [[1, 2, 3], [4, true]]}}',
            ["a, point 1: expected [x, y]", "a, point 2: y is not"],
        ),
        ('{"a": {"points": [[1, 2]], "labels": [2]}}', ["a: label is 2"]),
        (f'{{"a": {{"points": [[1, 1{400 * "0"}]]}}}}', ["a, point 1: y is not a number"]),
        ('{"a": {"box": [1, 2, 3]}}', ["a: box: expected [x1, y1, x2, y2], found 3 values"]),
        ('{"a": {"box": [5, 2, 3, -4]}, "b": {"box": [5, 2, 3, 4]}}', ["a: y2 = -4 is neg", "b: x2 = 3 is"]),
        ('{"a": {"box": [1, 2, 3, 4]}, "a": {"box": [1, 2, 3, 4]}}', ['"a" comes twice']),
    ],
)
def test_every_fault_of_a_json_file_is_named_with_its_image(tmp_path, content, expected):
    found = faults(tmp_path, content, "prompts.json")
    assert len(found) == len(expected)
    for fault, start in zip(found, expected, strict=True):
        assert fault.startswith(start)


def test_a_missing_file_is_named_with_its_flag(tmp_path):
    with pytest.raises(DataError, match=r"--prompts .*no\.csv: there is no such file"):
        read_prompts_file(tmp_path / "no.csv")
