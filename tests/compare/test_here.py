"""The engine of one machine: processes that end well, fail, are killed, or are stopped."""

import functools
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from compare_support import RESULT, job, write_run
from job_support import DOES, jobs_named

from samfit.backbones import card_of
from samfit.compare import here, work
from samfit.compare import jobs as module_of_jobs
from samfit.compare.here import run_here
from samfit.compare.jobs import Job, hashes_of_named_files
from samfit.config import write_config
from samfit.defaults import in_words, resolve
from samfit.errors import Interrupted
from samfit.runs import RunFolder


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """Make jobs by their names."""
    monkeypatch.setattr(here, "WORK", (sys.executable, "-c", DOES))

    return functools.partial(jobs_named, tmp_path)


def test_one_that_fails_crashes_or_is_killed_does_not_end_the_others(jobs):
    ended = {one.job.name: one.error for one in run_here(jobs("fails", "crashes", "killed", "works"))}
    assert ended["works"] is None
    assert ended["fails"] == "the data\n  are wrong"
    assert "status 1" in str(ended["crashes"])
    assert "ZeroDivisionError: a fault" in str(ended["crashes"])
    assert "SIGKILL, which the system sends when memory runs out" in str(ended["killed"])


def test_what_a_process_says_lies_beside_its_folder(jobs, tmp_path):
    list(run_here(jobs("fails")))
    assert "samfit: starting" in (tmp_path / "fails.log").read_text()


def test_jobs_take_the_places_that_are_free(jobs, tmp_path):
    both = jobs("waits-for-other", "waits-for-signal")[:1] + jobs("first", "second")
    (tmp_path / "ready").write_text("")
    assert len(list(run_here(both, [{"PLACE": "0"}, {"PLACE": "1"}]))) == 3
    assert (tmp_path / "waits-for-other.place").read_text() == "0"
    assert (tmp_path / "first.place").read_text() == "1"


@pytest.mark.parametrize("own", [None, "active"])
def test_threads_of_jobs_wait_asleep_unless_said_otherwise(jobs, tmp_path, monkeypatch, own):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if own:
        monkeypatch.setenv("OMP_WAIT_POLICY", own)
    says = "import os; print(os.environ['OMP_WAIT_POLICY'])"
    monkeypatch.setattr(here, "WORK", (sys.executable, "-c", says))
    list(run_here(jobs("works")))
    assert (tmp_path / "works.log").read_text().strip() == (own or "passive")


@pytest.mark.parametrize(
    ("count", "visible", "names"), [(0, None, [None]), (2, None, ["0", "1"]), (2, "3,5", ["3", "5"])]
)
def test_each_gpu_that_may_be_used_is_a_place(monkeypatch, count, visible, names):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [place.get("CUDA_VISIBLE_DEVICES") for place in here.devices()] == names


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_running_jobs_write_and_starts_no_others(jobs, tmp_path, number, status):
    running = run_here(jobs("waits-for-other", "waits-for-signal", "never"), [{}, {}])
    first = next(running)
    assert first.job.name == "waits-for-other"
    os.kill(os.getpid(), number)
    with pytest.raises(Interrupted, match="the same command goes on") as caught:
        list(running)
    assert caught.value.exit_status == status
    assert (tmp_path / "checkpoint").read_text() == "written"
    assert not (tmp_path / "never.place").exists()


