"""The promises every family keeps, as checks that raise AssertionError with the broken promise.

`test_contract.py` holds the families to them, and shows on families broken on purpose that each check can fail.
"""

import ast
import contextlib
import inspect
import io
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from transformers import HfArgumentParser

from hf_genzoo.families import FAMILIES, Family
from hf_genzoo.hub.probe import needs_picture, pictures
from hf_genzoo.training.args import TrainingArgs, parse_args
from hf_genzoo.training.run import Run

ROOT = Path(__file__).resolve().parent.parent

# Flags of diffusers' training examples, with their types.
DIFFUSERS_FLAGS = {
    "output_dir": str,
    "logging_dir": str,
    "seed": int,
    "dataset_name": str,
    "dataset_config_name": str,
    "train_data_dir": str,
    "image_column": str,
    "caption_column": str,
    "max_train_samples": int,
    "resolution": int,
    "center_crop": bool,
    "random_flip": bool,
    "image_interpolation_mode": str,
    "train_batch_size": int,
    "num_train_epochs": int,
    "max_train_steps": int,
    "gradient_accumulation_steps": int,
    "gradient_checkpointing": bool,
    "max_grad_norm": float,
    "learning_rate": float,
    "scale_lr": bool,
    "lr_scheduler": str,
    "lr_warmup_steps": int,
    "lr_num_cycles": int,
    "lr_power": float,
    "adam_beta1": float,
    "adam_beta2": float,
    "adam_weight_decay": float,
    "adam_epsilon": float,
    "mixed_precision": str,
    "allow_tf32": bool,
    "checkpointing_steps": int,
    "checkpoints_total_limit": int,
    "resume_from_checkpoint": str,
    "use_ema": bool,
    "ema_inv_gamma": float,
    "ema_power": float,
    "ema_max_decay": float,
    "push_to_hub": bool,
    "hub_model_id": str,
    "hub_token": str,
    "hub_private_repo": bool,
    "report_to": str,
    "tracker_project_name": str,
    "validation_steps": int,
    "num_validation_images": int,
}


# Files and imports --------------------------------------------------------------------------------------------------


def check_files(family: Family, root: Path = ROOT) -> None:
    """The family's named files are there."""
    wanted = [f"training_scripts/train_{family.name}.py", f"model_cards/{family.name}.md"]
    wanted += [f"pipelines/{family.pipeline_module.split('.')[-1]}.py", f"tests/test_{family.name}.py"]
    missing = [name for name in wanted if not (root / name).is_file()]
    assert not missing, f"{family.name} lacks {', '.join(missing)}"


def check_no_orphans(root: Path = ROOT) -> None:
    """Every script, pipeline and card belongs to a family of the table."""
    found = {p.stem for p in (root / "pipelines").glob("[!_]*.py")}
    found |= {p.stem for p in (root / "model_cards").glob("[!_]*.md")}
    scripts = {p.stem.removeprefix("train_") for p in (root / "training_scripts").glob("train_*.py")}
    found |= scripts - {"classifier"}  # it measures; it is no family
    assert found <= FAMILIES.keys(), f"not in the table of families: {', '.join(sorted(found - FAMILIES.keys()))}"


def check_dependencies(root: Path = ROOT) -> None:
    """Only scripts and the command line import the training core; networks and data import no pipeline or hub."""
    forbidden = {
        "models": ("training", "training_scripts", "pipelines", "hub", "data"),
        "data": ("training", "training_scripts", "pipelines", "hub", "models"),
        "hub": ("training_scripts",),
        "evaluation": ("training.", "training_scripts"),
        "training": ("training_scripts", "models", "pipelines"),
    }
    for package, names in forbidden.items():
        for path in (root / "hf_genzoo" / package).rglob("*.py"):
            for module in imported_modules(path):
                broken = [name for name in names if module.startswith(f"hf_genzoo.{name}")]
                assert not broken, f"{path.name} of {package} imports {module}"


