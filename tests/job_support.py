"""Jobs of a comparison that do what their name says instead of a training, and the program that does it."""

from pathlib import Path

from samfit.compare.jobs import Job
from samfit.settings import EvaluateSettings, TrainSettings

DOES = """
import json, os, pathlib, signal, sys, time
text = sys.stdin.readline()
job = json.loads(text)
folder, name = pathlib.Path(job["folder"]).parent, job["name"]
(folder / f"{name}.place").write_text(os.environ.get("PLACE", "none"))
if name == "fails":
    print("samfit: starting")
    sys.exit("samfit: error: the data\\n  are wrong")
if name == "crashes":
    raise ZeroDivisionError("a fault")
if name == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if name == "kills-its-parent":
    os.kill(os.getppid(), signal.SIGKILL)
if name in ("waits-for-signal", "stops-its-parent"):
    def stop(*_):
        (folder / "checkpoint").write_text("written")
        sys.exit(143)
    signal.signal(signal.SIGTERM, stop)
    (folder / "ready").write_text("")
    if name == "stops-its-parent":
        os.kill(os.getppid(), signal.SIGTERM)
    while True:
        time.sleep(0.01)
if name == "goes-on":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (folder / "ready").write_text(str(os.getpid()))
    time.sleep(20)
    (folder / "went on").write_text("")
if name == "waits-for-other":
    while not (folder / "ready").exists():
        time.sleep(0.01)
if name == "is-preempted":
    (pathlib.Path(os.environ["QUEUE"]) / (os.environ["SLURM_JOB_ID"] + ".state")).write_text("PREEMPTED")
    os.kill(os.getppid(), signal.SIGKILL)
if name != "does-not-finish":
    from samfit.compare.jobs import Job
    Job.from_json(text).folder.mkdir()
    Job.from_json(text).finish()
"""


def jobs_named(folder: Path, *names: str) -> list[Job]:
    """Return jobs by their names; what each does stands above, whatever is not there just finishes."""
    train = TrainSettings(data=Path("lesions"), output=folder)
    evaluate = EvaluateSettings(run=folder)
    return [Job(name, "run", folder / name, train, evaluate, "", (None, None)) for name in names]
