"""Published base weights: shipped, or downloaded once, resumed after a cut, checked and kept in a folder."""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from filelock import FileLock, Timeout
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from samfit.backbones.card import WeightsFile
from samfit.errors import DownloadError, WeightsError
from samfit.files import sha256_of_file, storage_errors, write_text
from samfit.progress import console

_log = logging.getLogger("samfit")
_CHUNK = 1 << 20
_SECONDS_OF_SILENCE = 30
_RANGE_NOT_SATISFIABLE = 416
_PARTIAL_CONTENT = 206


def cache_folder() -> Path:
    """Return where base weights are kept: SAMFIT_CACHE, or samfit under XDG_CACHE_HOME or ~/.cache."""
    chosen = os.environ.get("SAMFIT_CACHE")
    if chosen:
        return Path(chosen)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "samfit"


def fetch(file: WeightsFile) -> Path:
    """Return the path of published weights: in the package if they ship with it, else in the cache folder.

    What is not there yet is downloaded. Its hash is checked once and noted beside the file as `NAME.sha256`.
    Where the card knows no hash, the note of the first download is what every later download must equal. A
    second process waits for the first.

    Raises `WeightsError` for a wrong hash, `DownloadError` where the file cannot be fetched (what has come is
    kept, and the next call goes on from there), `StorageError` where it cannot be written.
    """
    if file.address is None:
        return Path(__file__).with_name(file.name)
    path = cache_folder() / file.name
    if _is_checked(file, path):
        return path
    with _alone(path):
        if not _is_checked(file, path):  # another process may have fetched it meanwhile
            source = path if path.is_file() else _download(file, path)
            digest = _check(file, path, source)
            write_text(_note(path), f"{digest}  {file.name}\n")
            with storage_errors(path):
                os.replace(source, path)
    return path


def _note(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _noted(path: Path) -> str | None:
    """Return the hash that was noted when the file at `path` was checked, or None."""
    words = _note(path).read_text().split() if _note(path).is_file() else []
    return words[0] if words else None


def _is_checked(file: WeightsFile, path: Path) -> bool:
    noted = _noted(path)
    return path.is_file() and noted is not None and file.sha256 in (noted, None)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process at a time work on `path`; the system frees the lock of a process that died."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(path.name + ".lock"))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            _log.info("another process is fetching %s; waiting for it", path)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _check(file: WeightsFile, path: Path, source: Path) -> str:
    """Return the hash of `source` if it is the right one; delete a download that has a wrong one."""
    found = sha256_of_file(source)
    expected = file.sha256 or _noted(path)
    if expected in (found, None):
        return found
    if source == path:
        remedy = f"delete {path} to download it again"
    else:
        source.unlink()
        remedy = f"the download was deleted; run the command again, or check what {file.address} holds"
    if file.sha256 is None:
        remedy += f"; if the publisher replaced the file and you trust the new one, delete {_note(path)}"
    raise WeightsError(
        f"{path} is not the published {file.name}: its SHA-256 is {found}, expected {expected}; {remedy}"
    )


def _download(file: WeightsFile, path: Path) -> Path:
    """Fetch what is still missing of a file and return the path of the complete, unchecked download."""
    part = _part(path)
    done = part.stat().st_size if part.is_file() else 0
    if done and done == file.size:  # a run ended between the last byte and the check
        return part
    with _connect(file, path, done) as response:
        if response.status != _PARTIAL_CONTENT:
            done = 0
        length = response.headers["Content-Length"]
        total = file.size if length is None else done + int(length)
        with (
            _progress(file, done, total) as advance,
            storage_errors(part),
            part.open("ab" if done else "wb") as out,
        ):
            for chunk in _chunks(response, file, path):
                out.write(chunk)
                advance(len(chunk))
    arrived = part.stat().st_size
    if total is not None and arrived < total:
        raise DownloadError(
            _advice(file, path, f"the connection ended after {arrived:,} of {total:,} bytes; they are kept")
        )
    return part


def _connect(file: WeightsFile, path: Path, done: int) -> HTTPResponse:
    """Ask for the file from byte `done` on; the answer's status says whether the server heeded it."""
    assert file.address is not None
    request = Request(file.address, headers={"User-Agent": "samfit"})
    if done:
        request.add_header("Range", f"bytes={done}-")
    try:
        with _network_errors(file, path):
            return urlopen(request, timeout=_SECONDS_OF_SILENCE)
    except DownloadError as error:
        cause = error.__cause__
        if done and isinstance(cause, HTTPError) and cause.code == _RANGE_NOT_SATISFIABLE:
            return _connect(file, path, 0)
        raise


def _chunks(response: HTTPResponse, file: WeightsFile, path: Path) -> Iterator[bytes]:
    while True:
        with _network_errors(file, path):
            chunk = response.read(_CHUNK)
        if not chunk:
            return
        yield chunk


@contextlib.contextmanager
def _network_errors(file: WeightsFile, path: Path) -> Iterator[None]:
    """Turn what urllib raises into a `DownloadError` that says what to do."""
    try:
        yield
    except (OSError, HTTPException) as error:
        if isinstance(error, HTTPError):
            error.close()
            reason = f"the server answers {error.code} {error.reason}"
        else:
            reason = str(error.reason if isinstance(error, URLError) else error) or type(error).__name__
        raise DownloadError(_advice(file, path, reason)) from error


def _advice(file: WeightsFile, path: Path, reason: str) -> str:
    return (
        f"cannot download {file.address}: {reason}. Run the command again when the network is back, or fetch "
        f"the file by other means and put it at {path}, or name it with --weights FILE"
    )


@contextlib.contextmanager
def _progress(file: WeightsFile, done: int, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal, else log one line; yields what to call with each number of new bytes."""
    if not sys.stderr.isatty():
        size = "unknown size" if total is None else f"{total / 1e6:.0f} MB"
        _log.info("downloading %s (%s) from %s", file.name, size, file.address)
        yield lambda count: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console()) as progress:
        task = progress.add_task(file.name, total=total, completed=done)
        yield lambda count: progress.advance(task, count)
