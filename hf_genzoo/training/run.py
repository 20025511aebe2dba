"""`Run`: the chores of a training loop. The loop itself, and everything the paper says, stays in the script.

    run = Run(args, nets={"unet": unet}, optimizers={"unet": adam(unet, args)}, data=data, export=export)
    for _ in run.steps():                      # between steps: log, checkpoint, preview
        for batch in run.update("unet"):       # the micro-batches of one optimiser step
            run.backward(loss)

Noise is a function of (seed, rank, step): every step reseeds the generators, so a resumed run needs no generator state
and draws what the uninterrupted one would have drawn. Data order is the data's own endless seeded order.
"""

import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from diffusers import DiffusionPipeline
from PIL import Image
from torch import nn
from tqdm.auto import tqdm

from hf_genzoo.data import Data
from hf_genzoo.images import image_grid
from hf_genzoo.training import checkpoint, record
from hf_genzoo.training.args import FREE_ON_RESUME, TrainingArgs
from hf_genzoo.training.averages import Averages
from hf_genzoo.training.metrics import MetricLog
from hf_genzoo.training.nonfinite import LossWatch
from hf_genzoo.training.optimizers import schedule
from hf_genzoo.training.ownership import match_owners, only_trainable
from hf_genzoo.training.processes import (
    any_process,
    finish,
    full_state_dict,
    is_deepspeed,
    is_sharded,
    make_accelerator,
    place,
    plain_copies,
    seed_step,
)
from hf_genzoo.training.selection import Selection, report
from hf_genzoo.training.signals import StopRequest

Nets = Mapping[str, nn.Module]


class Stateful(Protocol):
    """What a script remembers from step to step, beside networks, optimisers and data."""

    def state_dict(self) -> dict[str, Any]:
        """All of it, as tensors and plain values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to it."""
        ...


