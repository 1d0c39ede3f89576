"""The contract of what a method adds to a backbone."""

from torch import Tensor, nn

from samfit.backbones.base import EncoderAdapter


class Adapter(nn.Module, EncoderAdapter):
    """What a method adds: inside the encoder (`EncoderAdapter`) and to the embedding. Here nothing."""

    def adapt_embedding(self, embedding: Tensor, extra: Tensor | None, weight: Tensor | None) -> Tensor:
        """Return the adapted embedding (B, E, g, g).

        `extra`: (B, …) what the method's `read` made of the image. `weight`: (B,) share of each image in the
        step, None outside training; an image of share 0 must leave no trace in batch statistics.
        """
        return embedding

    def enable(self, on: bool) -> None:
        """Switch on or off what was put into the backbone's own modules."""

    def merge(self) -> None:
        """Fold what was put into the backbone's own modules into their weights, and take it out."""
