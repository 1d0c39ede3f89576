"""The engine of a cluster: a queue on this machine, and Slurm's commands as small programs."""

import functools
import logging
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from cli_support import drawn_data, refuse, unchanged
from job_support import DOES, jobs_named
from slurm_support import slurm_in

from samfit.compare import cluster
from samfit.compare.cluster import run_on_cluster
from samfit.config import parse
from samfit.errors import Interrupted, SettingError
from samfit.settings import CompareSettings


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """Make jobs by their names, which a process that a queue starts does as well."""
    patch = tmp_path / "patch"
    patch.mkdir()
    does = tmp_path / "does.py"
    does.write_text(DOES)
    (patch / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'submitit.core._submit' in sys.orig_argv:\n"
        "    from samfit.compare import here\n"
        f"    here.WORK = ({sys.executable!r}, {str(does)!r})\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(patch), prepend=os.pathsep)
    return functools.partial(jobs_named, tmp_path / "runs")


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> Path:
    """Put commands of Slurm on the path; return the folder of the queue."""
    queue, environment = slurm_in(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cluster, "_POLL", {"slurm": 0.05})
    return queue


def test_one_that_fails_or_whose_worker_is_killed_does_not_end_the_others(jobs, tmp_path):
    names = ("fails", "kills-its-parent", "stops-its-parent", "works")
    places = [{"PLACE": "0"}, {"PLACE": "1"}]
    running = run_on_cluster(jobs(*names), places, "local", {}, tmp_path)
    ended = {one.job.name: one.error for one in running}
    assert ended.keys() == set(names)
    assert ended["works"] is None
    assert ended["fails"] == "the data\n  are wrong"
    assert "the cluster ended its job" in str(ended["kills-its-parent"])
    assert "kills-its-parent.log" in str(ended["kills-its-parent"])
    assert "at its time limit or to make room; the same command goes on" in str(ended["stops-its-parent"])
    assert (tmp_path / "runs/checkpoint").exists()
    assert (tmp_path / "runs/fails.place").read_text() == "0"
    assert (tmp_path / "runs/kills-its-parent.place").read_text() == "1"
    assert "samfit: starting" in (tmp_path / "runs/fails.log").read_text()
    assert list(tmp_path.glob(".cluster*")) == []


def test_a_signal_lets_queued_jobs_write_and_submits_no_others(jobs, tmp_path):
    names = ("waits-for-other", "waits-for-signal", "never")
    running = run_on_cluster(jobs(*names), [{}, {}], "local", {}, tmp_path)
    assert next(running).job.name == "waits-for-other"
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Interrupted, match="the same command goes on") as caught:
        list(running)
    assert caught.value.exit_status == 143
    assert (tmp_path / "runs/checkpoint").read_text() == "written"
    assert not (tmp_path / "runs/never.place").exists()


def test_ctrl_c_on_the_terminal_reaches_no_process_of_the_local_queue(jobs, tmp_path):
    (job,) = jobs("waits-for-signal")
    queue = cluster._Queue(cluster._executor("local", {}, tmp_path / "files"), tmp_path)
    queued = queue.submit(job, {})
    status = Path(f"/proc/{queued._queued.job_id}/status").read_text()
    queued.stop()
    while not queued.has_ended():
        time.sleep(0.01)
    blocked = int(next(line for line in status.splitlines() if line.startswith("SigBlk"))[7:], 16)
    assert blocked & 1 << (signal.SIGINT - 1)


def test_a_job_of_the_local_queue_that_is_killed_ends_at_once(jobs, tmp_path):
    (job,) = jobs("goes-on")
    queue = cluster._Queue(cluster._executor("local", {}, tmp_path / "files"), tmp_path)
    queued = queue.submit(job, {})
    ready = tmp_path / "runs/ready"
    while not (ready.exists() and ready.read_text()):
        time.sleep(0.01)
    queued.stop()
    queued.kill()
    while not queued.has_ended() or Path("/proc", ready.read_text()).exists():
        time.sleep(0.01)
    assert not (tmp_path / "runs/went on").exists()


