"""One request as a stream: what each step gives, then the result; it ends early when nobody wants it any more."""

import functools
import inspect
import queue
import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from PIL import Image

from .pictures import preview

_LEAST_PAUSE = 0.15  # seconds between previews: the page cannot show more
_PREVIEW_SHARE = 4  # previews may take up to a quarter of the time: those of latent models are decoded

_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Step:
    """A step is done.

    Args:
        done: Number of steps done.
        total: Number of steps.
        picture: What the samples look like now, if it is time to show it.
    """

    done: int
    total: int
    picture: Image.Image | None = None


@dataclass(frozen=True)
class Result:
    """The end: `images` as the pipeline gave them, or None where the run was stopped."""

    images: Any


class _StoppedError(Exception):
    pass


def stream(
    pipeline: DiffusionPipeline, call: Mapping[str, Any], stop: threading.Event
) -> Generator[Step | Result, None, None]:
    """Call a pipeline in a thread of its own and give what happens.

    Closing the generator, or setting `stop`, ends the computation after the step it is at. Closing does not wait for
    that, since gradio closes generators on the thread that serves everybody; the next run does.

    Args:
        pipeline: One that nobody else uses (`samplers.own_pipeline`).
        call: Arguments.
        stop: Ends the run when set, from any thread.

    Raises:
        Exception: What the pipeline raises.
    """
    events: queue.Queue[Step | Result | Exception] = queue.Queue()

    def work() -> None:
        try:
            watched = _watched(pipeline, _Watcher(pipeline, events, stop))
            with _ONE_AT_A_TIME, torch.no_grad():
                if stop.is_set():
                    raise _StoppedError
                events.put(Result(pipeline(**call, **watched).images))  # type: ignore[operator]
        except _StoppedError:
            events.put(Result(None))
        except Exception as error:
            events.put(error)

    threading.Thread(target=work, name="sampling", daemon=True).start()
    try:
        while True:
            event = events.get()
            if isinstance(event, Exception):
                raise event
            yield event
            if isinstance(event, Result):
                return
    finally:
        stop.set()


class _Watcher:
    """Takes note of every step."""

    def __init__(self, pipeline: DiffusionPipeline, events: queue.Queue, stop: threading.Event):
        self.pipeline, self.events, self.stop = pipeline, events, stop
        self.done, self.next_picture = 0, 0.0

    def __call__(self, latents: Any) -> None:
        if self.stop.is_set():
            raise _StoppedError
        self.done += 1
        started = time.monotonic()
        picture = None
        if started >= self.next_picture:
            picture = preview(self.pipeline, latents)
            now = time.monotonic()
            self.next_picture = now + max(_LEAST_PAUSE, (_PREVIEW_SHARE - 1) * (now - started))
        self.events.put(Step(self.done, max(self.done, self._total()), picture))

    def _total(self) -> int:
        # Image to image begins part of the way: such pipelines say how many steps they really take.
        said = getattr(self.pipeline, "num_timesteps", None)
        return said or len(getattr(self.pipeline.components.get("scheduler"), "timesteps", ()))


def _watched(pipeline: DiffusionPipeline, watcher: _Watcher) -> dict[str, Any]:
    """Have a watcher told of each step: by the call's callback or, for older pipelines, by the scheduler's `step`."""
    if "callback_on_step_end" in inspect.signature(type(pipeline).__call__).parameters:

        def callback(_: Any, step: int, timestep: Any, state: dict[str, Any]) -> dict[str, Any]:
            watcher(state.get("latents"))
            return {}

        return {"callback_on_step_end": callback}
    scheduler = pipeline.components.get("scheduler")
    if scheduler is not None:
        scheduler.step = _told(scheduler.step, watcher)
    return {}


def _told(step: Callable[..., Any], watcher: _Watcher) -> Callable[..., Any]:
    @functools.wraps(step)  # pipelines look at its signature
    def told(*args: Any, **kwargs: Any) -> Any:
        out = step(*args, **kwargs)
        watcher(out[0] if isinstance(out, tuple) else out.prev_sample)
        return out

    return told