def imported_modules(path: Path) -> list[str]:
    """Absolute names of the modules that a file imports anywhere."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
    return found


# Flags --------------------------------------------------------------------------------------------------------------


def check_flags(script: ModuleType) -> None:
    """Every flag has a help text, diffusers' flags have diffusers' types, presets and unknown flags are handled."""
    hints = typing.get_type_hints(script.Args)
    for f in fields(script.Args):
        assert len(f.metadata.get("help", "")) > 10, f"--{f.name} has no help"
        if f.name in DIFFUSERS_FLAGS:
            allowed = plain_types(hints[f.name])
            assert DIFFUSERS_FLAGS[f.name] in allowed, f"--{f.name} is {allowed}, not as in diffusers' examples"
    missing = DIFFUSERS_FLAGS.keys() - {f.name for f in fields(script.Args)}
    assert not missing, f"flags of diffusers' examples are missing: {sorted(missing)}"
    assert {"tiny", "small"} <= script.PRESETS.keys()
    for preset in script.PRESETS.values():
        script.Args(**preset)
    HfArgumentParser(script.Args)
    with contextlib.redirect_stderr(io.StringIO()), pytest.raises(SystemExit, match="2"):
        parse_args(script.Args, {"tiny": script.TINY}, ["--learning_rat", "1"])
    with contextlib.redirect_stdout(io.StringIO()), pytest.raises(SystemExit, match="0"):
        parse_args(script.Args, {"tiny": script.TINY}, ["--help"])
    assert script.__doc__ is not None
    assert "http" in script.__doc__, "the script's docstring names no paper"


def plain_types(hint: Any) -> set[type]:
    """The types that values of a hint have: {int} for `int | None`, {str} for `Literal["a"]`."""
    if typing.get_origin(hint) is typing.Literal:
        return {type(value) for value in typing.get_args(hint)}
    return set().union(*(plain_types(arg) for arg in typing.get_args(hint))) if typing.get_args(hint) else {hint}


# Training -----------------------------------------------------------------------------------------------------------


@dataclass
class Observed:
    """What a training did: who moved whom, and which parameters never had a gradient."""

    optimizers: set[str] = field(default_factory=set)
    trespasses: set[str] = field(default_factory=set)
    idle: set[str] = field(default_factory=set)
    unmoved: set[str] = field(default_factory=set)


@contextlib.contextmanager
def observed_training() -> Iterator[Observed]:
    """Watch every update of the runs inside."""
    seen = Observed()
    update, step_optimizer = Run.update, Run._step_optimizer
    ever_moved: set[str] = set()
    ever_gradient: set[str] = set()
    owned_names: set[str] = set()

    def names(run: Run) -> dict[str, torch.nn.Parameter]:
        return {f"{net}.{name}": p for net, module in run._bare.items() for name, p in module.named_parameters()}

    def watched_update(run: Run, name: str, batches: Any = None) -> Any:
        parameters = names(run)
        owned = {id(p) for p in run._owned[name].parameters}
        before = {key: p.detach().clone() for key, p in parameters.items()}
        yield from update(run, name, batches)
        seen.optimizers.add(name)
        for key, p in parameters.items():
            moved = not torch.equal(before[key], p.detach())
            if id(p) in owned:
                owned_names.add(key)
                ever_moved.update({key} if moved else set())
            elif moved:
                seen.trespasses.add(f"{key} moved while {name!r} learnt")

    def watched_step(run: Run, name: str) -> None:
        owned = {id(p) for p in run._owned[name].parameters}
        for key, p in names(run).items():
            if id(p) in owned and p.grad is not None and p.grad.abs().sum() > 0:
                ever_gradient.add(key)
        step_optimizer(run, name)

    Run.update, Run._step_optimizer = watched_update, watched_step  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        Run.update, Run._step_optimizer = update, step_optimizer  # type: ignore[method-assign]
        seen.idle, seen.unmoved = owned_names - ever_gradient, owned_names - ever_moved


def check_ownership(seen: Observed) -> None:
    """Each optimiser moved its own parameters and no others; every owned parameter got a gradient."""
    assert not seen.trespasses, f"moved by the wrong optimiser: {sorted(seen.trespasses)}"
    assert not seen.idle, f"owned, but without a gradient: {sorted(seen.idle)}"
    assert not seen.unmoved, f"owned, but never moved: {sorted(seen.unmoved)}"
    assert seen.optimizers


# Pipelines ----------------------------------------------------------------------------------------------------------


def draw(pipeline: DiffusionPipeline, seed: int | list[int] = 0, **changes: Any) -> Any:
    """A small sample: `seed` is one for the batch or a list with one for each sample."""
    seeds = seed if isinstance(seed, list) else None
    generator: Any = (
        [torch.Generator().manual_seed(s) for s in seeds] if seeds else torch.Generator().manual_seed(seed)
    )
    count = len(seeds) if seeds else 2
    offers = {"batch_size": count, "generator": generator, "num_inference_steps": 3}
    offers |= {"image": pictures(1) * count} if needs_picture(pipeline) else {}
    takes = inspect.signature(type(pipeline).__call__).parameters
    settings = {name: value for name, value in offers.items() if name in takes}
    return pipeline(**{**settings, "output_type": "np", **changes})


def check_sampling(pipeline: DiffusionPipeline) -> None:
    """`generator` decides the sample, a batch equals its singles, output types and containers agree."""
    pipeline.set_progress_bar_config(disable=True)
    first = draw(pipeline).images
    assert np.array_equal(first, draw(pipeline).images), "the same generator gives other samples"
    assert not np.array_equal(first, draw(pipeline, seed=1).images), "the generator has no effect"
    torch.manual_seed(123)
    assert np.array_equal(first, draw(pipeline).images), "samples depend on the global generator"

    batch = draw(pipeline, seed=[5, 6]).images
    singles = [draw(pipeline, seed=[s]).images[0] for s in (5, 6)]
    # Kernels sum in another order for another batch size; 1e-4 is a fortieth of a grey level of 8 bits.
    np.testing.assert_allclose(batch, np.stack(singles), atol=1e-4, err_msg="a batch differs from its singles")

    assert np.array_equal(first, draw(pipeline, return_dict=False)[0]), "tuple and dict outputs differ"
    tensor = draw(pipeline, output_type="pt").images
    assert isinstance(tensor, torch.Tensor)
    pictures = draw(pipeline, output_type="pil").images
    if first.ndim == 4:
        np.testing.assert_allclose(first, tensor.permute(0, 2, 3, 1).numpy(), atol=1e-6)
        for array, picture in zip(first, pictures, strict=True):
            pixels = np.asarray(picture, dtype=np.float32).reshape(array.shape) / 255
            assert np.abs(pixels - array).max() <= 0.51 / 255, "pil and np outputs differ"
    else:
        np.testing.assert_allclose(first, tensor.numpy())


def check_bad_arguments(pipeline: DiffusionPipeline) -> None:
    """Arguments that cannot be are refused by name and value."""
    takes = inspect.signature(type(pipeline).__call__).parameters
    number = "batch_size" if "batch_size" in takes else "num_samples"
    cases: list[tuple[dict[str, Any], str]] = [
        ({number: 0}, rf"{number}.*0"),
        ({"output_type": "jpeg"}, r"jpeg.*pil"),
        ({"generator": [torch.Generator()] * 3}, r"3 generators"),
    ]
    for changes, expected in cases:
        try:
            with pytest.raises(ValueError, match=expected):
                draw(pipeline, **changes)
        except pytest.fail.Exception as error:
            raise AssertionError(f"{changes} is not refused") from error


def args_of(script: ModuleType, **changes: Any) -> TrainingArgs:
    """The TINY preset with changes."""
    return script.Args(**{**script.TINY, **changes})