def test_slurm_is_asked_for_what_the_user_wants_and_does_the_jobs(jobs, slurm, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_SIGHT", 1)
    options = {"partition": "gpu", "time": "4:00:00", "gpus-per-node": "1", "signal": "TERM@300"}
    names = ("fails", "does-not-finish", "is-preempted", "works")
    running = run_on_cluster(jobs(*names), [{}] * 4, "slurm", options, tmp_path)
    ended = {one.job.name: one.error for one in running}
    assert ended["works"] is None
    assert ended["fails"] == "the data\n  are wrong"
    assert "(PREEMPTED)" in str(ended["is-preempted"])
    assert "does not show it; is it the same on all machines?" in str(ended["does-not-finish"])
    lines = (slurm / "101.sh").read_text().splitlines()
    for name, value in options.items():
        assert f"#SBATCH --{name}={value}" in lines
    assert "#SBATCH --no-requeue" in lines
    assert not any("wckey" in line for line in lines)
    assert logging.getLogger("submitit").handlers == []  # it would write on stdout


def test_without_options_slurm_gets_its_own_limit_and_a_warning_before_it(jobs, slurm, tmp_path):
    assert [one.error for one in run_on_cluster(jobs("works"), [{}], "slurm", {}, tmp_path)] == [None]
    text = (slurm / "101.sh").read_text()
    assert "--time" not in text
    assert "#SBATCH --signal=TERM@90" in text
    assert "#SBATCH --job-name=samfit-works" in text


def test_ctrl_c_cancels_what_is_in_the_queue_of_slurm(jobs, slurm, tmp_path):
    running = run_on_cluster(jobs("waits-for-other", "waits-for-signal"), [{}] * 2, "slurm", {}, tmp_path)
    assert next(running).job.name == "waits-for-other"
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(Interrupted):
        list(running)
    assert (slurm / "102.cancelled").exists()
    assert (tmp_path / "runs/checkpoint").read_text() == "written"


def test_options_that_slurm_refuses_are_an_error_but_a_full_queue_is_one_of_its_job(jobs, slurm, tmp_path):
    def run(partition: str):
        return list(
            run_on_cluster(jobs("works", "more"), [{}] * 2, "slurm", {"partition": partition}, tmp_path)
        )

    with pytest.raises(SettingError, match="first job: sbatch: error: invalid partition"):
        run("wrong")
    assert {one.job.name: one.error for one in run("full")} == {
        "works": None,
        "more": "sbatch refused it: sbatch: error: queue is full",
    }


@pytest.mark.parametrize(
    ("flags", "missing", "said"),
    [
        (
            ("--cluster", "local"),
            "submitit",
            "--cluster local: not installed: submitit; pip install '.[slurm]' in samfit's folder",
        ),
        (("--cluster", "slurm"), "sbatch", "--cluster slurm: there is no sbatch here"),
        (("--slurm", "partition=gpu"), None, "only --cluster slurm has it, not --cluster here"),
        (("--slurm", "gpu"), None, "expected options of sbatch as name=value,name=value"),
        (("--slurm", "time=1,time=2"), None, "an option is there twice"),
    ],
)
def test_a_cluster_that_is_not_there_is_said_before_anything_is_done(
    tmp_path, tmp_path_factory, monkeypatch, flags, missing, said
):
    recipe, output = tmp_path / "recipe.yaml", tmp_path / "report"
    recipe.write_text(f"data: {drawn_data(tmp_path_factory)}\ndataset: isic2016\n")
    if missing == "submitit":
        monkeypatch.setattr("samfit.packages.find_spec", lambda name: None)
    if missing == "sbatch":
        monkeypatch.setenv("PATH", str(tmp_path))
    with unchanged(output):
        assert said in refuse("compare", recipe, "--output", output, *flags)


def test_options_of_sbatch_may_hold_commas():
    text = "partition=gpu,nodelist=a,b,gres=gpu:1,--time=4:00:00"
    settings = parse(CompareSettings, {"recipe": "r.yaml", "output": "o", "slurm": text}, {})
    assert settings.slurm == {"partition": "gpu", "nodelist": "a,b", "gres": "gpu:1", "time": "4:00:00"}
