"""Prove that an exported folder or a repository loads in every way it promises, with the same samples.

Each way runs in a fresh interpreter with empty caches (`hf_genzoo.hub.probe`), local folders without network; the ways
that need no remote code run with remote code forbidden to diffusers. Samples are compared value by value, exactly.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from json import dumps, loads
from pathlib import Path
from typing import Any

import numpy as np

from hf_genzoo.hub.check_folder import check_folder
from hf_genzoo.hub.layout import Index, read_index, split_stem

WAYS = {
    1: "without hf_genzoo (remote code trusted)",
    2: "with hf_genzoo (installed classes)",
    3: "stock diffusers (no remote code)",
}
ANSWER = "answer.json"
TIMEOUT = 900  # seconds for one way: a cold import, a download, a few sampling steps on one slow core


@dataclass
class Result:
    """What came of one check.

    Args:
        way: What was tried.
        ok: Whether it held.
        detail: What was seen; for a failure, what is wrong.
        seconds: How long it took.
        samples: The arrays drawn, for comparing ways with one another.
    """

    way: str
    ok: bool
    detail: str
    seconds: float
    samples: list[np.ndarray] = field(default_factory=list, repr=False)


def verify(
    repo_or_folder: str | Path,
    *,
    revision: str | None = None,
    ways: Sequence[int] | None = None,
    token: str | None = None,
) -> list[Result]:
    """Check a folder or repository: its files, every way of loading that applies, and that all ways agree.

    A way that fails is a result, not an exception.

    Args:
        repo_or_folder: A local folder, or "user/name" on the Hub.
        revision: Branch, tag or commit on the Hub.
        ways: Only these keys of `WAYS`; all that apply if None.
        token: Access token for a private repository; the one of `hf auth login` if None.

    Returns:
        One result for the files, one for each way, one for their agreement (when more than one way was tried).
    """
    unknown = sorted(set(ways or ()) - set(WAYS))
    if unknown:
        raise ValueError(f"unknown ways {unknown}; known: {sorted(WAYS)}")
    start = time.perf_counter()
    is_local = Path(repo_or_folder).is_dir()
    origin = str(Path(repo_or_folder).resolve()) if is_local else str(repo_or_folder)
    try:
        with tempfile.TemporaryDirectory(prefix="genzoo-verify-") as name:
            folder = Path(origin) if is_local else _download(origin, revision, Path(name), token)
            index = read_index(folder)
            problems = check_folder(folder)
    except Exception as error:  # a folder that cannot be read and a Hub that cannot be reached are results too
        return [Result("files", False, f"{type(error).__name__}: {error}", time.perf_counter() - start)]
    results = [Result("files", not problems, "; ".join(problems) or "complete", time.perf_counter() - start)]
    chosen = [way for way in ways_of(index) if ways is None or way in ways]
    env = environment(is_local, token)
    tried = [_try_way(way, origin, revision, index.pipeline[1], env) for way in chosen]
    results += tried
    if len(tried) > 1:
        results.append(agreement(tried))
    return results


def report(results: Sequence[Result]) -> str:
    """The results as lines to print, a failure with its reason below it."""
    lines = []
    for result in results:
        lines.append(f"{'ok  ' if result.ok else 'FAIL'} {result.way} ({result.seconds:.1f} s)")
        lines += [f"       {line}" for line in result.detail.splitlines()]
    return "\n".join(lines)


def ways_of(index: Index) -> tuple[int, int]:
    """The keys of `WAYS` that apply to a repository: trusting its code only where it has any."""
    is_coded = index.pipeline[0] is not None or any(split_stem(library) for library, _ in index.components.values())
    return (1, 2) if is_coded else (2, 3)


def _download(repo: str, revision: str | None, cache: Path, token: str | None) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(repo, revision=revision, cache_dir=cache, token=token))


def _try_way(way: int, origin: str, revision: str | None, class_name: str, env: dict[str, str]) -> Result:
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="genzoo-verify-") as name:
        home = Path(name)
        write_request(home, way, origin, revision, class_name)
        shutil.copyfile(Path(__file__).with_name("probe.py"), home / "probe.py")
        command = [sys.executable, str(home / "probe.py"), str(home / "request.json")]
        try:
            done = subprocess.run(
                command,
                cwd=home,
                env={**env, **caches(way, home)},
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            return Result(WAYS[way], False, f"no answer after {TIMEOUT} s", time.perf_counter() - start)
        if done.returncode != 0 or not (home / ANSWER).is_file():
            tail = "\n".join(done.stderr.strip().splitlines()[-5:])
            detail = f"the interpreter ended with code {done.returncode}:\n{tail}"
            return Result(WAYS[way], False, detail, time.perf_counter() - start)
        result = read_answer(home, way)
    result.seconds = time.perf_counter() - start
    return result


def write_request(home: Path, way: int, origin: str, revision: str | None, class_name: str) -> None:
    """Write what the probe is asked, to its folder."""
    request = {"way": way, "origin": origin, "revision": revision, "class_name": class_name}
    (home / "request.json").write_text(dumps(request), encoding="utf-8")


def read_answer(home: Path, way: int) -> Result:
    """What the probe has left in its folder, judged."""
    answer = loads((home / ANSWER).read_text(encoding="utf-8"))
    samples = [np.load(path, allow_pickle=False) for o in answer["outcomes"] for path in o["samples"]]
    problems, notes = _judge(answer, samples)
    return Result(WAYS[way], not problems, "\n".join(problems or notes), 0.0, samples)


def environment(is_local: bool, token: str | None) -> dict[str, str]:
    """The caller's environment; of the Hugging Face settings, only what says where the Hub is and who asks."""
    kept = ("HF_ENDPOINT", "HF_HUB_DISABLE_XET", "HF_HUB_OFFLINE", "HF_TOKEN")
    env = {name: value for name, value in os.environ.items() if name in kept or not _is_cache_setting(name)}
    if is_local:
        env |= {"HF_HUB_OFFLINE": "1"}
        env.pop("HF_TOKEN", None)
    elif token or "HF_TOKEN" not in env:
        from huggingface_hub import get_token

        token = token or get_token()  # lies in the home that the child does not have
        env |= {"HF_TOKEN": token} if token else {}
    return env


