"""Exponential moving averages of weights, lent out and taken back without a trace.

diffusers' `EMAModel` does the averaging. Buffers (BatchNorm statistics, spectral norm vectors) are not averaged: they
stay those of the live network, which fit the averaged weights far better than initial or stale ones.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import nn
from torch.distributed.tensor import DTensor


class Averages:
    """The EMA of each named network.

    The decay after n updates is `min(max_decay, 1 - (1 + n / inv_gamma) ** -power)`: it starts at almost nothing, so a
    short run does not average its own initialisation in. `power=1` is the power-function EMA of Karras et al. 2024
    (eq. 2), whose length is a fixed share of the run.
    """

    def __init__(
        self, nets: Mapping[str, nn.Module], *, inv_gamma: float = 1.0, power: float = 0.75, max_decay: float = 0.9999
    ) -> None:
        self._parameters = {name: list(net.parameters()) for name, net in nets.items()}
        self._emas = {
            name: EMAModel(
                parameters,
                decay=max_decay,
                use_ema_warmup=True,
                inv_gamma=inv_gamma,
                power=power,
                foreach=not any(isinstance(p, DTensor) for p in parameters),  # torch cannot batch over shards
            )
            for name, parameters in self._parameters.items()
        }

    def update(self, names: set[str]) -> None:
        """Average the current weights of these networks in; names without an EMA are ignored."""
        for name in names & self._emas.keys():
            self._emas[name].step(self._parameters[name])

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Put the averages into the networks; on leaving, the training weights return bit for bit."""
        stored = {name: [p.detach().clone() for p in params] for name, params in self._parameters.items()}
        for name, ema in self._emas.items():
            ema.copy_to(self._parameters[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, params in self._parameters.items():
                    for parameter, value in zip(params, stored[name], strict=True):
                        parameter.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """Averages and counters by network."""
        return {name: ema.state_dict() for name, ema in self._emas.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        for name, ema in self._emas.items():
            devices = [p.device for p in self._parameters[name]]
            ema.load_state_dict(state[name])
            ema.shadow_params = [p.to(device) for p, device in zip(ema.shadow_params, devices, strict=True)]
