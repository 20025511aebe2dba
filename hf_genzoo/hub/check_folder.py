"""What can be said of an exported folder by looking at its files: nothing is loaded, no code of it runs."""

import json
import struct
import zipfile
from pathlib import Path

from hf_genzoo.hub.card import CardError, check_card
from hf_genzoo.hub.code_files import PublishedFileError, check_published_file
from hf_genzoo.hub.layout import (
    PICKLE_SUFFIXES,
    STAGING,
    STOCK_LIBRARIES,
    VARIANT_WEIGHTS,
    Index,
    belonging_files,
    code_files,
    content_hash,
    read_index,
    split_pipeline_stem,
    split_stem,
    text_of,
)


def check_folder(folder: str | Path) -> list[str]:
    """Everything wrong with the files of an exported folder; an empty list when it is complete and clean.

    Checked: the index names what is there, code files obey the import rule and carry the hash of their text, no code
    or weights lie around that the index does not name, weights are whole safetensors files and nothing is a pickle,
    no export was left halfway, the card's front matter parses.

    Raises:
        LayoutError: The folder has no readable `model_index.json`.
    """
    folder = Path(folder)
    index = read_index(folder)
    problems = _components(folder, index) + _code(folder, index) + _weights(folder, index)
    if (folder / STAGING).exists():
        problems.append(f"an export was interrupted ({STAGING} is left); export again")
    try:
        check_card(folder)
    except CardError as error:
        problems.append(str(error))
    return problems


def _components(folder: Path, index: Index) -> list[str]:
    problems = []
    for name, (_, class_name) in sorted(index.components.items()):
        home = folder / name
        if not home.is_dir():
            problems.append(f"the folder {name}/ of {class_name} is missing")
            continue
        files = {path.name for path in home.iterdir()}
        if "config.json" not in files:
            continue  # schedulers, tokenizers and processors have no weights
        config = json.loads((home / "config.json").read_text(encoding="utf-8"))
        weights = {file for file in files if file.endswith((".safetensors", ".safetensors.index.json"))}
        plain = {file for file in weights if not VARIANT_WEIGHTS.fullmatch(file)}
        if not plain and ("architectures" in config or "_class_name" in config):
            only = f" but those of a variant: {', '.join(sorted(weights))}" if weights else ""
            problems.append(f"{name}/ holds no weights (*.safetensors){only}")
    return problems


def _code(folder: Path, index: Index) -> list[str]:
    problems = []
    named = code_files(folder, index)
    for path in named.values():
        relative = path.relative_to(folder)
        if not path.is_file():
            problems.append(f"the code file {relative} is missing")
            continue
        parts = split_pipeline_stem(path.stem) or split_stem(path.stem)
        if parts is None:
            problems.append(f"the code file {relative} has no hash in its name")
        elif content_hash(text_of(path)) != parts[1]:
            problems.append(
                f"the code file {relative} was changed: its text has the hash {content_hash(text_of(path))}"
            )
        try:
            check_published_file(path)
        except PublishedFileError as error:
            problems.append(str(error))
    for path in sorted([*folder.glob("*.py"), *folder.glob("*/*.py")]):
        in_component = path.parent == folder or path.parent.name in index.components
        if in_component and path not in named.values():
            problems.append(f"{path.relative_to(folder)} is named by nothing")
    for name, (library, _) in index.components.items():
        if library not in STOCK_LIBRARIES and name not in named and not _is_diffusers_pipeline(library):
            problems.append(f"{name} is of {library!r}, for which the folder holds no code")
    return problems


def _is_diffusers_pipeline(library: str) -> bool:
    from diffusers import pipelines

    return hasattr(pipelines, library)


def _weights(folder: Path, index: Index) -> list[str]:
    problems = []
    for relative in belonging_files(folder, index):
        path = folder / relative
        if path.suffix in PICKLE_SUFFIXES or _is_pickle(path):
            problems.append(f"{relative} is a pickle: it can run code when it is opened, and is not published")
        elif path.suffix == ".safetensors":
            fault = _safetensors_fault(path)
            problems += [f"{relative} {fault}"] if fault else []
    for path in sorted(folder.glob("*/*.safetensors")):
        home = path.parent
        if home.name not in index.components and (home / "config.json").is_file() and "checkpoint" not in home.name:
            problems.append(f"{home.name}/ holds weights but is not named by the index")
    return problems


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(2)
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return True
    if start == b"PK" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".pkl") for name in archive.namelist())
    return False


def _safetensors_fault(path: Path) -> str:
    """Why a file is not whole: its header gives the size of the data that must follow."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size + 1
        if length + 8 > size:
            return "is not a safetensors file"
        try:
            header = json.loads(file.read(length))
            end = max(
                (entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return "is not a safetensors file"
    return "" if 8 + length + end == size else f"is {size} bytes long, but its header asks for {8 + length + end}"