def caches(way: int, home: Path) -> dict[str, str]:
    """Empty caches for one way; remote code is forbidden where the way needs none."""
    empty = {"HF_HOME": str(home / "hf_home"), "HF_MODULES_CACHE": str(home / "hf_modules")}
    return empty if way == 1 else {**empty, "DIFFUSERS_DISABLE_REMOTE_CODE": "1"}


def _is_cache_setting(name: str) -> bool:
    return name.startswith(("HF_", "HUGGINGFACE_", "TRANSFORMERS_", "DIFFUSERS_"))


def _judge(answer: dict[str, Any], samples: list[np.ndarray]) -> tuple[list[str], list[str]]:
    problems, notes = [], []
    if answer["foreign"]:
        problems.append(f"modules were imported that this way must not need: {', '.join(answer['foreign'][:5])}")
    for outcome in answer["outcomes"]:
        if not outcome["ok"]:
            problems += [f"{outcome['name']}: {outcome['error']}", *outcome["warnings"]]
            continue
        notes.append(f"{outcome['name']}: {outcome['class']} in {outcome['seconds']:.1f} s")
        notes += outcome["warnings"]
    difference = _difference(samples)
    if not problems and difference:
        problems.append(f"the same seed does not give the same sample twice: {difference}")
    return problems, notes


def agreement(tried: Sequence[Result]) -> Result:
    """Whether all ways drew the same samples."""
    failed = [result.way for result in tried if not result.ok]
    samples = [sample for result in tried for sample in result.samples]
    if failed:
        return Result("same samples in all ways", False, f"not comparable: {'; '.join(failed)} failed", 0.0)
    difference = _difference(samples)
    detail = difference or f"{len(samples)} samples of shape {samples[0].shape}, equal value by value"
    return Result("same samples in all ways", not difference, detail, 0.0)


def same_samples(one: Sequence[Result], other: Sequence[Result]) -> Result:
    """Whether two verifications, such as of a folder and of what was published from it, drew the same samples."""
    samples = [sample for result in (*one, *other) for sample in result.samples]
    difference = _difference(samples)
    return Result("same samples as the folder", not difference, difference or "equal value by value", 0.0)


def _difference(samples: Sequence[np.ndarray]) -> str:
    """What differs between arrays that should be equal; "" if nothing does."""
    for other in samples[1:]:
        first = samples[0]
        if first.shape != other.shape or first.dtype != other.dtype:
            return f"{first.dtype} {first.shape} and {other.dtype} {other.shape}"
        if not np.array_equal(first, other):
            gap = np.abs(first.astype(np.float64) - other.astype(np.float64)).max()
            return f"values differ by up to {gap:.3g}"
    return ""
