"""`train`, `evaluate`, `predict` and `demo`: what reaches the engine, and what is printed of its answer."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from samfit.cli import main
from samfit.config import write_config
from samfit.defaults import in_words
from samfit.settings import EvaluateSettings, PredictSettings, TrainSettings


@pytest.fixture
def engine(monkeypatch, tmp_path):
    """Put functions in the engine's place that remember their calls and give short answers."""
    calls = []
    run = tmp_path / "my run"
    run.mkdir()
    summary = {"best_epoch": 7, "validation": {"dice": 0.91234, "iou": 0.8}}
    summary |= {"protocol": "default", "prompt_from_truth": True}
    (run / "summary.json").write_text(json.dumps(summary))

    def train(settings, *, overwrite=False):
        calls.append((settings, overwrite))
        return run

    def resume(folder):
        calls.append(folder)
        return run

    def evaluate(settings):
        calls.append(settings)
        return SUMMARY

    def predict(settings):
        calls.append(settings)
        return [settings.output / "a.png", settings.output / "b.png"]

    def run_demo(output, *, overwrite):
        calls.append((output, overwrite))
        return {"images": 0, "rows": []}

    for name, functions in {
        "samfit.engine.training": (train, resume),
        "samfit.engine.evaluation": (evaluate,),
        "samfit.engine.prediction": (predict,),
        "samfit.demo": (run_demo,),
    }.items():
        module = ModuleType(name)
        module.__dict__.update({function.__name__: function for function in functions})
        monkeypatch.setitem(sys.modules, name, module)
    return calls


def scores(dice: float) -> dict:
    return {
        "dice": {"mean": dice, "low": dice - 0.01, "high": dice + 0.01},
        "iou": {"mean": dice - 0.1, "low": dice - 0.11, "high": dice - 0.09},
    }


def evaluation(protocol: str, **more: object) -> dict:
    """What the summary says of one protocol."""
    return {
        "protocol": protocol,
        "protocol_description": f"what {protocol} is",
        "prompt": "full-box",
        "prompt_class": None,
        "prompt_from_truth": False,
        "departures": [],
        "empty_targets": 2,
        "metrics": scores(0.9),
        "per_class": {"disc": scores(0.95), "cup": scores(0.85)},
        "unadapted": {"metrics": scores(0.2)},
        "difference": {
            "metrics": {name: {**score, "verdict": "better"} for name, score in scores(0.7).items()}
        },
    } | more


SUMMARY = {
    "split": "test",
    "images": 50,
    "groups": 40,
    **evaluation("default"),
    "other_protocols": {
        "istd": evaluation(
            "istd",
            prompt="click",
            prompt_class="cup",
            prompt_from_truth=True,
            departures=["trained otherwise"],
            metrics={"ber": {"mean": 0.2, "low": None, "high": None}},
            per_class={"cup": {}},
            unadapted={"metrics": {"ber": {"mean": 0.3, "low": None, "high": None}}},
            difference={"metrics": {"ber": {"mean": -0.1, "low": None, "high": None, "verdict": "tie"}}},
        )
    },
}
NEEDED = ["--data", "images", "--output", "run"]


def test_train_passes_on_only_what_was_given(engine):
    assert main(["train", *NEEDED, "--learning-rate", "1e-4", "--classes", "disc,cup", "--overwrite"]) == 0
    [(settings, overwrite)] = engine
    assert settings == TrainSettings(
        data=Path("images"), output=Path("run"), learning_rate=1e-4, classes=("disc", "cup")
    )
    assert settings.model_fields_set == {"data", "output", "learning_rate", "classes"}
    assert overwrite


def test_train_prints_the_result_and_what_to_type_next(engine, capsys, tmp_path):
    assert main(["train", *NEEDED]) == 0
    run = tmp_path / "my run"
    assert capsys.readouterr().out.splitlines() == [
        "best epoch       7",
        "validation Dice  0.9123 (protocol default, prompt from the truth)",
        f"run              {run}",
        "what to do next:",
        f"  samfit evaluate '{run}'",
        f"  samfit predict '{run}' image.jpg --output masks",
    ]


@pytest.mark.parametrize("rank", ["RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"])
def test_of_several_processes_only_the_first_speaks(engine, capsys, monkeypatch, rank):
    monkeypatch.setenv(rank, "1")
    assert main(["train", *NEEDED]) == 0
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv(rank, "0")
    assert main(["train", *NEEDED]) == 0
    assert "best epoch" in capsys.readouterr().out


