"""How often a pipeline evaluates its networks: counted while it runs, not derived from its settings."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

import torch
from torch import nn

ENTRY_POINTS = ("forward", "encode", "decode")
"""Methods through which pipelines run a network. A call inside another one of the same network is not counted."""


class Evaluations:
    """Rows that went through each network: a batch of 8 with guidance is 16 rows of the denoiser."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self._inside: set[str] = set()

    def watched(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """The method, counting."""

        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            if name in self._inside:
                return method(*args, **kwargs)
            self._inside.add(name)
            try:
                result = method(*args, **kwargs)
            finally:
                self._inside.discard(name)
            self.rows[name] = self.rows.get(name, 0) + _batch_size(args, kwargs)
            return result

        return call


def _batch_size(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Length of the first tensor that has a batch axis."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor) and value.ndim > 0:
            return len(value)
    return 1


@contextmanager
def count_evaluations(networks: Mapping[str, Any]) -> Iterator[Evaluations]:
    """Count the evaluations of a pipeline's networks while the context is open.

    Args:
        networks: A pipeline's `components`; what is no network is passed over.
    """
    counted = Evaluations()
    with ExitStack() as undo:
        for name, net in networks.items():
            if not isinstance(net, nn.Module):
                continue
            for method in ENTRY_POINTS:
                if callable(getattr(type(net), method, None)):
                    # On the instance, where it goes before the class's own method and is deleted afterwards.
                    object.__setattr__(net, method, counted.watched(name, getattr(net, method)))
                    undo.callback(object.__delattr__, net, method)
        yield counted
