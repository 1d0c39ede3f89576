"""Downloading base weights from a server on this machine; no test leaves it."""

import hashlib
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from samfit.backbones.card import WeightsFile
from samfit.backbones.download import cache_folder, fetch
from samfit.errors import DownloadError, StorageError, WeightsError

CONTENT = bytes(range(256)) * 12_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = CONTENT[::-1]


class Server(ThreadingHTTPServer):
    """Serves `content` at every path but /gone and keeps the Range header of each request."""

    daemon_threads = True
    content: bytes = CONTENT
    ranges: bool = True
    states_length: bool = True
    cuts: int = 0
    """How many answers still end after half of what they promised."""
    seen: ClassVar[list[str | None]]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        asked = self.headers["Range"]
        self.server.seen.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.ranges else 0
        body = self.server.content[start:]
        if self.path == "/gone":
            self.send_error(404)
            return
        if start and not body:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if self.server.states_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.cuts:
            self.server.cuts -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, format: str, *args: object):
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.seen = []  # pyright: ignore[reportAttributeAccessIssue] - one list a server
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAMFIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache"


def weights(
    server: Server, *, size: int | None = len(CONTENT), sha256: str | None = SHA256, path: str = "w.pth"
):
    return WeightsFile("w.pth", f"http://127.0.0.1:{server.server_port}/{path}", size, sha256, "none")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"w.pth.lock"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SAMFIT_CACHE": "/a/b", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/a/b"),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/samfit"),
        ({"HOME": "/h"}, "/h/.cache/samfit"),
    ],
)
def test_the_cache_folder_follows_the_environment(
    environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
):
    for name in ("SAMFIT_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


def test_a_file_is_downloaded_once_and_nothing_is_left_beside_it(server: Server, cache: Path):
    path = fetch(weights(server))
    assert path == cache / "w.pth"
    assert path.read_bytes() == CONTENT
    assert names(cache) == {"w.pth", "w.pth.sha256"}
    assert (cache / "w.pth.sha256").read_text() == f"{SHA256}  w.pth\n"
    assert fetch(weights(server)) == path
    assert server.seen == [None]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_was_cut_goes_on_or_starts_again(server: Server, cache: Path, ranges: bool):
    server.cuts, server.ranges = 1, ranges
    half = len(CONTENT) // 2
    with pytest.raises(DownloadError) as raised:
        fetch(weights(server))
    assert f"ended after {half:,} of {len(CONTENT):,} bytes; they are kept" in str(raised.value)
    assert names(cache) == {"w.pth.part"}
    assert fetch(weights(server)).read_bytes() == CONTENT
    assert server.seen == [None, f"bytes={half}-"]
    assert names(cache) == {"w.pth", "w.pth.sha256"}


def test_a_part_that_is_already_whole_is_only_checked(server: Server, cache: Path):
    cache.mkdir()
    (cache / "w.pth.part").write_bytes(CONTENT)
    assert fetch(weights(server)).read_bytes() == CONTENT
    assert server.seen == []


def test_a_part_longer_than_the_file_starts_again(server: Server, cache: Path):
    cache.mkdir()
    (cache / "w.pth.part").write_bytes(CONTENT + b"more")
    assert fetch(weights(server)).read_bytes() == CONTENT
    assert server.seen == [f"bytes={len(CONTENT) + 4}-", None]


def test_a_server_that_states_no_length_is_held_to_the_size_on_the_card(server: Server):
    server.states_length, server.cuts = False, 1
    with pytest.raises(DownloadError, match="ended after"):
        fetch(weights(server))
    assert fetch(weights(server)).read_bytes() == CONTENT


def test_a_wrong_hash_deletes_the_download_and_shows_both(server: Server, cache: Path):
    server.content = OTHER
    with pytest.raises(WeightsError) as raised:
        fetch(weights(server))
    assert hashlib.sha256(OTHER).hexdigest() in str(raised.value)
    assert f"expected {SHA256}" in str(raised.value)
    assert names(cache) == set()


def test_a_file_put_there_by_hand_is_checked_and_kept(server: Server, cache: Path):
    cache.mkdir()
    (cache / "w.pth").write_bytes(OTHER)
    with pytest.raises(WeightsError, match=f"expected {SHA256}; delete .*w.pth to download it again"):
        fetch(weights(server))
    (cache / "w.pth").write_bytes(CONTENT)
    assert fetch(weights(server)).read_bytes() == CONTENT
    assert names(cache) == {"w.pth", "w.pth.sha256"}
    assert server.seen == []


def test_without_a_published_hash_the_first_download_is_the_measure(server: Server, cache: Path):
    file = weights(server, size=None, sha256=None)
    fetch(file).unlink()
    server.content = OTHER
    with pytest.raises(WeightsError) as raised:
        fetch(file)
    assert f"expected {SHA256}" in str(raised.value)
    assert f"delete {cache / 'w.pth.sha256'}" in str(raised.value)
    server.content = CONTENT
    assert fetch(file).read_bytes() == CONTENT


def test_without_a_network_the_message_says_what_to_do(server: Server, cache: Path):
    file = weights(server)
    server.shutdown()
    server.server_close()  # the port now refuses
    with pytest.raises(DownloadError) as raised:
        fetch(file)
    message = str(raised.value)
    assert "Connection refused" in message
    assert file.address in message
    assert f"put it at {cache / 'w.pth'}" in message
    assert "--weights FILE" in message
    assert "\n" not in message
    assert names(cache) == set()


def test_an_address_that_is_gone_is_a_download_error(server: Server):
    with pytest.raises(DownloadError, match="the server answers 404 Not Found"):
        fetch(weights(server, path="gone"))


def test_several_at_once_download_once(server: Server, cache: Path):
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(fetch, [weights(server)] * 4))
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert server.seen == [None]
    assert names(cache) == {"w.pth", "w.pth.sha256"}


def test_a_cache_that_cannot_be_written_is_a_storage_error(server: Server, cache: Path):
    cache.write_text("a file where the folder should be")
    with pytest.raises(StorageError, match=r"cannot write .*w\.pth"):
        fetch(weights(server))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which is always full")
def test_a_full_disk_is_a_storage_error(server: Server, cache: Path):
    cache.mkdir()
    (cache / "w.pth.part").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="the disk is full"):
        fetch(weights(server))


def test_progress_is_one_line_where_there_is_no_terminal(server: Server, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, logger="samfit"):
        fetch(weights(server))
    address = f"http://127.0.0.1:{server.server_port}/w.pth"
    assert caplog.messages == [f"downloading w.pth (3 MB) from {address}"]


def test_progress_is_a_bar_on_a_terminal(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    fetch(weights(server))
    shown = capsys.readouterr()
    assert "w.pth" in shown.err
    assert "3.1/3.1 MB" in shown.err
    assert shown.out == ""
