"""One way of loading, tried alone: `python probe.py request.json` in a fresh interpreter.

`verify` copies this file to an empty folder and runs it there, so it imports nothing of this package unless the way is
one that uses it. It loads, samples twice with the same seed, writes both samples as arrays and what it saw as JSON.
Global generators are seeded from the operating system first: a pipeline that draws from them, instead of from the
`generator` it is given, would otherwise look repeatable in every fresh process.
"""

import importlib.abc
import inspect
import json
import random
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

NUM_SAMPLES = 2
NUM_STEPS = 4
SEED = 0


class Blocked(importlib.abc.MetaPathFinder):
    """Makes a package look not installed."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname.split(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {fullname!r} (hidden, to load as without it)", name=fullname)


def openers(way: int, origin: str, revision: str | None, class_name: str) -> dict[str, Callable[[], Any]]:
    """The calls of a way, by what a user would type."""
    hub: dict[str, Any] = {} if revision is None else {"revision": revision}
    if way == 2:
        import hf_genzoo

        calls: dict[str, Callable[[], Any]] = {"hf_genzoo.load": lambda: hf_genzoo.load(origin, **hub)}
        pipelines = __import__("hf_genzoo.pipelines", fromlist=["pipelines"])
        if class_name in dir(pipelines):
            cls = getattr(pipelines, class_name)
            calls[f"hf_genzoo.pipelines.{class_name}.from_pretrained"] = lambda: cls.from_pretrained(origin, **hub)
        return calls
    import diffusers

    generic = diffusers.DiffusionPipeline.from_pretrained  # type: ignore[attr-defined]
    if way == 1:
        name = "DiffusionPipeline.from_pretrained(trust_remote_code=True)"
        return {name: lambda: generic(origin, trust_remote_code=True, **hub)}
    named = getattr(diffusers, class_name).from_pretrained
    return {
        "DiffusionPipeline.from_pretrained": lambda: generic(origin, **hub),
        f"{class_name}.from_pretrained": lambda: named(origin, **hub),
    }


def pictures(count: int) -> list[Any]:
    """Small pictures to work on, for pipelines that take pictures."""
    from PIL import Image

    return [Image.linear_gradient("L").resize((16, 12)).rotate(180 * number) for number in range(count)]


def needs_picture(pipeline: Any) -> bool:
    """Whether a pipeline's call must be given a picture; it may take one for another task."""
    image = inspect.signature(type(pipeline).__call__).parameters.get("image")
    return image is not None and image.default is image.empty


def arguments(pipeline: Any) -> dict[str, Any]:
    """Arguments for a small repeatable sample, out of what the pipeline's `__call__` takes."""
    import torch

    parameters = inspect.signature(pipeline.__call__).parameters
    if "generator" not in parameters:
        raise TypeError(f"{type(pipeline).__name__}.__call__ takes no generator, so its output cannot be repeated")
    chosen: dict[str, Any] = {"generator": torch.Generator().manual_seed(SEED)}
    offers = {"batch_size": NUM_SAMPLES, "num_inference_steps": NUM_STEPS, "output_type": "np"}
    if getattr(getattr(getattr(pipeline, "unet", None), "config", None), "num_class_embeds", None):
        offers["class_labels"] = [0] * NUM_SAMPLES
    if needs_picture(pipeline):
        offers["image"] = pictures(NUM_SAMPLES)
    chosen |= {name: value for name, value in offers.items() if name in parameters}
    required = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and name not in chosen
    ]
    if required:
        raise TypeError(f"{type(pipeline).__name__}.__call__ needs {', '.join(required)}, which verify cannot invent")
    return chosen


def sample(pipeline: Any) -> Any:
    """One small sample as an array: (B, H, W, C) for pictures, (B, 2) for points."""
    import numpy as np

    if hasattr(pipeline, "set_progress_bar_config"):
        pipeline.set_progress_bar_config(disable=True)
    values = np.asarray(pipeline(**arguments(pipeline))[0])
    if values.dtype == object or values.size == 0:
        raise TypeError(f"{type(pipeline).__name__} gave no array: {values!r:.200}")
    if not np.isfinite(values).all():
        raise ValueError(f"{type(pipeline).__name__} gave values that are not finite")
    return values


def foreign_modules(way: int) -> list[str]:
    """Modules that must not have been imported in this way."""
    banned = "diffusers_modules" if way != 1 else "hf_genzoo"
    loaded = [name for name in sys.modules if name.split(".")[0] == banned]
    return [name for name in loaded if name.count(".") > 1 or banned == "hf_genzoo"]


def try_call(name: str, call: Callable[[], Any], folder: Path, number: int) -> dict[str, Any]:
    """Load and sample twice; what came of it."""
    import numpy as np

    start = time.perf_counter()
    outcome: dict[str, Any] = {"name": name, "ok": False, "samples": []}
    caught: list[Any] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            pipeline = call()
        outcome["class"] = f"{type(pipeline).__module__}.{type(pipeline).__name__}"
        for draw in range(2):
            path = folder / f"sample_{number}_{draw}.npy"
            np.save(path, sample(pipeline), allow_pickle=False)
            outcome["samples"].append(str(path))
        outcome["ok"] = True
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        outcome["error"] = f"{type(error).__name__}: {error} (at {frame.filename}:{frame.lineno})"
    messages = [str(warning.message) for warning in caught]
    outcome["warnings"] = [message for message in messages if "exported with another version" in message]
    outcome["seconds"] = time.perf_counter() - start
    return outcome


def main(request_file: Path) -> None:
    """Run the request and write `answer.json` beside it."""
    request = json.loads(request_file.read_text(encoding="utf-8"))
    way = request["way"]
    if way != 2:
        sys.meta_path.insert(0, Blocked("hf_genzoo"))
    import numpy as np
    import torch

    random.seed()
    np.random.seed()
    torch.seed()
    calls = openers(way, request["origin"], request["revision"], request["class_name"])
    outcomes = [try_call(*item, request_file.parent, number) for number, item in enumerate(calls.items())]
    answer = {"outcomes": outcomes, "foreign": foreign_modules(way)}
    (request_file.parent / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
