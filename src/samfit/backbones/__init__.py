"""The table of backbones, and how one is loaded. Importing this loads neither torch nor a backbone."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from samfit.backbones.card import BackboneCard, WeightsFile
from samfit.errors import SettingError, unknown_name

if TYPE_CHECKING:
    from samfit.backbones.base import Backbone

_SAM_ADDRESS = "https://dl.fbaipublicfiles.com/segment_anything/"
_EFFICIENT_SAM_ADDRESS = (
    "https://raw.githubusercontent.com/yformer/EfficientSAM/d525f622e6f640acf5a0fc37c7ca1f243da5bde0/weights/"
)


_MEDICAL_SAM_ADAPTER = "medical-sam-adapter"
"""The training code of arXiv 2304.12620, which builds its backbones a little differently."""


def _sam(
    name: str, file: str, size: int, sha256: str, *, width: int, depth: int, heads: int, global_blocks: tuple
):
    return BackboneCard(
        name=name,
        summary=f"Segment Anything, ViT-{name[-1].upper()} ({width} wide, {depth} blocks)",
        module="sam",
        architecture={
            "width": width,
            "heads": heads,
            "mlp_width": 4 * width,
            "window": 14,
            "global_blocks": global_blocks,
            "pretrained_grid": 64,
            "decoder_heads": 8,
            "decoder_mlp_width": 2048,
            "pads_before_norm": False,
            "two_way": "sam",
        },
        paper="Kirillov et al. 2023, arXiv 2304.02643",
        image_size=1024,
        patch=16,
        depth=depth,
        embedding_width=256,
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        fit="pad",
        resampling="pillow",
        upsampling="bilinear",
        negative_clicks=True,
        prompt_slots=None,
        variants={
            _MEDICAL_SAM_ADAPTER: {
                "architecture": {"pads_before_norm": True, "two_way": "efficientsam"},
                "fit": "squeeze",
                "first_class_mask": 0,
                "spelling": {".attn.rel_pos_": ".attn.rel_"},
            }
        },
        weights=WeightsFile(file, _SAM_ADDRESS + file, size, sha256, "Apache-2.0"),
    )


def _efficient_sam(name: str, file: str, size: int | None, sha256: str | None, *, width: int, heads: int):
    return BackboneCard(
        name=name,
        summary=f"EfficientSAM-{name.split('-')[1].capitalize()} (plain ViT, {width} wide, 12 blocks)",
        module="efficient_sam",
        architecture={
            "width": width,
            "heads": heads,
            "mlp_width": 4 * width,
            "pretrained_grid": 14,
            "relative_positions": False,
            "norm_eps": 1e-6,
        },
        paper="Xiong et al. 2023, arXiv 2312.00863",
        image_size=1024,
        patch=16,
        depth=12,
        embedding_width=256,
        mean=(0.485 * 255, 0.456 * 255, 0.406 * 255),
        std=(0.229 * 255, 0.224 * 255, 0.225 * 255),
        fit="squeeze",
        resampling="torch",
        upsampling="bicubic",
        negative_clicks=False,
        prompt_slots=6,
        variants={
            _MEDICAL_SAM_ADAPTER: {
                "architecture": {"relative_positions": True, "norm_eps": 1e-5},
                # It normalises 0…255 with numbers that are meant for 0…1.
                "mean": (0.485, 0.456, 0.406),
                "std": (0.229, 0.224, 0.225),
                "first_class_mask": 0,
                "spelling": {".mlp.fc1.": ".mlp.lin1.", ".mlp.fc2.": ".mlp.lin2."},
            }
        },
        weights=WeightsFile(file, _EFFICIENT_SAM_ADDRESS + file, size, sha256, "Apache-2.0"),
    )


_TINY = BackboneCard(
    name="sam-tiny",
    summary="SAM's architecture in small numbers: for tests, docs and the demo",
    module="sam",
    architecture={
        "width": 128,
        "heads": 4,
        "mlp_width": 512,
        "window": 8,
        "global_blocks": (1, 3),
        "pretrained_grid": 16,
        "decoder_heads": 4,
        "decoder_mlp_width": 256,
        "pads_before_norm": False,
        "two_way": "sam",
    },
    paper="Kirillov et al. 2023, arXiv 2304.02643 (architecture)",
    image_size=128,
    patch=8,
    depth=4,
    embedding_width=64,
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
    fit="pad",
    resampling="pillow",
    upsampling="bilinear",
    negative_clicks=True,
    prompt_slots=None,
    weights=WeightsFile(
        "sam-tiny.safetensors",
        None,
        2213056,
        "1e5f9e17c394227dbf193a0bee3f02ee3dfc764a2553979dbb346d5a86a957b2",
        "Apache-2.0",
    ),
    defaults={"epochs": 30, "learning_rate": 1e-3},
)

BACKBONES: Mapping[str, BackboneCard] = MappingProxyType(
    {
        card.name: card
        for card in (
            _sam(
                "sam-vit-b",
                "sam_vit_b_01ec64.pth",
                375042383,
                "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
                width=768,
                depth=12,
                heads=12,
                global_blocks=(2, 5, 8, 11),
            ),
            _sam(
                "sam-vit-l",
                "sam_vit_l_0b3195.pth",
                1249524607,
                "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
                width=1024,
                depth=24,
                heads=16,
                global_blocks=(5, 11, 17, 23),
            ),
            _sam(
                "sam-vit-h",
                "sam_vit_h_4b8939.pth",
                2564550879,
                "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
                width=1280,
                depth=32,
                heads=16,
                global_blocks=(7, 15, 23, 31),
            ),
            _efficient_sam(
                "efficientsam-ti",
                "efficient_sam_vitt.pt",
                40982470,
                "dff858b19600a46461cbb7de98f796b23a7a888d9f5e34c0b033f7d6eb9e4e6a",
                width=192,
                heads=3,
            ),
            _efficient_sam("efficientsam-s", "efficient_sam_vits.pt.zip", None, None, width=384, heads=6),
            _TINY,
        )
    }
)


def card_of(name: str, variant: str | None = None) -> BackboneCard:
    """Return the card of a backbone, as the training code `variant` builds it.

    Raises `SettingError` with the nearest name if there is no such backbone, or no such variant of it.
    """
    if name not in BACKBONES:
        raise SettingError(unknown_name("backbone", name, BACKBONES))
    card = BACKBONES[name]
    if variant is not None and variant not in card.variants:
        raise SettingError(f"--variant {variant}: {name} has {', '.join(card.variants) or 'no variants'}")
    return card.variant(variant)


def load_backbone(
    name: str,
    *,
    weights: str | Path = "published",
    variant: str | None = None,
    image_size: int | None = None,
    fit: Literal["pad", "squeeze"] | None = None,
    seed: int = 0,
) -> "Backbone":
    """Build a backbone and load its base weights.

    `weights`: `published` (downloaded once; sam-tiny's come with samfit), `random` (drawn from `seed`), or a
    file with the published names. `variant`: the published training code (`card.variants`) whose
    checkpoint the weights are from. `image_size`: side of the model frame, a multiple of the card's patch.

    Raises `SettingError` for a value that does not fit, `WeightsError` for a file that does not,
    `DownloadError` where the weights cannot be fetched.
    """
    backbone = build_backbone(name, variant=variant, image_size=image_size, fit=fit)
    import_module("samfit.backbones.weights").load_base(backbone, weights, seed)
    backbone.weights_from = (str(weights), seed)
    return backbone


def build_backbone(
    name: str,
    *,
    variant: str | None = None,
    image_size: int | None = None,
    fit: Literal["pad", "squeeze"] | None = None,
) -> "Backbone":
    """Build a backbone whose tensors hold nothing yet; for the arguments and errors see `load_backbone`."""
    card = card_of(name, variant)
    size = image_size or card.image_size
    if size < card.patch or size % card.patch:
        fitting = max(1, round(size / card.patch)) * card.patch
        raise SettingError(
            f"--image-size {size}: {name} needs a multiple of {card.patch}; the nearest is {fitting}"
        )
    backbone = import_module(f"samfit.backbones.{card.module}").build(card, size, fit or card.fit)
    backbone.variant = variant
    return backbone.eval().requires_grad_(False)
