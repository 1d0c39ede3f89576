"""Options of the methods: the settings that only some of them have. Each method's row names its own."""

from typing import Literal

from pydantic import field_validator

from samfit.declare import Settings, setting, split_words


class MethodOptions(Settings):
    """A method without options."""


class BlockOptions(MethodOptions):
    """Options of every method that works inside the encoder's blocks."""

    late_blocks: int | None = setting(
        None,
        "adapt only the last N blocks of the encoder instead of all; those before run without gradient",
        "Method",
        ge=1,
    )


class LoraOptions(BlockOptions):
    """Options of low-rank adaptation, in peft's words."""

    rank: int = setting(4, "rank of each update", "Method", ge=1, le=512)
    alpha: float = setting(4.0, "scale of each update, divided by the rank", "Method", gt=0, le=4096)
    targets: tuple[Literal["qkv", "q", "k", "v", "proj", "mlp"], ...] = setting(
        ("qkv", "proj"), "linear layers that get an update", "Method", min_length=1
    )
    dora: bool = setting(False, "DoRA: learn the length of each weight beside its update", "Method")
    rslora: bool = setting(False, "rsLoRA: divide alpha by the root of the rank instead", "Method")

    @field_validator("targets", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return split_words(value)

    @field_validator("targets")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse a layer that would get two updates."""
        parts = [word for word in value if word in ("q", "k", "v")]
        if "qkv" in value and parts:
            raise ValueError(f"qkv is q, k and v in one: leave out qkv, or leave out {', '.join(parts)}")
        for word in value:
            if value.count(word) > 1:
                raise ValueError(f"'{word}' is named twice")
        return value
