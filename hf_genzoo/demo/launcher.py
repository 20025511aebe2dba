"""From a repository or folder to its app in the browser; only here a demo knows hf_genzoo."""

import json
import logging
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from hf_genzoo.demo.examples import Examples
from hf_genzoo.families import FAMILIES

logger = logging.getLogger(__name__)

NUM_EXAMPLES = 1000
"""Real pictures that an app gets: enough for a map of the data, and small beside the weights."""

# What a training records as the settings of its own previews, by the names of a call's arguments.
_RECORDED = {
    "num_inference_steps": ("ddpm_num_inference_steps", "num_inference_steps"),
    "guidance_scale": ("guidance_scale",),
}


@dataclass(frozen=True)
class Facts:
    """What a folder says about its model, as `build_app` takes it.

    Args:
        title: Heading of the page.
        about: A sentence or two of the card.
        defaults: Settings to begin with.
    """

    title: str
    about: str
    defaults: dict[str, Any]


def facts_of(folder: Path, name: str) -> Facts:
    """What the app of an exported folder says and begins with, from its card and its training record.

    Args:
        folder: The folder, or what has been downloaded of a repository.
        name: The repository, or the folder's name: what a family and its data do not tell.
    """
    record = _record(folder)
    family, args = FAMILIES.get(str(record.get("family"))), record.get("args", {})
    data = Path(str(args.get("dataset_name") or args.get("train_data_dir") or "")).name
    title = f"{family.title} · {data}" if family and data else name
    recorded = {name: next((args[key] for key in keys if args.get(key)), None) for name, keys in _RECORDED.items()}
    return Facts(title, _about(folder), {name: value for name, value in recorded.items() if value is not None})


def examples_of(folder: Path) -> Examples | None:
    """Pictures of the held-out split of the data that the model was trained on; None where they cannot be had.

    Args:
        folder: An exported folder; its training record names the data.
    """
    from hf_genzoo.data import DataArgs, MapImages, image_dataset
    from hf_genzoo.data.args import POINT_SETS
    from hf_genzoo.data.computed import COMPUTED, SPLITS
    from hf_genzoo.data.sources import split_names
    from hf_genzoo.evaluation.reference import HELD_OUT_SPLITS, found_class_column

    recorded = _record(folder).get("args", {})
    known = {field.name for field in fields(DataArgs)} & recorded.keys()
    flags = DataArgs(**{name: recorded[name] for name in known})
    flags.streaming = False
    if flags.dataset_name in POINT_SETS:
        return None
    try:
        splits = SPLITS if flags.dataset_name in COMPUTED else split_names(flags)
        split = next((name for name in HELD_OUT_SPLITS if name in splits and name != flags.dataset_split), None)
        if split is None:
            return None
        flags.class_column = flags.class_column or found_class_column(flags)
        data = image_dataset(flags, split=split)
    except (ValueError, OSError) as error:  # such as data that only the training machine had
        logger.warning("no examples: %s", error)
        return None
    assert isinstance(data, MapImages)
    rows = np.random.default_rng(0).permutation(len(data.pixels))[:NUM_EXAMPLES]  # sets are often sorted by class
    images = np.ascontiguousarray(np.moveaxis(np.asarray(data.pixels)[rows], 1, -1))
    return Examples(images, None if data.labels is None else data.labels[rows], tuple(data.class_names or ()))


def is_embedded(folder: Path) -> bool:
    """Whether a model was trained on pictures that come with hf_genzoo and may be given to anyone."""
    from hf_genzoo.data.args import IMAGE_SETS

    return _record(folder).get("args", {}).get("dataset_name") in IMAGE_SETS


def demo(
    repo_or_folder: str | Path,
    *,
    revision: str | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    share: bool = False,
    open_browser: bool = True,
) -> str:
    """Open the app of a model, in the background.

    Args:
        repo_or_folder: An exported folder, or "user/name" on the Hub.
        revision: Branch, tag or commit on the Hub.
        host: Address to listen on; "0.0.0.0" lets other machines in.
        port: Port; a free one if None.
        share: Make a public link through gradio's servers.
        open_browser: Open it in the browser.

    Returns:
        Its address.

    Raises:
        ValueError: gradio is missing, or the model cannot be loaded or has no app.
    """
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ValueError('the demos need gradio: pip install "hf_genzoo[demo]"') from error
    from hf_genzoo.demo.app import build_app, start
    from hf_genzoo.hub import load

    folder = Path(repo_or_folder)
    pipeline = load(repo_or_folder, revision=revision)
    local = folder if folder.is_dir() else _downloaded(str(repo_or_folder), revision)
    facts = facts_of(local, folder.resolve().name if folder.is_dir() else str(repo_or_folder))
    app = build_app(
        pipeline,
        title=facts.title,
        examples=examples_of(local),
        about=facts.about,
        card_url=None if folder.is_dir() else card_url(str(repo_or_folder)),
        defaults=facts.defaults,
    )
    return start(app, server_name=host, server_port=port, share=share, inbrowser=open_browser)


def card_url(repo_id: str) -> str:
    """Where the card of a repository can be read."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repo_id}"


def _downloaded(repo_id: str, revision: str | None) -> Path:
    """The card and the training record of a repository, as far as it has them."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(repo_id, revision=revision, allow_patterns=["README.md", "training.json"]))


def _record(folder: Path) -> dict[str, Any]:
    path = folder / "training.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _about(folder: Path) -> str:
    """The first paragraph of the card: what the model is, for people who have not read the paper."""
    path = folder / "README.md"
    if not path.is_file():
        return ""
    text = re.sub(r"\A---\n.*?\n---\n", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    blocks = [block.strip() for block in re.split(r"\n\s*\n", text)]
    prose = (block for block in blocks if block and block[0] not in "#!<|`-*>[")
    return " ".join(next(prose, "").split())
