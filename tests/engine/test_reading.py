"""Processes that read beside the training, and the signals that they get."""

import multiprocessing
import signal
import subprocess

import pytest

from samfit.engine.reading import reading
from samfit.errors import DataError

IMAGES = list(range(8))


@pytest.fixture
def started():
    """A loader that has begun, and its one process."""
    others = set(multiprocessing.active_children())
    loader = reading(IMAGES, 1, batch_size=None)
    assert next(loader) == 0
    (reader,) = set(multiprocessing.active_children()) - others
    return loader, reader


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_of_a_command_lets_them_read_on(started, number):
    loader, reader = started
    subprocess.run(["sh", "-c", f"kill -{number} {reader.pid}"], check=True)
    reader.join(0.5)  # time for the signal to end it
    assert list(loader) == IMAGES[1:]
    reader.join(60)
    assert reader.exitcode == 0


def test_the_process_that_they_read_for_can_end_them(started):
    _, reader = started
    reader.terminate()
    reader.join(60)
    assert reader.exitcode == 0


class Unreadable:
    """Images of which none can be read."""

    def __len__(self):
        return 1

    def __getitem__(self, _):
        raise DataError("cat.png: cannot be read\nput it back")


@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_wrong_with_an_image_is_said_without_where_it_was_read(workers):
    with pytest.raises(DataError) as caught:
        list(reading(Unreadable(), workers, batch_size=None))
    assert str(caught.value) == "cat.png: cannot be read\nput it back"
