"""The smallest thing `Run` can train: two linear maps and numbered samples."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from hf_genzoo.data import Batches, Data
from hf_genzoo.models.generator import MLPGenerator
from hf_genzoo.pipelines.gan import WGANPipeline
from hf_genzoo.training.args import TrainingArgs
from hf_genzoo.training.run import Run


class ToyArgs(TrainingArgs):
    family: ClassVar[str] = "wgan_gp"


class ToyBatches(Batches):
    """Sample n is the vector (n, 1), so a test sees which samples came."""

    def __init__(self, size: int, rank: int, world: int) -> None:
        self.size, self.rank, self.world, self.position = size, rank, world, 0

    def __next__(self) -> dict[str, Any]:
        start = self.position + self.rank * self.size
        self.position += self.size * self.world
        index = torch.arange(start, start + self.size, dtype=torch.float32)
        return {"points": torch.stack([index % 10 / 10, torch.ones_like(index)], dim=1)}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


class ToyData(Data):
    name, fingerprint, key, num_samples, class_names = "toy", "toy-1", "points", 100, None

    def batches(self, *, batch_size, seed, rank=0, world_size=1, device="cpu"):
        return ToyBatches(batch_size, rank, world_size)


def toy_export(nets: dict[str, nn.Module]) -> WGANPipeline:
    return WGANPipeline(net_g=MLPGenerator(latent_dim=2, hidden_dim=4, num_hidden_layers=1))


def toy_run(
    folder: Path,
    nets: dict[str, nn.Module] | None = None,
    learning_rate: float = 0.1,
    data: Data | None = None,
    **args,
) -> Run:
    """A run with networks "a" and "b", each with an SGD optimiser of the same name."""
    torch.manual_seed(0)
    nets = nets or {"a": nn.Linear(2, 1), "b": nn.Linear(2, 1)}
    settings = {"train_batch_size": 2, "max_train_steps": 4, "lr_warmup_steps": 0, "max_grad_norm": 0.0, **args}
    return Run(
        ToyArgs(output_dir=str(folder), learning_rate=learning_rate, **settings),
        nets=nets,
        optimizers={name: torch.optim.SGD(net.parameters(), lr=learning_rate) for name, net in nets.items()},
        ema=["a"],
        data=data or ToyData(),
        export=toy_export,
    )


def one_update(run: Run, name: str = "a") -> None:
    """One optimiser step on the mean output of a network."""
    for batch in run.update(name):
        run.backward(run.nets[name](batch["points"]).mean())
