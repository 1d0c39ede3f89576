"""Adapt a Segment-Anything backbone to your own images, on the machine that you have."""

__version__ = "0.1.0"
