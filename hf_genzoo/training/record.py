"""What a run writes down about itself, and the folder it leaves behind."""

import json
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from diffusers import DiffusionPipeline
from torch import nn

from hf_genzoo.atomic import replacing
from hf_genzoo.data import Data
from hf_genzoo.families import get_family
from hf_genzoo.training.args import TrainingArgs
from hf_genzoo.versions import installed_versions

RECORD = "training.json"
BEST = "best"  # folder of the best weights so far, where a run evaluates itself
_PACKAGES = ("hf_genzoo", "torch", "diffusers", "transformers", "accelerate", "datasets", "huggingface_hub", "numpy")


def claim(output_dir: Path, args: TrainingArgs) -> None:
    """Make the output folder, or clear it of an earlier run when asked to.

    Raises:
        ValueError: if it holds an earlier run that is neither resumed nor to be overwritten.
    """
    earlier = output_dir / RECORD
    if earlier.exists() and args.overwrite_output_dir:
        leftovers = [output_dir / name for name in ("samples", BEST, args.logging_dir)]
        for path in [*output_dir.glob("checkpoint-*"), *leftovers]:
            shutil.rmtree(path, ignore_errors=True)
        earlier.unlink()
    elif earlier.exists() and not args.resume_from_checkpoint:
        raise ValueError(
            f"{output_dir} holds an earlier run. Go on with it (--resume_from_checkpoint latest), replace it "
            f"(--overwrite_output_dir) or choose another --output_dir"
        )
    output_dir.mkdir(parents=True, exist_ok=True)


def describe(
    args: TrainingArgs, data: Data, nets: Mapping[str, nn.Module], accelerator: Accelerator
) -> dict[str, Any]:
    """Facts that tell this run from another: arguments, versions, data, code revision, sizes."""
    return {
        "family": args.family,
        "command": command_line(args),
        "args": plain(args),
        "seed": args.seed,
        "num_processes": accelerator.num_processes,
        "device": str(accelerator.device),
        "mixed_precision": accelerator.mixed_precision,
        "data": {
            "name": data.name,
            "split": args.dataset_split,
            "fingerprint": data.fingerprint,
            "num_samples": data.num_samples,
        },
        "parameters": {name: sum(p.numel() for p in net.parameters()) for name, net in nets.items()},
        "versions": {"python": platform.python_version(), **installed_versions(_PACKAGES)},
        "git_revision": _git_revision(),
    }


def write(output_dir: Path, facts: Mapping[str, Any]) -> None:
    """Write the record, replacing an earlier one at once."""
    with replacing(output_dir / RECORD) as aside:
        aside.write_text(json.dumps(facts, indent=1))


def finish(output_dir: Path, pipeline: DiffusionPipeline, args: TrainingArgs, facts: dict[str, Any]) -> None:
    """Leave the Hub-ready folder, and tell the user how to use it."""
    from hf_genzoo.hub import export

    grid = output_dir / "samples.png"
    facts = {**facts, "sample_grid": grid.name if grid.exists() else None}
    write(output_dir, facts)
    export(pipeline, output_dir, family=args.family, training=facts)
    if grid.exists():
        print(f"\nSamples: {grid}")
    print(f"Load and sample:\n{usage(output_dir, get_family(args.family).takes)}")


def push(output_dir: Path, args: TrainingArgs) -> None:
    """Publish the finished folder, if asked.

    Raises:
        HubError: It could not be published; the message holds the command that tries again, without training anew.
    """
    if args.push_to_hub and args.hub_model_id:
        from hf_genzoo.hub import HubError, publish

        private = bool(args.hub_private_repo)
        try:
            done = publish(output_dir, args.hub_model_id, private=private, token=args.hub_token)
        except (ValueError, OSError) as error:
            words = ["genzoo", "publish", str(output_dir), "--repo_id", args.hub_model_id]
            again = shlex.join([*words, "--private"] if private else words)
            raise HubError(f"{error}\nThe training is finished and kept; to publish it: {again}") from error
        print(f"Published: {done.url} at {done.revision}")


def usage(folder: Path, takes: str | None = None) -> str:
    """Three lines of Python that load an exported folder and sample from it, given what its call takes."""
    needs_code = any(folder.glob("pipeline_*.py"))
    load = f"import hf_genzoo\npipe = hf_genzoo.load({str(folder)!r})"
    if not needs_code:
        load = f"from diffusers import DiffusionPipeline\npipe = DiffusionPipeline.from_pretrained({str(folder)!r})"
    call = "pipe(PIL.Image.open('small.png'))" if takes == "image" else "pipe(batch_size=4)"
    needed = "import PIL.Image\n" if takes == "image" else ""
    return f"{needed}{load}\n{call}.images[0].save('sample.png')"


def command_line(args: TrainingArgs) -> str:
    """The shortest `genzoo train` command that gives these arguments."""
    words = ["genzoo", "train", args.family]
    for field in fields(args):
        value = getattr(args, field.name)
        if value == field.default or field.name in ("hub_token", "resume_from_checkpoint", "overwrite_output_dir"):
            continue
        words.append(f"--{field.name}")
        words.extend(str(v) for v in (value if isinstance(value, (list, tuple)) else [value]))
    return shlex.join(words)


def plain(args: TrainingArgs) -> dict[str, Any]:
    """Arguments as JSON gives them back, without secrets."""
    return json.loads(json.dumps(args.public_dict()))


def flat(args: TrainingArgs) -> dict[str, Any]:
    """Arguments as trackers take them: numbers and words only."""
    return {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in args.public_dict().items()}


def _git_revision() -> str | None:
    """Revision of the checkout that holds the training script, or None outside one."""
    here = Path(sys.modules[__name__].__file__ or ".").parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
