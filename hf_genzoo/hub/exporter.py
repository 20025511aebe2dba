"""Write a pipeline as a Hub-ready folder: weights, code where it is needed, index, card.

The folder is built aside and then moved in file by file, each by one atomic rename, in an order that keeps whatever
the index names in place: new files first, then the index, then the removal of what an earlier export left. Killed
anywhere, the folder holds whole files of the old or the new export, and the next export puts it right, including the
removals.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.ddim.pipeline_ddim import DDIMPipeline
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from hf_genzoo.families import FAMILIES, get_family
from hf_genzoo.hub.card import render_card
from hf_genzoo.hub.code_files import CodeFile, code_file, is_stock, unwrap
from hf_genzoo.hub.layout import (
    CARD,
    INDEX,
    STAGING,
    LayoutError,
    code_files,
    is_hidden,
    model_hash,
    read_index,
    split_pipeline_stem,
)
from hf_genzoo.hub.measured import RESULTS, read_results

_OWED = "owed.json"


def export(
    pipeline: DiffusionPipeline, folder: str | Path, *, family: str | None = None, training: dict | None = None
) -> Path:
    """Write `pipeline` to `folder` so that it loads with this package, without it, and from the Hub.

    Other things in the folder (checkpoints, logs, samples) are left alone; what an earlier export left is replaced. A
    folder of stock classes gets no code files.

    Args:
        pipeline: The pipeline; one that was itself loaded from a repository's code files will do.
        folder: Written to; made if it does not exist.
        family: Name in `hf_genzoo.families`; found from the pipeline's class if None.
        training: What the card says about the training (see `hf_genzoo.hub.card`); None: the card says that nothing
            was recorded.

    Returns:
        The folder.

    Raises:
        ValueError: The family is unknown or cannot be told.
        PublishedFileError: The code of a class cannot be published (see `check_published_file`).
        OSError: The disk is full or the folder not writable; the earlier export still loads.
    """
    folder = Path(folder)
    family = _family_of(pipeline, family)
    pipeline, class_name = _stock_form(pipeline, family)
    files = _code_of(pipeline, family)  # before anything is written: code that cannot be published stops it here
    folder.mkdir(parents=True, exist_ok=True)
    stage = folder / STAGING
    owed = _unfinished(stage)
    shutil.rmtree(stage, ignore_errors=True)
    try:
        _write(pipeline, class_name, files, stage)
        new = sorted(path.relative_to(stage) for path in stage.rglob("*") if path.is_file())
        stale = sorted((owed | _exported_files(folder)) - set(new))
        measured = _still_measured(folder, stage)
        card = render_card(folder, family=family, training=training, index=read_index(stage), measured=measured)
        (stage / CARD).write_text(card, encoding="utf-8")
        (stage / _OWED).write_text(json.dumps([path.as_posix() for path in (*new, *stale)]), encoding="utf-8")
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise
    _move_in(stage, folder, [*(path for path in new if path.name != INDEX), Path(INDEX), Path(CARD)])
    for path in stale:
        _remove(folder, path)
    if not measured:
        (folder / RESULTS).unlink(missing_ok=True)
    shutil.rmtree(stage)
    return folder


def _still_measured(folder: Path, stage: Path) -> bool:
    """Whether the folder's results are of the weights that are exported now, and not of earlier ones."""
    results = read_results(folder)
    return results is None or results["model"]["hash"] == model_hash(stage)


def _family_of(pipeline: DiffusionPipeline, family: str | None) -> str:
    if family is not None:
        return get_family(family).name
    module = type(pipeline).__module__.split(".")[-1]
    parts = split_pipeline_stem(module)  # loaded from a repository's code files
    if parts and parts[0] in FAMILIES:
        return parts[0]
    owners = [known for known in FAMILIES.values() if known.pipeline == type(pipeline).__name__]
    for known in owners:  # of several that share a class, it is the parent's
        if known.parent is None or len(owners) == 1:
            return known.name
    if type(pipeline) in (DDPMPipeline, DDIMPipeline):
        return "ddpm"
    raise ValueError(
        f"cannot tell the family of a {type(pipeline).__name__}; pass family=, one of {', '.join(sorted(FAMILIES))}"
    )


