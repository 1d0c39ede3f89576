"""`--attention` reaches the encoder in every command that has it."""

import pytest
from engine_support import tiny_settings

from samfit.backbones import sam_modules
from samfit.data.drawn import draw_lesions
from samfit.engine.evaluation import evaluate
from samfit.engine.prediction import predict
from samfit.engine.training import train
from samfit.settings import EvaluateSettings, PredictSettings


@pytest.fixture
def used(monkeypatch):
    """Return the kinds of attention that were computed so far."""
    kinds, attend = set(), sam_modules.attend

    def watched(qkv, relative, kind):
        kinds.add(kind)
        return attend(qkv, relative, kind)

    monkeypatch.setattr(sam_modules, "attend", watched)
    return kinds


def test_the_setting_reaches_training_evaluation_and_prediction(tmp_path, used):
    data, run = tmp_path / "lesions", tmp_path / "run"
    draw_lesions(data, training=10, test=2, size=(40, 30))
    train(tiny_settings(data, run, epochs=1, prompt="full-box", attention="eager"))
    assert used == {"eager"}
    used.clear()
    evaluate(EvaluateSettings(run=run, attention="folded", overlays=0, accelerator="cpu"))
    assert used == {"folded"}
    used.clear()
    images = (data / "ISBI2016_ISIC_Part1_Test_Data",)
    predict(
        PredictSettings(
            run=run, images=images, output=tmp_path / "masks", attention="chunked", accelerator="cpu"
        )
    )
    assert used == {"chunked"}