def test_a_process_ends_when_the_one_that_started_it_is_gone(jobs):
    (job,) = jobs("works")
    program = (
        "import sys, time\nfrom samfit.compare import work\n"
        "work.do = lambda job: time.sleep(100)\nsys.exit(work.main())"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
    process.communicate(job.to_json().encode() + b"\n", timeout=90)  # closes its stdin
    assert process.returncode == -signal.SIGTERM


def test_a_job_comes_back_from_text_as_it_was(jobs):
    (job,) = jobs("works")
    evaluate = replace(job).evaluate.model_copy(update={"protocol": ("default", "cad")})
    job = replace(job, evaluate=evaluate, train=resolve(job.train))
    back = Job.from_json(job.to_json())
    assert back == job


def test_what_nobody_gave_a_job_is_open_to_its_process_too(jobs):
    (job,) = jobs("works")
    job = replace(job, train=resolve(job.train.model_copy(update={"precision": "32"})))
    back = Job.from_json(job.to_json())
    for before, after in ((job.train, back.train), (job.evaluate, back.evaluate)):
        assert after.model_fields_set == before.model_fields_set
    assert "precision" in back.train.model_fields_set
    assert "cache" not in back.train.model_fields_set


def test_a_job_is_another_one_when_settings_or_data_change_but_not_when_it_lies_elsewhere(jobs, tmp_path):
    (job,) = jobs("works")
    job.finish()
    assert job.is_finished()
    moved = replace(job, train=job.train.model_copy(update={"data": Path("elsewhere")}))
    assert moved.is_finished()
    assert not replace(job, train=job.train.model_copy(update={"epochs": 7})).is_finished()
    assert not replace(job, data_fingerprint="other").is_finished()
    scored = job.evaluate.model_copy(update={"protocol": ("cad",)})
    assert not replace(job, evaluate=scored).is_finished()
    assert replace(job, evaluate=scored).training() == job.training()


def test_files_that_settings_name_are_hashed_once_and_make_another_job(jobs, tmp_path):
    (job,) = jobs("works")
    weights, groups = tmp_path / "weights.pth", tmp_path / "groups.csv"
    for file in (weights, groups):
        file.write_bytes(b"one")
    named = {"weights": str(weights), "group": str(groups)}
    job = replace(job, train=job.train.model_copy(update=named))
    job = replace(job, named_files=hashes_of_named_files(job.train))
    job.finish()
    for file in (weights, groups):
        file.write_bytes(b"two")
        assert job.is_finished()
        assert not replace(job, named_files=hashes_of_named_files(job.train)).is_finished()
        file.write_bytes(b"one")


def test_a_release_with_other_published_weights_makes_another_job(jobs, monkeypatch):
    published, random = jobs("published", "random")
    random = replace(random, train=random.train.model_copy(update={"weights": "random"}))
    for one in (published, random):
        one.finish()
        assert one.is_finished()
    card = card_of(published.train.backbone)
    next_card = replace(card, weights=replace(card.weights, sha256="of the next release"))
    monkeypatch.setattr(module_of_jobs, "card_of", lambda _: next_card)
    assert not published.is_finished()
    assert random.is_finished()


@pytest.mark.parametrize("file", RESULT)
def test_a_job_is_not_finished_once_somebody_has_changed_its_result(tmp_path, file):
    done = job(tmp_path, "run")
    write_run(done)
    assert done.is_finished()
    before = (done.folder / file).read_bytes()
    for change in (lambda: (done.folder / file).write_bytes(b"other"), (done.folder / file).unlink):
        change()
        assert not done.is_finished()
        (done.folder / file).write_bytes(before)
        assert done.is_finished()


def test_what_was_scored_anew_by_hand_is_scored_again_and_what_was_trained_anew_trained_again(
    tmp_path, monkeypatch
):
    asked: list[str] = []

    def note(what: str) -> None:
        asked.append(what)
        write_run(done)

    def note_training(*_: object, **__: object) -> None:
        note("train")
        write_config(done.folder / "config.yaml", in_words(done.train))

    monkeypatch.setattr(work, "train", note_training)
    monkeypatch.setattr(work, "evaluate", lambda *_, **__: note("evaluate"))
    done = job(tmp_path, "run")
    done.folder.mkdir()
    done.begin()
    note_training()
    asked.clear()
    (done.folder / "evaluation/summary.json").write_text("{}")
    work.do(done)
    assert asked == ["evaluate"]
    (done.folder / "adapter.safetensors").write_bytes(b"trained by hand")
    asked.clear()
    work.do(done)
    assert asked == ["train", "evaluate"]
    asked.clear()
    work.do(done)
    assert asked == []


@pytest.mark.parametrize(
    ("left", "asks"), [("last.ckpt", ["resume", "evaluate"]), ("summary.json", ["evaluate"])]
)
def test_a_begun_run_goes_on_from_where_its_files_lie_now(tmp_path, monkeypatch, left, asks):
    asked: list[str] = []

    def look(what: str) -> None:
        asked.append(what)
        settings = RunFolder(begun.folder).settings()
        assert settings.data == tmp_path / "moved"
        assert settings.output == begun.folder
        assert settings.precision == "bf16"  # as --vram has chosen

    monkeypatch.setattr(work, "resume", lambda *_: look("resume"))
    monkeypatch.setattr(work, "evaluate", lambda *_, **__: look("evaluate"))
    begun = job(tmp_path, "run")
    chosen = begun.train.model_copy(update={"precision": "bf16", "output": tmp_path / "before/run"})
    begun.folder.mkdir()
    begun.begin()
    write_config(begun.folder / "config.yaml", in_words(chosen))
    (begun.folder / left).write_text("{}")
    monkeypatch.chdir(tmp_path)
    work.do(replace(begun, train=begun.train.model_copy(update={"data": Path("moved")})))
    assert asked == asks
