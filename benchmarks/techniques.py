"""What makes a step lean, each by itself: a step with it and the same step without."""

from dataclasses import dataclass, replace

from cases import ADAPTER, Case


@dataclass(frozen=True)
class Technique:
    """One way to take less memory: a line of the docs' table."""

    name: str
    acts: str
    """When it acts."""
    lean: Case
    without: Case
    speed: str
    """Name of the row that compares the time of the two steps."""
    costs: str = "nothing"
    """What it costs beside time."""


_CROSSED = Case("sam-vit-b", "medical-adapter", 1024)
"""A gradient crosses the encoder."""
_KEPT = replace(_CROSSED, checkpointing=False)
_DECODER = Case("sam-vit-b", "decoder", 1024)
_ADAPTER = Case(ADAPTER, "", 512)

TECHNIQUES = (
    Technique(
        "attention without maps",
        "always (`--attention eager` holds them)",
        _CROSSED,
        replace(_CROSSED, attention="eager"),
        "attention without maps, medical-adapter",
    ),
    Technique(
        "checkpointing of blocks, neck and mask decoder",
        "`--checkpointing on`, or `auto` where a step would not fit",
        _CROSSED,
        _KEPT,
        "checkpointing, medical-adapter",
    ),
    Technique(
        "frozen MLPs that keep their input only",
        "always, where a gradient crosses them",
        _KEPT,
        replace(_KEPT, whole=True),
        "frozen MLPs, medical-adapter without checkpointing",
    ),
    Technique(
        "encoding in place, a chunk of tokens at a time",
        "always, where no gradient reaches the encoder",
        _DECODER,
        replace(_DECODER, whole=True),
        "encoding in place, decoder",
    ),
    Technique(
        "fused convolutional adapter",
        "always, for `cad`",
        _ADAPTER,
        replace(_ADAPTER, plain=True),
        _ADAPTER.name,
    ),
    Technique(
        "embedding cache",
        "`--cache`, for `decoder` and `cad`",
        replace(_DECODER, cached=True),
        _DECODER,
        "cached step of decoder",
        "4.2 MB for each view of an image (2.1 MB in bf16), on disk or in the machine's memory",
    ),
    Technique(
        "bfloat16",
        "`--precision bf16`",
        replace(_DECODER, precision="bf16"),
        _DECODER,
        "bfloat16, decoder",
        "numbers of 8 significant bits",
    ),
)
