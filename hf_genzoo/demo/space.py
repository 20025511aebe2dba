"""The demo of a published model as a Space: the same app, on a machine where hf_genzoo is not installed."""

import io
import platform
from collections.abc import Mapping
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from string import Template
from typing import Any

import yaml

from hf_genzoo.demo.launcher import Facts, card_url, examples_of, facts_of, is_embedded
from hf_genzoo.hub.card import LICENSE
from hf_genzoo.hub.inline import inlined
from hf_genzoo.hub.layout import STOCK_LIBRARIES, read_index, text_of

REQUIREMENTS = ("torch", "diffusers", "huggingface_hub", "gradio", "numpy", "pillow", "scikit-learn")
"""What the app imports; transformers joins them where a component needs it."""

AT_HOME = ("launcher.py", "command_line.py", "space.py", "playground_server.py", "playground_space.py")
"""Modules of the demo that need hf_genzoo: a Space has no use for them."""

_APP = Template('''\
"""Demo of $repo_id. Written by hf_genzoo; the folder demo/ holds the app."""

import threading
from pathlib import Path

from diffusers import DiffusionPipeline

from demo.app import build_app, start
from demo.examples import load_examples

MODEL = $repo_id_literal
REVISION = $revision_literal

HERE = Path(__file__).parent


def main() -> None:
    pipeline = DiffusionPipeline.from_pretrained(MODEL, revision=REVISION$trust)
    stored = HERE / "examples.npz"
    app = build_app(
        pipeline,
        title=$title,
        examples=load_examples(stored) if stored.is_file() else None,
        about=$about,
        card_url=$card_url,
        defaults=$defaults,
    )
    start(app)
    threading.Event().wait()


if __name__ == "__main__":
    main()
''')


def space_files(folder: Path | str, repo_id: str, revision: str) -> Mapping[str, bytes]:
    """Everything that the Space of a published model holds.

    Args:
        folder: The exported folder that was published.
        repo_id: Where it was published, "user/name".
        revision: Its commit, which the Space opens.

    Returns:
        Contents by path.

    Raises:
        ValueError: If the folder holds no pipeline, or a package that the demo needs is not installed.
    """
    folder = Path(folder)
    index = read_index(folder)
    facts = facts_of(folder, repo_id)
    libraries = {library for library, _ in index.components.values()} | {index.pipeline[0] or "diffusers"}
    app = _APP.substitute(
        repo_id=repo_id,
        repo_id_literal=repr(repo_id),
        revision_literal=repr(revision),
        trust=", trust_remote_code=True" if libraries - set(STOCK_LIBRARIES) else "",
        title=repr(facts.title),
        about=repr(facts.about),
        card_url=repr(card_url(repo_id)),
        defaults=repr(facts.defaults),
    )
    files = {"app.py": app.encode(), "requirements.txt": _requirements(libraries).encode()}
    files["README.md"] = _readme(repo_id, facts).encode()
    for module in resources.files("hf_genzoo.demo").iterdir():
        if module.name.endswith(".py") and module.name not in AT_HOME:
            files[f"demo/{module.name}"] = inlined(text_of(module)).encode()  # type: ignore[arg-type]
    examples = examples_of(folder) if is_embedded(folder) else None  # other people's pictures are not ours to publish
    if examples is not None:
        stored = io.BytesIO()
        examples.save(stored)
        files["examples.npz"] = stored.getvalue()
    return files


def _requirements(libraries: set[str]) -> str:
    """One pinned package a line; the builds of one machine ("+cpu") are left off, which no index has."""
    names = [*REQUIREMENTS, *(["transformers"] if "transformers" in libraries else [])]
    try:
        return "".join(f"{name}=={version(name).partition('+')[0]}\n" for name in names)
    except PackageNotFoundError as error:
        raise ValueError(
            f'{error.name} is not installed, and the Space needs its version: pip install "hf_genzoo[demo]"'
        ) from error


def _readme(repo_id: str, facts: Facts) -> str:
    return space_card(
        facts.title,
        f"{facts.about}\n\nA demo of [{repo_id}]({card_url(repo_id)}).",
        sdk="gradio",
        sdk_version=version("gradio"),
        python_version=".".join(platform.python_version_tuple()[:2]),
        app_file="app.py",
        models=[repo_id],
    )


def space_card(title: str, text: str, **how: Any) -> str:
    """A Space's own card: its front matter says `how` to run it."""
    look = {"title": title, "emoji": "🎲", "colorFrom": "blue", "colorTo": "gray"}
    settings = {**look, **how, "license": LICENSE, "pinned": False}
    front = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n{text}\n"
