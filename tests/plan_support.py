"""A setup to plan for, and a device whose memory is known without tracing."""

from dataclasses import replace

from samfit.plan import remembered
from samfit.plan.setup import Estimate, Setup

SETUP = Setup(
    backbone="sam-tiny",
    variant=None,
    method="cad",
    options=(),
    classes=1,
    image_size=128,
    loss="bce-iou",
    loss_size=64,
    batch_size=4,
    precision="32",
    checkpointing=False,
    cached=False,
    device="cpu",
    attention="chunked",
)
MB = 10**6
WEIGHTS = 100 * MB


def estimate(setup: Setup) -> Estimate:
    """Return round numbers: an image takes 40 MB, half with bfloat16, a quarter with checkpointing.

    That is at the backbone's image size; with cached embeddings there is no encoder.
    """
    image = 40 * MB * setup.image_size**2 // 128**2
    image //= (2 if setup.precision == "bf16" else 1) * (4 if setup.checkpointing else 1)
    late = dict(setup.options).get("late_blocks")
    return Estimate(
        weights=WEIGHTS // 5 if setup.cached else WEIGHTS,
        inputs=0,
        optimizer=0,
        gradients=0,
        activations=image * setup.batch_size * (late or 4) // 4,
        temporary=0,
    )


def of_prediction(setup: Setup) -> Estimate:
    """Return what `remembered.prediction` does: how training is done does not count."""
    return estimate(replace(setup, cached=False, checkpointing=False))


def forget() -> None:
    """Forget what this process knows, as another process would not know it."""
    remembered.own_file.cache_clear()
    remembered.known.cache_clear()
