"""What images belong to: found in their names, or read from a CSV file."""

from pathlib import Path

import pytest

from samfit.data.sources.groups import assign_groups
from samfit.errors import SettingError
from samfit.types import Sample

DATA = Path("data")
IMAGES = ("train/images/anna_1.jpg", "train/images/anna_2.jpg", "test/images/ben_1.png")


def samples(*images: str) -> list[Sample]:
    return [Sample(Path(name).stem, name.partition("/")[0], DATA / name, {}) for name in images]


def groups(group: object, *images: str) -> list[str | None]:
    """Return the groups of images, all of which have one."""
    found, faults = assign_groups(samples(*(images or IMAGES)), DATA, str(group))
    assert faults == []
    return [sample.group for sample in found]


def faults(group: object, *images: str) -> str:
    """Return the message of the one error."""
    (fault,) = assign_groups(samples(*(images or IMAGES)), DATA, str(group))[1]
    assert fault.level == "error"
    return fault.message


def table(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "groups.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_a_regular_expression_is_found_anywhere_in_the_name_without_extension():
    assert groups(r"^([a-z]+)_") == ["anna", "anna", "ben"]
    assert groups(r"_(\d)$") == ["1", "2", "1"]


def test_images_in_which_the_expression_is_not_found_or_finds_nothing_are_named():
    message = faults("^(anna)")
    assert message.startswith("--group ^(anna): images without a group: data/test/images/ben_1.png; ")
    assert "anna_1" not in message
    assert "images without a group: data/train/images/anna_1.jpg, " in faults(r"^(\d*)")


def test_of_many_images_without_a_group_some_are_named_and_all_are_counted():
    message = faults("^(x)", *(f"train/images/{number}.jpg" for number in range(9)))
    assert "data/train/images/4.jpg and 4 more;" in message
    assert "5.jpg" not in message


@pytest.mark.parametrize(
    "text",
    [
        "image,group\nanna_1,A\nanna_2,A\nben_1,B\n",
        "image,group\nanna_1.jpg,A\nanna_2.jpg,A\nben_1.png,B\nsomebody_else.png,C\n",
        "\ufeffgroup, age ,image\r\nA,7,train/images/anna_1.jpg\r\nA,7,anna_2\r\n\r\nB,9,ben_1.png\r\n",
        "image,group\ntrain\\images\\anna_1.jpg,A\nanna_2,A\nanna_2,A\nben_1,B\n",
    ],
    ids=["stems", "file names", "paths, as Excel writes them", "backslashes, and a line twice"],
)
def test_a_table_names_images_with_or_without_extension_or_by_their_paths(tmp_path, text):
    assert groups(table(tmp_path, text)) == ["A", "A", "B"]


def test_images_that_a_table_does_not_name_are_named(tmp_path):
    path = table(tmp_path, "image,group\nanna_1,A\nanna_2,A\n")
    assert faults(path).endswith(
        "images without a group: data/test/images/ben_1.png; the file names none of them"
    )


def test_a_name_that_two_images_have_must_be_a_path(tmp_path):
    twins = ("train/images/1.jpg", "test/images/1.jpg")
    message = faults(table(tmp_path, "image,group\n1,A\n"), *twins)
    assert "'1' may be any of data/train/images/1.jpg and data/test/images/1.jpg" in message
    text = "image,group\ntrain/images/1.jpg,A\ntest/images/1.jpg,B\n"
    assert groups(table(tmp_path, text), *twins) == ["A", "B"]


def test_names_are_compared_whatever_their_unicode_form(tmp_path):
    assert groups(table(tmp_path, "image,group\nla\u0308sion,A\n"), "train/images/l\u00e4sion.jpg") == ["A"]
    assert groups(table(tmp_path, "image,group\nl\u00e4sion,A\n"), "train/images/la\u0308sion.jpg") == ["A"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the columns image,group, found ''"),
        ("name,patient\na,b\n", "expected the columns image,group, found 'name,patient'"),
        ("image,group,group\na,b,c\n", "expected the columns image,group"),
        ("image,group\na\n", "line 2: expected the columns image,group, found 'a'"),
        ("image,group\na,\n", "line 2: expected the columns image,group, found 'a,'"),
        ("image,group\na,A\n\na,B\n", "line 4: a is of the group B, and above it is of A"),
    ],
)
def test_a_table_that_says_nothing_clear_is_refused_with_its_line(tmp_path, text, message):
    path = table(tmp_path, text)
    with pytest.raises(SettingError) as caught:
        groups(path)
    assert str(caught.value).startswith(f"--group {path}")
    assert message in str(caught.value)


def test_a_missing_table_a_folder_and_another_encoding_are_named(tmp_path):
    with pytest.raises(SettingError, match=r"none\.csv: there is no such file"):
        groups(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(SettingError, match=r"folder\.csv: Is a directory"):
        groups(tmp_path / "folder.csv")
    with pytest.raises(SettingError, match="not a CSV file in UTF-8"):
        groups(table(tmp_path, "image,group\nl\u00e4sion,A\n", "utf-16"))
