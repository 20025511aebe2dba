"""The flags every training script shares, and the one parser they go through.

A flag that diffusers' training examples have keeps its name, type and meaning here. Each script subclasses
`TrainingArgs`, adds its own flags and overrides defaults with its paper's.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import yaml
from transformers import HfArgumentParser

from hf_genzoo.data import DataArgs
from hf_genzoo.flags import DiscreetParser, HelpFormatter

LRScheduler = Literal["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"]


class _Parser(DiscreetParser, HfArgumentParser):
    pass


def flag(default: Any, help: str, **extra: Any) -> Any:
    """A dataclass field with a help text (and further `argparse` settings such as `choices` or `aliases`)."""
    return field(default=default, metadata={"help": help, **extra})


@dataclass
class TrainingArgs(DataArgs):
    """Settings of one training run; the data settings come from `DataArgs`.

    Raises:
        ValueError: on construction, when a value is out of range; the message names the flag and the fix.
    """

    family: ClassVar[str] = ""

    output_dir: str = flag("outputs/run", "Folder for the trained pipeline, its card, checkpoints, samples and logs.")
    overwrite_output_dir: bool = flag(
        False, "Start anew in a folder that holds an earlier run: its files are deleted."
    )
    logging_dir: str = flag("logs", "Folder inside output_dir for metrics.jsonl and the trackers' files.")
    seed: int = flag(0, "Seed of weights, data order and noise: the same seed gives the same run.")

    train_batch_size: int = flag(64, "Samples of one micro-batch on each process.")
    num_train_epochs: int = flag(
        10, "Passes over the data; ignored when max_train_steps is set.", aliases="--num_epochs"
    )
    max_train_steps: int | None = flag(None, "Number of training steps; overrides num_train_epochs.")
    gradient_accumulation_steps: int = flag(1, "Micro-batches of one optimiser step.")
    gradient_checkpointing: bool = flag(False, "Recompute activations in the backward pass: less memory, slower.")
    max_grad_norm: float = flag(1.0, "Largest gradient norm of one optimiser step; 0 leaves gradients as they are.")
    max_nonfinite_steps: int = flag(
        0, "Optimiser steps with a NaN or infinite loss that are skipped and counted before the run stops."
    )

    learning_rate: float = flag(1e-4, "Peak learning rate.")
    scale_lr: bool = flag(False, "Multiply the learning rate by accumulation, batch size and number of processes.")
    lr_scheduler: LRScheduler = flag("constant", "Shape of the learning rate over the run.")
    lr_warmup_steps: int = flag(500, "Optimiser steps of linear warm-up, whatever the number of processes.")
    lr_num_cycles: int = flag(1, "Restarts of cosine_with_restarts.")
    lr_power: float = flag(1.0, "Exponent of polynomial.")
    adam_beta1: float = flag(0.9, "Adam's decay of the mean gradient.")
    adam_beta2: float = flag(0.999, "Adam's decay of the mean squared gradient.")
    adam_weight_decay: float = flag(0.0, "Decoupled weight decay.")
    adam_epsilon: float = flag(1e-8, "Adam's denominator offset.")

    mixed_precision: Literal["no", "fp16", "bf16"] | None = flag(None, "Arithmetic; None takes Accelerate's setting.")
    allow_tf32: bool = flag(False, "Let Ampere and newer GPUs multiply in TF32.")
    channels_last: bool = flag(False, "Store convolution weights channels-last: faster on most CPUs and GPUs.")
    torch_compile: bool = flag(False, "Compile the networks in place; state dicts keep their names.")
    use_cpu: bool = flag(False, "Train on the CPU even where a GPU is present.")

    use_ema: bool = flag(True, "Keep an exponential moving average of the weights and publish it.")
    ema_inv_gamma: float = flag(1.0, "EMA decay after n steps is 1 - (1 + n / inv_gamma) ** -power.")
    ema_power: float = flag(0.75, "See ema_inv_gamma; 1 averages over a fixed share of the run.")
    ema_max_decay: float = flag(0.9999, "Upper bound of the EMA decay.")

    checkpointing_steps: int = flag(500, "Steps between checkpoints.")
    checkpoints_total_limit: int | None = flag(None, "Checkpoints kept; older ones go once a new one is complete.")
    resume_from_checkpoint: str | None = flag(None, "A checkpoint folder, or 'latest' in output_dir if there is one.")

    logging_steps: int = flag(10, "Steps between log entries; the loss is read from the device only then.")
    report_to: str | None = flag(
        None, "Trackers beside metrics.jsonl: tensorboard, wandb, comet_ml, all.", aliases="--logger"
    )
    tracker_project_name: str = flag("hf_genzoo", "Project name in the trackers.")
    validation_steps: int | None = flag(None, "Steps between sample grids; None draws one at the end only.")
    num_validation_images: int = flag(64, "Pictures in a sample grid.")

    eval_steps: int | None = flag(
        None,
        "Steps between evaluations on a held-out split. The best weights are published, and measured at the end with "
        "other extractors than the one that chose them.",
    )
    eval_split: str = flag("validation", "Split to choose the best weights on.")
    max_eval_samples: int = flag(500, "Samples of one evaluation, at most as many as the split has.")
    eval_extractor: str = flag("random", "Feature extractor that chooses (see genzoo evaluate --help).")
    metric_for_best_model: Literal["frechet_ratio", "kernel_distance", "sliced_wasserstein", "coverage"] = flag(
        "frechet_ratio", "Metric that chooses."
    )

    push_to_hub: bool = flag(False, "Publish the finished folder on the Hub.")
    hub_model_id: str | None = flag(None, "Repository to push to, as user/name.")
    hub_token: str | None = flag(None, "Token to push with; better: run `hf auth login` once.")
    hub_private_repo: bool | None = flag(None, "Make the repository private.")

    def __post_init__(self) -> None:
        for name in ("train_batch_size", "gradient_accumulation_steps", "checkpointing_steps", "logging_steps"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("max_train_steps", "checkpoints_total_limit", "validation_steps", "eval_steps"):
            value = getattr(self, name)
            _require(value is None or value >= 1, name, value, "at least 1, or leave it out")
        for name in ("max_grad_norm", "lr_warmup_steps", "max_nonfinite_steps", "num_train_epochs", "seed"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        _require(self.max_eval_samples >= 40, "max_eval_samples", self.max_eval_samples, "at least 40")
        _require(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        _require(0 <= self.ema_max_decay < 1, "ema_max_decay", self.ema_max_decay, "in [0, 1)")
        if self.push_to_hub and not self.hub_model_id:
            raise ValueError("--push_to_hub needs --hub_model_id user/name")
        if self.report_to and self.hub_token:
            raise ValueError(
                "--report_to with --hub_token would hand the token to the tracker; run `hf auth login` instead"
            )

    def public_dict(self) -> dict[str, Any]:
        """The arguments as plain values, without secrets: what checkpoints, cards and trackers may hold."""
        return {name: value for name, value in asdict(self).items() if name != "hub_token"}


def _require(ok: bool, name: str, value: Any, wanted: str) -> None:
    if not ok:
        raise ValueError(f"--{name} is {value!r}: it must be {wanted}")


# What may differ between a checkpoint and the run that resumes it: where things go and how often, never what is
# learnt.
FREE_ON_RESUME = frozenset(
    {
        *("output_dir", "overwrite_output_dir", "logging_dir", "logging_steps", "report_to", "tracker_project_name"),
        *("checkpointing_steps", "checkpoints_total_limit", "resume_from_checkpoint", "max_nonfinite_steps"),
        *("validation_steps", "num_validation_images", "push_to_hub", "hub_model_id", "hub_token", "hub_private_repo"),
        *("use_cpu", "data_cache_dir", "num_train_epochs"),
    }
)

A = TypeVar("A", bound=TrainingArgs)


def parse_args(
    cls: type[A],
    presets: Mapping[str, Mapping[str, Any]],
    argv: Sequence[str] | None = None,
    description: str | None = None,
    prog: str | None = None,
) -> A:
    """Parse a command line into `cls`. Later wins: defaults, `--preset`, `--config`, flags.

    Args:
        cls: The script's arguments.
        presets: Settings by preset name, such as `{"tiny": TINY, "small": SMALL}`.
        argv: Words of the command line; `sys.argv[1:]` by default.
        description: First paragraph of `--help`; the script's docstring.
        prog: What the user typed to get here, for usage lines.

    Raises:
        SystemExit: on `--help`, an unknown flag or a bad value (argparse's way, exit status 2).
    """
    command = f"genzoo train {cls.family}"
    parser = _Parser(
        cls,  # pyright: ignore[reportArgumentType]
        prog=prog or Path(sys.argv[0]).name,
        description=description,
        allow_abbrev=False,
        formatter_class=HelpFormatter,
        epilog=(
            f"examples:\n  {command} --preset small --dataset_name digits\n"
            f"  {command} --train_data_dir my_pictures/ --resolution 64 --output_dir outputs/mine\n"
            f"  accelerate launch --module hf_genzoo.training_scripts.train_{cls.family} --config settings.yaml"
        ),
    )
    parser.add_argument(
        "--preset", choices=sorted(presets), help="Settings for a laptop CPU: tiny runs in seconds, small in minutes."
    )
    parser.add_argument("--config", metavar="FILE", help="YAML or JSON file whose keys are the flags.")
    words = list(sys.argv[1:] if argv is None else argv)
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--preset")
    early.add_argument("--config")
    chosen, _ = early.parse_known_args(words)
    if chosen.preset in presets:
        parser.set_defaults(**presets[chosen.preset])
    if chosen.config:
        try:
            parser.set_defaults(**read_config(chosen.config, cls))
        except ValueError as error:
            parser.error(str(error))
    namespace = vars(parser.parse_args(words))
    namespace.pop("preset")
    namespace.pop("config")
    try:
        return cls(**namespace)
    except ValueError as error:
        parser.error(str(error))


def read_config(path: str | Path, cls: type[TrainingArgs]) -> dict[str, Any]:
    """Read a YAML or JSON file of flags.

    Raises:
        ValueError: if the file is missing, is no mapping, or has a key that is no flag of `cls`.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"--config {path}: no such file")
    try:
        values = json.loads(path.read_text()) if path.suffix == ".json" else yaml.safe_load(path.read_text())
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"--config {path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"--config {path} must hold 'flag: value' pairs, not a {type(values).__name__}")
    known = {f.name for f in fields(cls)}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"--config {path} has unknown keys {', '.join(unknown)}; see --help for the flags")
    return values