class Run:
    """One training run: devices and processes, precision, EMA, logs, checkpoints, previews, export.

    Args:
        args: The script's arguments.
        nets: Networks by name. Afterwards `run.nets` holds them prepared for device, precision and processes.
        optimizers: Optimisers by name; each owns the parameters it was built with, and no two share one.
        data: Where batches come from.
        export: Makes the pipeline to publish from the bare networks.
        preview: Draws sample pictures from that pipeline; without it there are no grids.
        ema: Names of the networks whose averaged weights are published.
        updates_per_step: Optimiser steps of one training step, where it is not 1; learning rate schedules span
            `max_train_steps` times this.
        sampling: How `preview` draws, for the record: scheduler, num_inference_steps, guidance_scale where they apply.
            The model is measured with the same settings.
        states: What the loop remembers besides, by name; each process keeps its own in checkpoints.

    Raises:
        ValueError: on unknown names, a parameter owned twice or by no network, or a resume that does not fit.
    """

    def __init__(
        self,
        args: TrainingArgs,
        *,
        nets: Nets,
        optimizers: Mapping[str, torch.optim.Optimizer],
        data: Data,
        export: Callable[[dict[str, nn.Module]], DiffusionPipeline],
        preview: Callable[[DiffusionPipeline], list[Image.Image]] | None = None,
        ema: Sequence[str] = (),
        updates_per_step: Mapping[str, int] | None = None,
        sampling: Mapping[str, Any] | None = None,
        states: Mapping[str, Stateful] | None = None,
    ) -> None:
        _check_names(nets, optimizers, ema, updates_per_step or {})
        self.args = args
        self.output_dir = Path(args.output_dir)
        self.step = 0
        self.images_seen = 0
        self._seconds = 0.0
        self._data = data
        self._export = export
        self._preview = preview
        self._sampling = dict(sampling or {})
        self._states = dict(states or {})
        self._accelerator: Accelerator = make_accelerator(args)
        self._prepare_output_dir()
        self.max_train_steps = args.max_train_steps or self._steps_of_epochs(data)

        self._bare = dict(nets)
        self._plain = plain_copies(nets) if is_sharded(self._accelerator) else None
        place(nets, args)
        self._owned = match_owners(nets, optimizers)
        if is_deepspeed(self._accelerator) and (len(nets) > 1 or len(optimizers) > 1):
            raise ValueError(f"DeepSpeed trains one network by one optimiser; {args.family} has more: use DDP or FSDP")
        self._schedules = {
            name: schedule(
                optimizer,
                args,
                num_updates=self.max_train_steps * (updates_per_step or {}).get(name, 1),
                num_processes=self._accelerator.num_processes,
            )
            for name, optimizer in optimizers.items()
        }
        prepared = self._accelerator.prepare(*nets.values(), *optimizers.values())
        prepared = list(prepared) if isinstance(prepared, tuple) else [prepared]
        self.nets: dict[str, nn.Module] = dict(zip(nets, prepared[: len(nets)], strict=True))
        self._optimizers = dict(zip(optimizers, prepared[len(nets) :], strict=True))
        if self._plain is not None:  # sharded: networks and optimisers hold new parameters now
            self._owned = match_owners(self.nets, self._optimizers)
        averaged = {name: self._bare[name] for name in ema} if args.use_ema else {}
        self._averages = Averages(
            averaged, inv_gamma=args.ema_inv_gamma, power=args.ema_power, max_decay=args.ema_max_decay
        )
        self._log = MetricLog(self._accelerator, self._logging_dir)
        self._batches = data.batches(
            batch_size=args.train_batch_size,
            seed=args.seed,
            rank=self._accelerator.process_index,
            world_size=self._accelerator.num_processes,
            device=self._accelerator.device,
        )
        self._open: str | None = None  # the optimiser whose update is under way
        self._updates = 0
        self._backwards = 0
        self._watch = LossWatch(self._accelerator, args.max_nonfinite_steps)
        self._stop_request = StopRequest()
        self.data_seconds = 0.0
        self.checkpoint_seconds = 0.0
        self._selection = Selection(args, self.output_dir, self.device) if args.eval_steps else None
        self._resume()
        if self.is_main:
            record.write(self.output_dir, self._facts())

    # What a script uses ---------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where batches arrive and networks live."""
        return self._accelerator.device

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and talks."""
        return self._accelerator.is_main_process

    def steps(self) -> Iterator[int]:
        """Yield the number of each training step still to do, counted from 1; afterwards export.

        Raises:
            SystemExit: after Ctrl-C or SIGTERM, once a checkpoint is written; status 128 + signal number.
        """
        started = time.perf_counter()
        with self._progress() as bar, self._stop_request:
            while self.step < self.max_train_steps:
                seed_step(self.args.seed, self._accelerator.process_index, self.step + 1)
                self._updates = 0
                yield self.step + 1
                self._require_closed()
                if self._updates == 0:
                    raise RuntimeError(f"{self._where()}: the step made no run.update")
                self.step += 1
                now = time.perf_counter()
                self._seconds, started = self._seconds + now - started, now
                self._between_steps(bar)
        self._finish()

    def update(self, name: str, batches: Iterable[dict[str, Any]] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the micro-batches of one optimiser step, then step that optimiser.

        Meanwhile every parameter it does not own is frozen, and gradients are exchanged between processes once, on the
        last micro-batch.

        Args:
            name: Which optimiser.
            batches: Batches kept from an earlier phase, one a micro-batch; by default new ones are drawn.

        Raises:
            KeyError: if there is no such optimiser.
            RuntimeError: if an update is still open, a micro-batch has no `run.backward`, or `batches` is too short.
            FloatingPointError: on a non-finite loss or gradient, beyond `max_nonfinite_steps`.
        """
        if name not in self._optimizers:
            raise KeyError(f"no optimiser {name!r}; there are {', '.join(self._optimizers)}")
        self._require_closed()
        self._open = name
        supply = iter(batches) if batches is not None else None
        micro_batches = self.args.gradient_accumulation_steps
        with only_trainable(self.nets, self._owned[name]):
            for index in range(micro_batches):
                batch = self._draw() if supply is None else next(supply, None)
                if batch is None:
                    raise RuntimeError(f"{self._where()}: update got {index} batches, needs {micro_batches}")
                self._backwards = 0
                with self._exchange(name, last=index == micro_batches - 1):
                    yield batch
                if self._backwards != 1:
                    raise RuntimeError(f"{self._where()}: a micro-batch needs one run.backward, had {self._backwards}")
            self._step_optimizer(name)
        self._open = None
        self._updates += 1

    def backward(self, loss: torch.Tensor, **terms: torch.Tensor) -> None:
        """Back-propagate a micro-batch's loss and log it, with any further scalar terms by name.

        Raises:
            RuntimeError: outside an update or for the second time in a micro-batch (add the losses instead).
            ValueError: if the loss is not a scalar.
        """
        if self._open is None:
            raise RuntimeError(f"{self._where()}: run.backward outside `for batch in run.update(...)`")
        if self._backwards:
            raise RuntimeError(f"{self._where()}: second run.backward in one micro-batch; add the losses instead")
        if loss.ndim != 0:
            raise ValueError(f"{self._where()}: the loss has shape {tuple(loss.shape)}; it must be a scalar")
        self._backwards = 1
        share = 1 / self.args.gradient_accumulation_steps
        prefix = f"{self._open}/" if len(self._optimizers) > 1 else ""
        for name, value in {"loss": loss, **terms}.items():
            self._log.add(prefix + name, value, share)
            self._watch.see(name, value)
        self._accelerator.backward(loss * share)

    @contextmanager
    def averaged(self) -> Iterator[dict[str, nn.Module]]:
        """Lend the bare networks with EMA weights, in evaluation mode; afterwards everything is as before."""
        modes = {name: net.training for name, net in self._bare.items()}
        with self._averages.swapped_in():
            nets = self._bare
            if self._plain is not None:  # sharded: every process takes part in gathering whole weights
                for name, net in self.nets.items():
                    self._plain[name].load_state_dict(full_state_dict(net))
                nets = self._plain
            for net in nets.values():
                net.eval()
            try:
                yield dict(nets)
            finally:
                for name, net in self._bare.items():
                    net.train(modes[name])

    # Setting up -----------------------------------------------------------------------------------------------------

    @property
    def _logging_dir(self) -> Path:
        return self.output_dir / self.args.logging_dir

    def _prepare_output_dir(self) -> None:
        if self.is_main:
            record.claim(self.output_dir, self.args)
            self._logging_dir.mkdir(parents=True, exist_ok=True)
        self._accelerator.wait_for_everyone()
        if self.args.report_to:
            self._accelerator.init_trackers(self.args.tracker_project_name, config=record.flat(self.args))

    def _steps_of_epochs(self, data: Data) -> int:
        if data.num_samples is None:
            raise ValueError("a streamed data set has no known length: set --max_train_steps")
        per_step = self.args.train_batch_size * self.args.gradient_accumulation_steps * self._accelerator.num_processes
        return max(1, self.args.num_train_epochs * -(-data.num_samples // per_step))

    # Inside an update -----------------------------------------------------------------------------------------------

    def _where(self) -> str:
        inside = f", optimiser {self._open!r}" if self._open else ""
        return f"{self.args.family or 'run'}: step {self.step + 1}{inside}"

    def _require_closed(self) -> None:
        if self._open is not None:
            raise RuntimeError(f"{self._where()}: the update was left unfinished (a break or return in its loop?)")

    def _draw(self) -> dict[str, Any]:
        started = time.perf_counter()
        batch = next(self._batches)
        self.data_seconds += time.perf_counter() - started
        number = self.args.train_batch_size * self._accelerator.num_processes
        self.images_seen += number
        self._log.count_images(number)
        return batch

    @contextmanager
    def _exchange(self, name: str, last: bool) -> Iterator[None]:
        """Exchange gradients between processes only for the networks that learn, on the last micro-batch."""
        self._accelerator.gradient_state._set_sync_gradients(last)
        with ExitStack() as stack:
            for net_name, net in self.nets.items():
                if not (last and net_name in self._owned[name].nets):
                    stack.enter_context(self._accelerator.no_sync(net))
            yield

    def _step_optimizer(self, name: str) -> None:
        optimizer, args = self._optimizers[name], self.args
        norm = None
        if self._plain is not None or is_deepspeed(self._accelerator):  # the norm is that of all shards
            norm = self._accelerator.clip_grad_norm_(self._owned[name].parameters, args.max_grad_norm or float("inf"))
        else:
            self._accelerator.unscale_gradients(optimizer)
            if args.max_grad_norm > 0:
                norm = nn.utils.clip_grad_norm_(self._owned[name].parameters, args.max_grad_norm)
        complaint = self._watch.judge(norm, self._where())
        if complaint is None:
            optimizer.step()
            if not optimizer.step_was_skipped:  # fp16: the scaler skips steps that overflow
                self._schedules[name].step()
                self._averages.update(self._owned[name].nets)
        elif self.is_main:
            tqdm.write(complaint)
        optimizer.zero_grad()

    # Between steps --------------------------------------------------------------------------------------------------

    @contextmanager
    def _progress(self) -> Iterator[tqdm]:
        with tqdm(
            total=self.max_train_steps,
            initial=self.step,
            desc=self.args.family or "training",
            unit="step",
            dynamic_ncols=True,
            disable=not self.is_main,
        ) as bar:
            yield bar

    def _between_steps(self, bar: tqdm) -> None:
        args, step = self.args, self.step
        log_now = step % args.logging_steps == 0 or step == self.max_train_steps
        if log_now:
            self._watch.settle(self._where())
            entry = self._log.write(step, self._log_extra())
            bar.set_postfix_str(_summary(entry))
        bar.update()
        # Before the checkpoint: killed in between, the resumed run evaluates this step again and finds the same.
        if args.eval_steps and (step % args.eval_steps == 0 or step == self.max_train_steps):
            self._evaluate()
        if step % args.checkpointing_steps == 0 or step == self.max_train_steps:
            self._save_checkpoint()
        if self._preview and args.validation_steps and step % args.validation_steps == 0:
            self._draw_samples(self.output_dir / "samples" / f"{step:07d}.png")
        # Processes must stop at the same step: with several, they ask each other when they meet anyway.
        ask = self._accelerator.num_processes == 1 or log_now
        if ask and any_process(self._accelerator, self._stop_request.number is not None):
            self._stop(bar)

    def _log_extra(self) -> dict[str, float]:
        extra = {f"lr/{n}": float(s.get_last_lr()[0]) for n, s in self._schedules.items()}
        return extra | ({"nonfinite_steps": float(self._watch.skipped)} if self._watch.skipped else {})

    def _stop(self, bar: tqdm) -> None:
        if self.step % self.args.checkpointing_steps:
            self._save_checkpoint()
        bar.close()
        if self.is_main:
            print(
                f"Stopped after step {self.step} of {self.max_train_steps}; the state is in "
                f"{checkpoint.checkpoint_path(self.output_dir, self.step)}. Run the same command with "
                f"--resume_from_checkpoint latest to go on."
            )
        raise SystemExit(128 + (self._stop_request.number or signal.SIGTERM))

    def _draw_samples(self, path: Path) -> None:
        with self.averaged() as nets:
            if self.is_main:
                self._draw_grid(self._export(nets), path)
        self._accelerator.wait_for_everyone()

    def _draw_grid(self, pipeline: DiffusionPipeline, path: Path) -> None:
        if self._preview is None:
            return
        pipeline.set_progress_bar_config(disable=True)
        grid = image_grid(self._preview(pipeline))
        path.parent.mkdir(parents=True, exist_ok=True)
        grid.save(path)
        self._log.log_images("samples", grid, self.step)

    def _evaluate(self) -> None:
        with self.averaged() as nets:
            if self.is_main and self._selection is not None:
                found = self._selection.consider(self.step, partial(self._export, nets), self._sampling)
                self._log.write_evaluation(self.step, found)
        self._accelerator.wait_for_everyone()

    # Checkpoints ----------------------------------------------------------------------------------------------------

    def _save_checkpoint(self) -> None:
        self._watch.settle(self._where())
        started = time.perf_counter()
        staged = checkpoint.staging_path(self.output_dir, self.step)
        final = checkpoint.checkpoint_path(self.output_dir, self.step)
        accelerator = self._accelerator
        try:
            if self.is_main:
                checkpoint.remove(staged)
            accelerator.wait_for_everyone()
            accelerator.save_state(str(staged))  # every rank: FSDP and DeepSpeed gather inside
            torch.save(self._state_dict(), staged / f"run_{accelerator.process_index}.pt")
            accelerator.wait_for_everyone()
            if self.is_main:
                checkpoint.publish(staged, final, self._facts())
        except Exception as error:
            checkpoint.remove(staged)
            raise OSError(
                f"{self._where()}: {final.name} could not be written ({error}). Earlier checkpoints are whole: free "
                f"space in {self.output_dir} and run the same command with --resume_from_checkpoint latest"
            ) from error
        accelerator.wait_for_everyone()
        if self.is_main:
            checkpoint.prune(self.output_dir, self.args.checkpoints_total_limit)
        self.checkpoint_seconds += time.perf_counter() - started

    def _state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "images_seen": self.images_seen,
            "nonfinite_steps": self._watch.skipped,
            "seconds": self._seconds,
            "data": self._batches.state_dict(),
            "log": self._log.state_dict(),
            "averages": self._averages.state_dict(),
            "schedules": {name: rates.state_dict() for name, rates in self._schedules.items()},
            "states": {name: kept.state_dict() for name, kept in self._states.items()},
        }

    def _facts(self) -> dict[str, Any]:
        facts = record.describe(self.args, self._data, self._bare, self._accelerator)
        return facts | {
            "steps": self.step,
            "images_seen": self.images_seen,
            "seconds": self._seconds,
            "loss": self._log.latest_loss,
            "sampling": self._sampling,
        }

    def _resume(self) -> None:
        wanted = self.args.resume_from_checkpoint
        if not wanted:
            return
        if wanted == "latest":
            found = checkpoint.find_latest(self.output_dir)
            if found is None:
                if self.is_main:
                    print(f"No checkpoint in {self.output_dir} yet: starting at step 1.")
                return
            folder, facts = found
        else:
            folder = Path(wanted)
            facts = checkpoint.read_manifest(folder)
        self._refuse_changes(folder, facts)
        self._accelerator.load_state(str(folder))
        state = torch.load(folder / f"run_{self._accelerator.process_index}.pt", map_location="cpu", weights_only=True)
        self.step = state["step"]
        self.images_seen = state["images_seen"]
        self._watch.skipped = state["nonfinite_steps"]
        self._seconds = state["seconds"]
        self._batches.load_state_dict(state["data"])
        self._log.load_state_dict(state["log"])
        self._averages.load_state_dict(state["averages"])
        for name, rates in self._schedules.items():
            rates.load_state_dict(state["schedules"][name])
        for name, kept in self._states.items():
            kept.load_state_dict(state["states"][name])
        if self.is_main:
            self._log.rewind(self.step)
            print(f"Resumed {folder} at step {self.step} of {self.max_train_steps}.")

    def _refuse_changes(self, folder: Path, facts: dict[str, Any]) -> None:
        free = FREE_ON_RESUME
        if self.args.lr_scheduler.startswith("constant"):
            free = free | {"max_train_steps"}  # nothing else depends on how long the run will be
        changed = checkpoint.differences(facts["args"], record.plain(self.args), free)
        current = self._facts()
        for name in ("family", "num_processes"):
            changed += checkpoint.differences({name: facts[name]}, {name: current[name]}, frozenset())
        data = {"data fingerprint": facts["data"]["fingerprint"]}
        changed += checkpoint.differences(data, {"data fingerprint": current["data"]["fingerprint"]}, frozenset())
        if changed:
            listed = "\n  ".join(changed)
            raise ValueError(
                f"{folder} was written by a different run, so resuming would not continue it:\n  {listed}\n"
                f"Use the earlier settings, or start anew in another --output_dir"
            )

    # The end --------------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        with self.averaged() as nets:
            if self.is_main:
                pipeline = self._export(nets) if self._selection is None else self._selection.load().to(self.device)
                self._draw_grid(pipeline, self.output_dir / "samples.png")
                best = {} if self._selection is None else {"best": self._selection.best}
                record.finish(self.output_dir, pipeline, self.args, self._facts() | best)
        self._accelerator.wait_for_everyone()
        if self._selection is not None:
            report(self.output_dir, self.args)
        if self.is_main:
            record.push(self.output_dir, self.args)
        finish(self._accelerator, self.nets)


def _summary(entry: Mapping[str, float]) -> str:
    """The losses and the speed, for the progress bar."""
    losses = [f"{name}={value:.4g}" for name, value in entry.items() if name.split("/")[-1] == "loss"]
    return ", ".join([*losses, f"{entry['images_per_second']:.0f} images/s"])


def _check_names(nets: Nets, optimizers: Mapping[str, Any], ema: Sequence[str], updates: Mapping[str, int]) -> None:
    if not nets or not optimizers:
        raise ValueError("Run needs at least one network and one optimiser")
    if unknown := sorted(set(ema) - set(nets)):
        raise ValueError(f"ema names {unknown}, but the networks are {sorted(nets)}")
    if unknown := sorted(set(updates) - set(optimizers)):
        raise ValueError(f"updates_per_step names {unknown}, but the optimisers are {sorted(optimizers)}")
