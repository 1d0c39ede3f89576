"""A step on a GPU without the processor: its kernels recorded once, and started all together from then on."""

from collections.abc import Callable

import torch
from objective import Question
from torch import Tensor


class Recorded:
    """A function of a question on a GPU, recorded at the second call and replayed from then on.

    A processor takes several times as long to start the kernels of a step one by one as they take to run.
    All that the function reads beside the question must stay where it is in memory, and what it does may not
    depend on the values of tensors. The first call makes what is made once, such as the states of optimizers.
    """

    def __init__(self, function: Callable[[Question], dict[str, Tensor]]):
        self._function = function
        self._question: Question | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._answer: dict[str, Tensor] = {}

    def __call__(self, question: Question) -> dict[str, Tensor]:
        """Return what the function returns, scalars by name."""
        if self._question is None:
            self._question = question.copy()
            return self._function(question)
        self._question.become(question)
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            # Other threads, such as the one that pins memory, go on meanwhile.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._answer = self._function(self._question)
        self._graph.replay()
        return {name: value.clone() for name, value in self._answer.items()}
