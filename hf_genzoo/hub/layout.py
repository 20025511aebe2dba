"""The shape of an exported folder: names of code files, the index, and which files belong to the repository.

A repository holds `model_index.json`, one folder a component, the card with its pictures, and, only where a class is
neither of diffusers nor of transformers, code files: `pipeline_<family>_<hash>.py` at the root and
`<component>/<module>_<hash>.py` beside the weights. The hash is that of the file's text, because diffusers keeps the
code of all repositories of one process in a single flat namespace: equal names must mean equal text.

Only the standard library is imported here.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INDEX = "model_index.json"
CARD = "README.md"
STAGING = ".genzoo-export"  # hidden, inside the folder: on the same filesystem even where the folder is a mount point

STOCK_LIBRARIES = ("diffusers", "transformers")
HASH_LENGTH = 10

_CODE_STEM = re.compile(rf"(?P<name>[A-Za-z_]\w*?)_(?P<hash>[0-9a-f]{{{HASH_LENGTH}}})")
_PIPELINE_STEM = re.compile(rf"pipeline_(?P<name>\w+?)_(?P<hash>[0-9a-f]{{{HASH_LENGTH}}})")

# Loose files of the folder's root that belong to the repository; everything else there (checkpoints, logs, optimiser
# state, whatever a user keeps beside them) stays at home.
ROOT_FILE_NAMES = ("LICENSE", "LICENSE.txt", "NOTICE", ".gitattributes")
ROOT_FILE_SUFFIXES = (".json", ".md", ".png", ".jpg", ".jpeg", ".webp", ".gif", ".svg", ".yaml", ".yml")
VARIANT_WEIGHTS = re.compile(
    r"[^.]+\.(?:[^.]+\.safetensors|safetensors\.index\.[^.]+\.json)"
)  # weights.fp16.safetensors
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")


class LayoutError(ValueError):
    """The folder is not an exported pipeline, or a damaged one."""


def text_of(path: Path) -> str:
    """The text of a source file with "\\n" line ends, so that a checkout's line-end style cannot change its hash."""
    return path.read_bytes().decode("utf-8").replace("\r\n", "\n")


def content_hash(text: str) -> str:
    """The first hexadecimal digits of the text's SHA-256."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:HASH_LENGTH]


def split_stem(stem: str) -> tuple[str, str] | None:
    """("vae", "0123456789") of "vae_0123456789"; None when the stem is not of that form."""
    match = _CODE_STEM.fullmatch(stem)
    return (match["name"], match["hash"]) if match else None


def split_pipeline_stem(stem: str) -> tuple[str, str] | None:
    """(family, hash) of "pipeline_<family>_<hash>"; None when the stem is not of that form."""
    match = _PIPELINE_STEM.fullmatch(stem)
    return (match["name"], match["hash"]) if match else None


@dataclass(frozen=True)
class Index:
    """A parsed `model_index.json`.

    Args:
        pipeline: (stem of the code file or None for a class of diffusers, class name).
        components: name -> (library or stem of the code file, class name); components saved as null are left out.
        raw: The file as it is.
    """

    pipeline: tuple[str | None, str]
    components: dict[str, tuple[str, str]]
    raw: dict[str, Any]


def parse_index(raw: dict[str, Any], where: str) -> Index:
    """Read the entries of a `model_index.json`; `where` names the folder or repository in errors."""
    entry = raw.get("_class_name")
    if isinstance(entry, str):
        pipeline: tuple[str | None, str] = (None, entry)
    elif isinstance(entry, list) and len(entry) == 2 and all(isinstance(part, str) for part in entry):
        pipeline = (entry[0], entry[1])
    else:
        raise LayoutError(f'{INDEX} of {where} has "_class_name": {entry!r}; expected a name or [file, name]')
    components = {}
    for name, value in raw.items():
        is_pair = isinstance(value, list) and len(value) == 2
        if name.startswith("_") or not is_pair or value == [None, None]:
            continue
        if not all(isinstance(part, str) for part in value):
            continue  # an init argument of the pipeline that happens to be a pair
        components[name] = (value[0], value[1])
    return Index(pipeline, components, raw)


def read_index(folder: Path) -> Index:
    """Parse the index of a local folder.

    Raises:
        LayoutError: There is none, or it is not JSON.
    """
    path = folder / INDEX
    if not path.is_file():
        raise LayoutError(f"{folder} holds no {INDEX}: it is not an exported pipeline")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LayoutError(f"{path} is not valid JSON: {error}") from error
    return parse_index(raw, str(folder))


def code_files(folder: Path, index: Index) -> dict[str, Path]:
    """The code files an index names: "_class_name" or the component's name -> path (which may not exist)."""
    files = {}
    if index.pipeline[0] is not None:
        files["_class_name"] = folder / f"{index.pipeline[0]}.py"
    for name, (library, _) in index.components.items():
        path = folder / name / f"{library}.py"
        if split_stem(library) is not None or path.is_file():
            files[name] = path
    return files


def is_hidden(path: Path) -> bool:
    """Whether any part of a relative path is hidden or belongs to the interpreter."""
    return any(part.startswith(".") or part == "__pycache__" for part in path.parts)


def belonging_files(folder: Path, index: Index) -> Iterator[Path]:
    """The files of a folder that belong to its repository, as sorted relative paths.

    An allow-list: the index, the card, its pictures and results, the code files the index names, and all that lies in
    the component folders. Checkpoints, logs, sample folders and optimiser state are none of these.
    """
    named = {path for path in code_files(folder, index).values() if path.is_file()}
    for path in sorted(folder.iterdir()):
        loose = path.name in ROOT_FILE_NAMES or (path.suffix in ROOT_FILE_SUFFIXES and not path.name.startswith("."))
        if path.is_file() and (loose or path in named):
            yield path.relative_to(folder)
    for name in sorted(index.components):
        for path in sorted((folder / name).rglob("*")):
            relative = path.relative_to(folder)
            if path.is_file() and not is_hidden(relative):
                yield relative


def model_hash(folder: Path) -> str:
    """Hash of the weights and settings of an exported pipeline; cards, pictures and logs are no part of it."""
    files = [Path(INDEX)]
    for component in read_index(folder).components:
        found = [path.relative_to(folder) for path in (folder / component).rglob("*") if path.is_file()]
        # Another variant holds the same weights in another precision: no other model.
        found = [path for path in found if not VARIANT_WEIGHTS.fullmatch(path.name)]
        files += [path for path in found if not is_hidden(path) and path.suffix != ".py"]
    total = hashlib.blake2b(digest_size=16)
    for path in sorted(files):
        content = (folder / path).read_bytes()
        if path.suffix == ".json":  # the order of keys and the version that wrote them are no part of a model
            content = json.dumps(_without_version(json.loads(content)), sort_keys=True).encode()
        total.update(f"{path.as_posix()} {len(content)}\n".encode())
        total.update(content)
    return total.hexdigest()


def _without_version(config: Any) -> Any:
    if not isinstance(config, dict):
        return config
    versions = ("_diffusers_version", "transformers_version")
    return {name: value for name, value in config.items() if name not in versions}
