"""Progress: lines now and then, none for short loops, none where nobody asked for messages."""

import logging
import re
from itertools import count

import pytest

from samfit import progress


@pytest.fixture
def clock(monkeypatch):
    """Return a function that makes every look at the clock come so many seconds after the one before."""

    def tick_every(seconds: float) -> None:
        ticks = count()
        monkeypatch.setattr(progress, "monotonic", lambda: next(ticks) * seconds)

    return tick_every


def lines_of(caplog, items, **arguments) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.INFO, "samfit"):
        assert list(progress.track(items, "reading", **arguments)) == list(range(30))
    return caplog.messages


@pytest.fixture(autouse=True)
def _terminal_of_its_own():
    """Let each test decide anew what kind of terminal stderr is."""
    progress.console.cache_clear()
    yield
    progress.console.cache_clear()


def test_a_long_loop_says_a_line_now_and_then_and_one_at_the_end(clock, caplog):
    clock(3.0)
    lines = lines_of(caplog, range(30))
    assert lines[0] == "reading: 4 of 30"
    assert 5 <= len(lines) <= 12
    assert lines[-1].startswith("reading: 30 in ")


def test_a_loop_without_length_says_how_many_have_passed(clock, caplog):
    clock(3.0)
    assert lines_of(caplog, iter(range(30)))[0] == "reading: 4"
    clock(3.0)
    assert lines_of(caplog, iter(range(30)), total=30)[0] == "reading: 4 of 30"


def test_a_short_loop_says_nothing(clock, caplog):
    clock(0.01)
    assert lines_of(caplog, range(30)) == []


def test_processes_that_do_not_come_first_are_known(monkeypatch):
    assert progress.is_first_process()
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not progress.is_first_process()


def test_the_last_item_is_said_once(clock, caplog):
    clock(6.0)
    with caplog.at_level(logging.INFO, "samfit"):
        assert list(progress.track("abcd", "reading")) == list("abcd")
    assert caplog.messages == ["reading: 2 of 4", "reading: 4 in 36 s"]


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_is_said_where_messages_are_off(clock, caplog, capsys, monkeypatch, terminal):
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    clock(3.0)
    with caplog.at_level(logging.WARNING, "samfit"):
        assert list(progress.track(range(30), "reading")) == list(range(30))
    assert caplog.messages == []
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar_on_stderr(monkeypatch, caplog, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # which makes rich take any stream for a terminal
    with caplog.at_level(logging.INFO, "samfit"):
        assert list(progress.track(range(30), "reading")) == list(range(30))
    out, err = capsys.readouterr()
    assert out == ""
    assert "reading" in err


@pytest.mark.parametrize("no_color", [None, "1"])
def test_a_bar_on_a_terminal_has_colours_unless_the_user_wants_none(monkeypatch, caplog, capsys, no_color):
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm-256color", "NO_COLOR": no_color}.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    with caplog.at_level(logging.INFO, "samfit"):
        assert list(progress.track("abcd", "reading")) == list("abcd")
    shown = capsys.readouterr().err
    assert "reading" in shown
    coloured = re.search(r"\x1b\[[\d;]*(3[0-7]|38;5;\d+|9[0-7])m", shown) is not None
    assert coloured == (no_color is None)


def test_a_bar_within_another_stands_below_it(monkeypatch, caplog, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with caplog.at_level(logging.INFO, "samfit"):
        for _ in progress.track("ab", "runs"):
            assert list(progress.track("abcd", "images")) == list("abcd")
    frames = re.split(r"\x1b\[2K|\r", re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().err))
    assert any(re.search(r"runs.*\n.*images", frame) for frame in frames)
