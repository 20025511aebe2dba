"""Which optimiser owns which parameters, and keeping everyone else's still while one of them learns."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Owned:
    """What one optimiser owns: its parameters, and the names of the networks they belong to."""

    parameters: list[nn.Parameter]
    nets: set[str]


def match_owners(nets: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, Owned]:
    """Match optimisers with networks by the parameters they hold.

    Raises:
        ValueError: if two optimisers hold the same parameter, or one holds a parameter of no network.
    """
    by_net = {name: {id(p) for p in net.parameters()} for name, net in nets.items()}
    everything = set().union(*by_net.values())
    holder: dict[int, str] = {}
    owners = {}
    for name, optimizer in optimizers.items():
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        ids = {id(p) for p in parameters}
        for parameter in ids:
            if holder.setdefault(parameter, name) != name:
                raise ValueError(f"a parameter belongs to optimisers {holder[parameter]!r} and {name!r}")
        if ids - everything:
            raise ValueError(f"optimiser {name!r} owns parameters of a network that Run was not given")
        owners[name] = Owned(parameters, {net for net, members in by_net.items() if members & ids})
    return owners


@contextmanager
def only_trainable(nets: Mapping[str, nn.Module], owned: Owned) -> Iterator[None]:
    """Freeze every parameter of `nets` that is not owned; afterwards those that learn elsewhere may learn again."""
    mine = {id(p) for p in owned.parameters}
    others = [p for net in nets.values() for p in net.parameters() if p.requires_grad and id(p) not in mine]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)
