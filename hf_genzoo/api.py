"""What the `genzoo` command does, as Python calls: list, train, sample, info."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from hf_genzoo.families import FAMILIES, Family, get_family


@dataclass(frozen=True)
class FamilyRow:
    """One line of `genzoo list`: the family and the number of parameters of each preset's networks."""

    family: Family
    parameters: dict[str, dict[str, int]]


def script_of(family: str) -> ModuleType:
    """The family's training script: `Args`, `TINY` and `SMALL` among its `PRESETS`, `build(args)`, `main(args)`."""
    return import_module(get_family(family).script)


def list_families() -> list[FamilyRow]:
    """Every family with the sizes of its presets, counted on networks that are built without memory."""
    import torch

    rows = []
    for family in FAMILIES.values():
        script = script_of(family.name)
        sizes = {}
        for preset in ("TINY", "SMALL"):
            with torch.device("meta"):
                nets = script.build(script.Args(**getattr(script, preset)))
            sizes[preset.lower()] = {name: sum(p.numel() for p in net.parameters()) for name, net in nets.items()}
        rows.append(FamilyRow(family, sizes))
    return rows


def train(family: str, preset: str | None = None, **settings: Any) -> Path:
    """Train a family; the same as `genzoo train FAMILY --preset PRESET --name value ...`.

    Args:
        family: Name in the table of families.
        preset: "tiny" (seconds), "small" (minutes on a laptop CPU) or another one of the family's; by default the
            paper's settings.
        settings: Flags by name.

    Returns:
        The Hub-ready folder.

    Raises:
        ValueError: on an unknown family, preset or setting, or a bad value.
    """
    script = script_of(family)
    presets: dict[str | None, dict[str, Any]] = {None: {}, **script.PRESETS}
    if preset not in presets:
        raise ValueError(f"unknown preset {preset!r} of {family}; choose one of {', '.join(script.PRESETS)}")
    try:
        args = script.Args(**{**presets[preset], **settings})
    except TypeError as error:
        raise ValueError(f"{family} has no such setting: {error}; see `genzoo train {family} --help`") from error
    return script.main(args)


def sample(
    repo_or_folder: str | Path,
    output: str | Path = "samples.png",
    *,
    num_images: int = 16,
    seed: int = 0,
    num_inference_steps: int | None = None,
    class_labels: Sequence[int | str] | None = None,
    guidance_scale: float | None = None,
    image: Sequence[str | Path] | None = None,
    prompts: Sequence[str] | None = None,
    batch_size: int = 64,
) -> Path:
    """Draw pictures from a trained pipeline.

    Args:
        repo_or_folder: Hub repository or exported folder.
        output: A file name with an ending makes one grid; anything else is a folder of numbered PNGs.
        num_images: How many pictures.
        seed: Each picture has its own generator, seeded with `seed` plus its number, so more pictures or another
            batch size leave the first ones as they are.
        num_inference_steps: Denoising steps, for pipelines that have them.
        class_labels: Classes by index or name, one picture after the other and then from the front again; for
            pipelines that have classes.
        guidance_scale: How closely to follow labels or texts, for pipelines that can be guided.
        image: Files of pictures to work on, one after the other and then from the front again; for pipelines that take
            pictures.
        prompts: Texts, one picture after the other and then from the front again; for pipelines that take texts.
        batch_size: Pictures drawn at once.

    Returns:
        The path written.

    Raises:
        ValueError: if `num_images` is below 1, or the pipeline has no such setting.
    """
    import inspect

    import torch
    from PIL import Image
    from tqdm.auto import tqdm

    from hf_genzoo.hub import load
    from hf_genzoo.hub.probe import needs_picture
    from hf_genzoo.images import image_grid

    if num_images < 1 or batch_size < 1:
        raise ValueError(f"num_images is {num_images} and batch_size {batch_size}: both must be at least 1")
    pipeline = load(repo_or_folder)
    pipeline.set_progress_bar_config(disable=True)
    asked: dict[str, Any] = {
        "num_inference_steps": num_inference_steps,
        "class_labels": class_labels or None,
        "guidance_scale": guidance_scale,
        "image": image or None,
        "prompt": prompts or None,
    }
    asked = {name: value for name, value in asked.items() if value is not None}
    takes = inspect.signature(type(pipeline).__call__).parameters
    if unknown := [name for name in asked if name not in takes]:
        raise ValueError(f"{type(pipeline).__name__} has no {' and no '.join(unknown)}: leave that out")
    if needs_picture(pipeline) and "image" not in asked:
        raise ValueError(f"{type(pipeline).__name__} works on pictures: name the files with image (--image)")
    given = [Image.open(path) for path in image or ()]
    images = []
    with tqdm(total=num_images, desc="sampling", unit="img") as bar:
        for start in range(0, num_images, batch_size):
            count = min(batch_size, num_images - start)
            generators = [torch.Generator().manual_seed(seed + start + i) for i in range(count)]
            for name, values in (("class_labels", class_labels), ("prompt", prompts), ("image", given)):
                if values:
                    asked[name] = [values[(start + i) % len(values)] for i in range(count)]
            if "batch_size" in takes:
                asked["batch_size"] = count
            images += pipeline(generator=generators, **asked).images  # pyright: ignore[reportCallIssue]
            bar.update(count)
    output = Path(output)
    if output.suffix:
        output.parent.mkdir(parents=True, exist_ok=True)
        image_grid(images).save(output)
    else:
        output.mkdir(parents=True, exist_ok=True)
        for index, drawn in enumerate(images):
            drawn.save(output / f"{index:05d}.png")
    return output


def info(folder: str | Path) -> dict[str, Any]:
    """What an exported folder says about itself: pipeline, components, sizes, how it was trained.

    Raises:
        ValueError: if the folder holds no pipeline.
    """
    folder = Path(folder)
    index = folder / "model_index.json"
    if not index.is_file():
        raise ValueError(f"{folder} holds no pipeline: there is no model_index.json in it")
    listing = json.loads(index.read_text())
    record = folder / "training.json"
    return {
        "folder": str(folder),
        "pipeline": listing["_class_name"],
        "components": {name: value for name, value in listing.items() if not name.startswith("_")},
        "bytes": sum(path.stat().st_size for path in folder.rglob("*.safetensors") if "checkpoint-" not in str(path)),
        "checkpoints": sorted(path.name for path in folder.glob("checkpoint-*")),
        "training": json.loads(record.read_text()) if record.is_file() else None,
    }