def _stock_form(pipeline: DiffusionPipeline, family: str) -> tuple[DiffusionPipeline, str]:
    """The pipeline to save and the class to name: stock diffusers where the family can be said in its classes.

    An unconditional DDPM is a UNet2DModel and a DDPMScheduler. Saved so and named a DDIMPipeline, it opens as
    DDPMPipeline (1000 steps of the chain), as DDIMPipeline, and by the generic class, which then samples in few steps.
    """
    parts = pipeline.components
    unet = unwrap(parts.get("unet"))
    if family == "ddpm" and set(parts) == {"unet", "scheduler"} and type(unet) is UNet2DModel:
        config = unet.config
        if config.get("num_class_embeds") is None and config.get("class_embed_type") is None:
            scheduler: Any = parts["scheduler"]
            if type(scheduler) is not DDPMScheduler:
                scheduler = DDPMScheduler.from_config(scheduler.config)
            return DDPMPipeline(unet=unet, scheduler=scheduler), DDIMPipeline.__name__
    return pipeline, type(pipeline).__name__


def _code_of(pipeline: DiffusionPipeline, family: str) -> dict[str, CodeFile]:
    """ "_class_name" or component name -> its code file, for every class that is not stock."""
    files = {}
    for name, component in pipeline.components.items():
        cls = type(unwrap(component))
        if component is not None and hasattr(cls, "save_pretrained") and not is_stock(cls):
            files[name] = code_file(cls)
    if not is_stock(type(pipeline)):
        files["_class_name"] = code_file(type(pipeline), prefix=f"pipeline_{family}")
    return files


def _write(pipeline: DiffusionPipeline, class_name: str, files: dict[str, CodeFile], stage: Path) -> None:
    pipeline.save_pretrained(stage, safe_serialization=True)
    index = json.loads((stage / INDEX).read_text(encoding="utf-8"))
    index.pop("_name_or_path", None)
    index["_class_name"] = class_name
    for name, file in files.items():
        index[name] = [file.stem, file.class_name]
        home = stage if name == "_class_name" else stage / name
        (home / f"{file.stem}.py").write_bytes(file.text.encode("utf-8"))
    unsaved = [
        name
        for name, component in pipeline.components.items()
        if component is not None and index.get(name) == [None, None]
    ]
    if unsaved:
        raise ValueError(f"diffusers cannot save the components {', '.join(unsaved)} of {class_name}")
    (stage / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for path in stage.glob("*/*config.json"):
        _forget_origin(path)


def _forget_origin(path: Path) -> None:
    """Drop the path a component was loaded from: it means nothing to others and may tell more than one wants."""
    config = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(config, dict) and config.pop("_name_or_path", None) is not None:
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _exported_files(folder: Path) -> set[Path]:
    """What an earlier export wrote: code files at the root, and all in the folders its index names."""
    try:
        index = read_index(folder)
    except LayoutError:  # none, or a damaged one: only what names itself
        return {path.relative_to(folder) for path in folder.glob("pipeline_*.py") if split_pipeline_stem(path.stem)}
    found = {path.relative_to(folder) for path in folder.glob("pipeline_*.py") if split_pipeline_stem(path.stem)}
    found |= {path.relative_to(folder) for path in code_files(folder, index).values() if path.is_file()}
    for name in index.components:
        found |= {path.relative_to(folder) for path in (folder / name).rglob("*") if path.is_file()}
    return {path for path in found if not is_hidden(path) and ".." not in path.parts}


def _unfinished(stage: Path) -> set[Path]:
    """What an export that was killed halfway had moved in already or was still to remove."""
    try:
        owed: Any = json.loads((stage / _OWED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    return {path for path in map(Path, owed) if not path.is_absolute() and ".." not in path.parts}


def _move_in(stage: Path, folder: Path, files: list[Path]) -> None:
    for path in files:
        target = folder / path
        if target.is_dir():
            raise IsADirectoryError(f"{target} is a folder, but the export writes a file of that name")
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(stage / path, target)


def _remove(folder: Path, path: Path) -> None:
    (folder / path).unlink(missing_ok=True)
    for parent in (folder / path).parents:
        if parent == folder or (parent.is_dir() and any(parent.iterdir())):
            break
        if parent.is_dir():
            parent.rmdir()
