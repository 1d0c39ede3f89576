"""Where golden files are looked for, and what happens when they are missing."""

import pytest
import support


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A checkout with a copy of its own, and a folder beside it."""
    beside, inside = tmp_path / "shared/golden", tmp_path / "main/tests/golden"
    beside.mkdir(parents=True)
    inside.mkdir(parents=True)
    monkeypatch.setattr(support, "ROOT", tmp_path / "main")
    monkeypatch.delenv("SAMFIT_GOLDEN", raising=False)
    return beside, inside


def test_the_variable_goes_before_everything(places, tmp_path, monkeypatch):
    for folder in (*places, tmp_path):
        (folder / "a.safetensors").touch()
    monkeypatch.setenv("SAMFIT_GOLDEN", str(tmp_path))
    assert support.golden("a.safetensors") == tmp_path / "a.safetensors"


def test_the_folder_beside_the_checkout_goes_before_the_copy_inside(places):
    beside, inside = places
    (inside / "a.safetensors").touch()
    assert support.golden("a.safetensors") == inside / "a.safetensors"
    (beside / "a.safetensors").touch()
    assert support.golden("a.safetensors").samefile(beside / "a.safetensors")


def test_a_missing_file_skips_the_test_and_says_so(places):
    with pytest.raises(pytest.skip.Exception, match=r"a\.safetensors.*SAMFIT_GOLDEN"):
        support.golden("a.safetensors")


def test_a_missing_file_fails_the_test_where_the_variable_is_set(places, tmp_path, monkeypatch):
    monkeypatch.setenv("SAMFIT_GOLDEN", str(tmp_path))
    with pytest.raises(AssertionError, match=r"a\.safetensors is missing"):
        support.golden("a.safetensors")