def test_flags_go_before_the_config_file_and_the_file_before_the_defaults(engine, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("data: images\noutput: run\nepochs: 3\nlearning-rate: 1e-3\nprecision: 32\n")
    assert main(["train", "--config", str(config), "--epochs", "5"]) == 0
    [(settings, _)] = engine
    assert (settings.epochs, settings.learning_rate, settings.seed) == (5, 1e-3, 0)
    assert settings.data == Path("images")  # relative to the working folder, not to the file


def test_the_config_of_a_run_repeats_it(engine, tmp_path):
    first = TrainSettings(data=Path("images"), output=Path("run"), classes=("disc",), mask_values={"disc": 3})
    write_config(tmp_path / "config.yaml", in_words(first))
    assert main(["train", "--config", str(tmp_path / "config.yaml")]) == 0
    assert engine[0][0] == first


def test_faults_of_flags_and_of_the_file_are_listed_together(engine, tmp_path, capsys):
    config = tmp_path / "run.yaml"
    config.write_text("epochs: 0\nlearning_rte: 1\ndataset: isic2015\n")
    assert main(["train", "--config", str(config), "--backbone", "sam-vit-x", "--data", "d"]) == 2
    err = capsys.readouterr().err
    assert "samfit: error: 5 settings are wrong:" in err
    for part in (
        f"--learning-rte 1 (in {config}): there is no such setting; did you mean '--learning-rate'?",
        "--output is needed",
        f"--epochs 0 (in {config}): expected a whole number, at least 1",
        f"--dataset isic2015 (in {config}): unknown dataset 'isic2015'; did you mean 'isic2016'?",
        "--backbone sam-vit-x: unknown backbone 'sam-vit-x'; did you mean 'sam-vit-",
    ):
        assert part in err
    assert engine == []


def test_resume_takes_the_run_alone(engine, capsys):
    assert main(["train", "--resume", "run"]) == 0
    assert engine == [Path("run")]
    assert "best epoch" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("others", "named"),
    [
        (["--epochs", "3"], "--epochs"),
        (["--overwrite"], "--overwrite"),
        (["--config", "x.yaml", "--seed", "1"], "--seed, --config"),
    ],
)
def test_resume_with_another_flag_is_refused(engine, capsys, others, named):
    assert main(["train", "--resume", "run", *others]) == 2
    assert f"--resume goes on with the run's own settings; take away {named}," in capsys.readouterr().err
    assert engine == []


def test_evaluate_shows_adapted_and_unadapted_side_by_side(engine, capsys):
    assert main(["evaluate", "run", "--split", "validation"]) == 0
    assert engine == [EvaluateSettings(run=Path("run"), split="validation")]
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "protocol prompt score of mean 95 % interval",
        "default full-box Dice adapted 0.9000 0.8900 to 0.9100",
        "default full-box Dice base model, not adapted 0.2000 0.1900 to 0.2100",
        "default full-box Dice difference: better +0.7000 +0.6900 to +0.7100",
        "default full-box IoU adapted 0.8000 0.7900 to 0.8100",
        "default full-box IoU base model, not adapted 0.1000 0.0900 to 0.1100",
        "default full-box IoU difference: better +0.6000 +0.5900 to +0.6100",
        "default full-box Dice, disc adapted 0.9500 0.9400 to 0.9600",
        "default full-box IoU, disc adapted 0.8500 0.8400 to 0.8600",
        "default full-box Dice, cup adapted 0.8500 0.8400 to 0.8600",
        "default full-box IoU, cup adapted 0.7500 0.7400 to 0.7600",
        "istd click of cup (truth) BER adapted 0.2000 –",
        "istd click of cup (truth) BER base model, not adapted 0.3000 –",
        "istd click of cup (truth) BER difference: tie -0.1000 –",
        "",
        "50 images of the test split in 40 groups; masks without foreground: 2",
        "(truth): the prompt was taken from the truth; not comparable with scores of other prompts",
        "",
        "protocol default: what default is",
        "",
        "protocol istd: what istd is",
        "but: trained otherwise",
    ]


def test_evaluate_json_is_the_summary(engine, capsys):
    assert main(["evaluate", "run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == SUMMARY


def test_predict_takes_many_images_and_prints_what_was_written(engine, capsys):
    assert main(["predict", "run", "a.jpg", "folder", "--output", "masks", "--overlay"]) == 0
    assert engine == [
        PredictSettings(
            run=Path("run"), images=(Path("a.jpg"), Path("folder")), output=Path("masks"), overlay=True
        )
    ]
    assert engine[0].model_fields_set == {"run", "images", "output", "overlay"}
    assert capsys.readouterr().out.splitlines() == ["masks/a.png", "masks/b.png"]


def test_demo_has_a_folder_of_its_own(engine):
    assert main(["demo"]) == 0
    assert main(["demo", "--output", "there", "--overwrite"]) == 0
    assert engine == [(Path("demo-run"), False), (Path("there"), True)]
