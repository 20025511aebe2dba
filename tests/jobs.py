"""Training runs in processes of their own, for tests that kill them or let several of them train together.

A fork server imports torch and the package once and forks each job from there, so a job starts in milliseconds; it
never computes anything itself, so no OpenMP thread is lost by the fork.
"""

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["torch", "diffusers", "hf_genzoo.training.run", "hf_genzoo.hub", "jobs", "toy"]
    + [f"hf_genzoo.training_scripts.train_{name}" for name in ("ddpm", "vae", "wgan_gp", "gan", "cgan", "score_sde")]
)


class Job:
    """A function running in `ranks` processes; more than one form a gloo group, as `torchrun` would start them."""

    def __init__(self, function: Callable[..., Any], *args: Any, log: Path, ranks: int = 1, **env: str) -> None:
        self.logs = [log.with_suffix(f".{rank}.log") for rank in range(ranks)]
        port = str(_free_port())
        self.processes = []
        for rank in range(ranks):
            settings = dict(env)
            if ranks > 1:
                settings |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
                settings |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
            process = _context.Process(target=_enter, args=(function, args, settings, str(self.logs[rank])))
            process.start()
            self.processes.append(process)

    def wait(self, timeout: float = 240) -> list[int]:
        """Exit codes of all ranks; a rank that outlives the timeout is killed, which is a failure."""
        deadline = time.monotonic() + timeout
        for process in self.processes:
            process.join(max(0.1, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                raise AssertionError(f"a job hangs:\n{self.output()}")
        return [process.exitcode for process in self.processes]

    def output(self) -> str:
        """Everything the ranks printed."""
        return "\n".join(log.read_text() for log in self.logs if log.exists())

    def succeed(self, timeout: float = 240) -> "Job":
        """Wait and insist on exit code 0 everywhere."""
        codes = self.wait(timeout)
        assert codes == [0] * len(codes), f"exit codes {codes}:\n{self.output()}"
        return self


def _enter(function: Callable[..., Any], args: tuple, env: dict[str, str], log: str) -> None:
    os.environ.update(env)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import torch

    torch.set_num_threads(1)
    try:
        function(*args)
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        sys.exit(1)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# What jobs do -------------------------------------------------------------------------------------------------------


def settings_of(family: str, output_dir: Path, **changes: Any) -> dict[str, Any]:
    """A family's TINY preset with a folder and further changes."""
    from hf_genzoo.api import script_of

    return {**script_of(family).TINY, "output_dir": str(output_dir), **changes}


def train(family: str, settings: dict[str, Any], kill_at: int | None = None) -> None:
    """Train a family; with `kill_at`, die by SIGKILL in the middle of that step."""
    from hf_genzoo.api import script_of
    from hf_genzoo.training.run import Run

    if kill_at is not None:
        backward = Run.backward

        def deadly(run: Run, *args: Any, **terms: Any) -> None:
            backward(run, *args, **terms)
            if run.step + 1 == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        Run.backward = deadly
    script = script_of(family)
    script.main(script.Args(**settings))


def save_gradients(family: str, settings: dict[str, Any], path: str) -> None:
    """Train one step and save the gradient that each optimiser first steps with."""
    import torch
    from accelerate import PartialState

    from hf_genzoo.api import script_of
    from hf_genzoo.training.run import Run

    gradients: dict[str, list[torch.Tensor]] = {}
    step_optimizer = Run._step_optimizer

    def spy(run: Run, name: str) -> None:
        gradients.setdefault(name, [p.grad.clone() for p in run._owned[name].parameters])
        step_optimizer(run, name)

    Run._step_optimizer = spy
    _share_noise()
    script = script_of(family)
    script.main(script.Args(**settings, max_train_steps=1))
    state = PartialState()
    if state.process_index == 0:
        torch.save({"gradients": gradients, "processes": state.num_processes}, path)
    if state.num_processes > 1:
        # Done. What is left is to free the networks, and gloo's destructor was seen to wait for ever there for the
        # thread of a peer that had left already.
        sys.stdout.flush()
        os._exit(0)


def _share_noise() -> None:
    """Make noise a function of (call, sample's place in the global batch), however the batch is split."""
    import numpy as np
    import torch

    from hf_genzoo.training.run import Run

    place = {"update": 0, "offset": 0, "call": 0}

    def noise(draw: Callable[[np.random.Generator, tuple], Any], shape: tuple, like: torch.dtype) -> torch.Tensor:
        place["call"] += 1
        rows = []
        for row in range(shape[0]):
            generator = np.random.default_rng([place["update"], place["call"], place["offset"] + row])
            rows.append(np.asarray(draw(generator, shape[1:])))
        return torch.as_tensor(np.stack(rows)).to(like)

    def shape_of(size: tuple) -> tuple:
        return tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else tuple(size)

    def install() -> None:
        torch.randn = lambda *size, **_: noise(lambda g, s: g.standard_normal(s), shape_of(size), torch.float32)
        torch.randn_like = lambda x, **_: noise(lambda g, s: g.standard_normal(s), tuple(x.shape), x.dtype)
        torch.rand = lambda *size, **_: noise(lambda g, s: g.random(s), shape_of(size), torch.float32)
        torch.randint = lambda high, size, **_: noise(lambda g, s: g.integers(high, size=s), size, torch.int64)

    draw, update = Run._draw, Run.update

    def counted_draw(run: Run) -> dict[str, Any]:
        batch = draw(run)
        size, world = run.args.train_batch_size, run._accelerator.num_processes
        place["offset"] = place["micro"] * size * world + run._accelerator.process_index * size
        place["call"] = 0
        place["micro"] += 1
        return batch

    def counted_update(run: Run, name: str, batches: Any = None) -> Any:
        if place["update"] == 0:
            install()
        place["update"] += 1
        place["micro"] = 0
        yield from update(run, name, batches)

    Run._draw, Run.update = counted_draw, counted_update


def losses(output_dir: Path) -> list[dict[str, Any]]:
    """Logged entries without the timings."""
    entries = [json.loads(line) for line in (output_dir / "logs" / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in entry.items() if k != "images_per_second"} for entry in entries]
