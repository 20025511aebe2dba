"""Checkpoint folders that are either whole or not there.

A checkpoint is written aside, synced to disk, listed in a manifest with sizes and digests, and renamed into place. A
kill, a full disk or a flipped bit can therefore never pass for a checkpoint: `find_latest` refuses it by name and
takes the one before it.
"""

import hashlib
import json
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
_NAME = re.compile(r"checkpoint-(\d+)")


def checkpoint_path(output_dir: Path, step: int) -> Path:
    """Where the checkpoint of a step lives."""
    return output_dir / f"checkpoint-{step}"


def staging_path(output_dir: Path, step: int) -> Path:
    """Where it is written before it is complete."""
    return output_dir / f".checkpoint-{step}.partial"


def publish(staged: Path, final: Path, facts: dict[str, Any]) -> None:
    """Turn a fully written staging folder into a checkpoint.

    Args:
        staged: The folder with every rank's files.
        final: Its final name; an older folder of that name is replaced.
        facts: JSON facts about the run (step, arguments, data) that a resume is checked against.
    """
    files = {}
    for path in sorted(p for p in staged.rglob("*") if p.is_file()):
        files[path.relative_to(staged).as_posix()] = {"size": path.stat().st_size, "blake2b": _digest(path)}
        _sync(path)
    manifest = staged / MANIFEST
    manifest.write_text(json.dumps({**facts, "files": files}, indent=1))
    _sync(manifest)
    _sync(staged)
    if final.exists():
        shutil.rmtree(final)
    staged.rename(final)
    _sync(final.parent)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read and check a checkpoint.

    Raises:
        ValueError: naming the folder and what is wrong with it: missing, foreign, torn or altered.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no checkpoint: there is no such folder")
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        files = manifest["files"]
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} is no complete checkpoint of hf_genzoo: no readable {MANIFEST}") from error
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{folder} is torn: {name} is missing")
        if path.stat().st_size != expected["size"]:
            raise ValueError(f"{folder} is torn: {name} has {path.stat().st_size} bytes, not {expected['size']}")
        if _digest(path) != expected["blake2b"]:
            raise ValueError(f"{folder} is damaged: {name} does not match its digest")
    return manifest


def list_checkpoints(output_dir: Path) -> list[Path]:
    """Checkpoint folders of a run, newest first, whole or not."""
    found = [
        (int(match[1]), path) for path in output_dir.glob("checkpoint-*") if (match := _NAME.fullmatch(path.name))
    ]
    return [path for _, path in sorted(found, reverse=True)]


def find_latest(output_dir: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest whole checkpoint and its manifest; each one passed over is named in a warning.

    Raises:
        ValueError: if there are checkpoints but none is whole.
    """
    candidates = list_checkpoints(output_dir)
    problems = []
    for folder in candidates:
        try:
            return folder, read_manifest(folder)
        except ValueError as error:
            problems.append(str(error))
            warnings.warn(f"{error}; trying the checkpoint before it", stacklevel=2)
    if problems:
        raise ValueError(f"no usable checkpoint in {output_dir}: {'; '.join(problems)}")
    return None


def remove(folder: Path) -> None:
    """Delete a folder if it is there."""
    shutil.rmtree(folder, ignore_errors=True)


def prune(output_dir: Path, limit: int | None) -> None:
    """Delete the oldest checkpoints beyond `limit`, and leftovers of interrupted writes."""
    for leftover in output_dir.glob(".checkpoint-*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)
    if limit is not None:
        for folder in list_checkpoints(output_dir)[limit:]:
            shutil.rmtree(folder)


def differences(saved: dict[str, Any], current: dict[str, Any], ignored: frozenset[str]) -> list[str]:
    """Fields that differ between a checkpoint's facts and this run's, as readable lines."""
    names = sorted((set(saved) | set(current)) - ignored)
    return [f"{n}: {saved.get(n)!r} -> {current.get(n)!r}" for n in names if saved.get(n) != current.get(n)]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.blake2b(digest_size=16)
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
