"""Devices and processes: what differs between one laptop CPU, DDP, FSDP and DeepSpeed."""

import atexit
import copy
import gc
import logging
import os
import random
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, ProjectConfiguration
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from hf_genzoo.devices import has_gpu
from hf_genzoo.training.args import TrainingArgs

_KEPT: list[nn.Module] = []


def make_accelerator(args: TrainingArgs) -> Accelerator:
    """An `Accelerator` for these flags; gradient accumulation is counted by `Run`, not by it.

    Raises:
        ValueError: if `--report_to` names a tracker that is not installed or not known, or for DeepSpeed's stage 3.
    """
    trackers = args.report_to.split(",") if args.report_to else None
    try:
        accelerator = Accelerator(
            mixed_precision=args.mixed_precision,
            log_with=trackers,  # pyright: ignore[reportArgumentType]
            project_config=ProjectConfiguration(args.output_dir, logging_dir=f"{args.output_dir}/{args.logging_dir}"),
            # Without cpu=True accelerate does not join a gloo group on a machine that has no GPU.
            cpu=args.use_cpu or not has_gpu(),
        )
    except (ValueError, ImportError) as error:
        if trackers:
            raise ValueError(f"--report_to {args.report_to}: {error}") from error
        raise
    if is_deepspeed(accelerator):
        plugin: Any = accelerator.state.deepspeed_plugin
        if plugin.zero_stage == 3:
            raise ValueError("DeepSpeed ZeRO-3 splits the networks themselves: use FSDP for that, or zero_stage: 2")
        # It takes batch size, accumulation and clipping from its configuration, where no data loader tells it.
        plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = args.train_batch_size
        plugin.deepspeed_config["gradient_clipping"] = args.max_grad_norm
    if accelerator.num_processes > 1:
        atexit.register(_leave_group)
    return accelerator


def seed_step(seed: int, rank: int, step: int) -> None:
    """Seed every generator from (seed, rank, step): the noise of a step does not depend on the steps before it."""
    state = np.random.SeedSequence([seed, rank, step]).generate_state(3, np.uint64)
    torch.manual_seed(int(state[0] >> np.uint64(1)))
    np.random.seed(int(state[1] & np.uint64(0xFFFFFFFF)))
    random.seed(int(state[2]))


def any_process(accelerator: Accelerator, here: bool) -> bool:
    """Whether it is true on any process; every process must ask."""
    if accelerator.num_processes == 1:
        return here
    votes = accelerator.reduce(torch.tensor(float(here), device=accelerator.device), reduction="sum")
    return bool(votes > 0)  # pyright: ignore[reportOperatorIssue]


def place(nets: Mapping[str, nn.Module], args: TrainingArgs) -> None:
    """Set memory layout, compilation and recomputation of the networks as the flags ask.

    Raises:
        ValueError: if a network cannot recompute its activations.
    """
    for name, net in nets.items():
        if args.gradient_checkpointing:
            enable = getattr(net, "enable_gradient_checkpointing", None)
            if enable is None or not getattr(net, "_supports_gradient_checkpointing", False):
                raise ValueError(f"--gradient_checkpointing: {name} ({type(net).__name__}) does not support it")
            enable()
        if args.channels_last:
            net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if args.torch_compile:
            net.compile()  # in place, unlike torch.compile(net): state dicts keep their names
    if args.allow_tf32:
        torch.backends.cuda.matmul.allow_tf32 = True


def is_deepspeed(accelerator: Accelerator) -> bool:
    """Whether DeepSpeed holds networks and optimisers, and takes the optimiser step inside the backward pass."""
    return accelerator.distributed_type == DistributedType.DEEPSPEED


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether processes hold parts of the networks rather than copies."""
    return accelerator.distributed_type == DistributedType.FSDP


def plain_copies(nets: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Whole copies on the CPU, to be filled from sharded networks for previews and export."""
    return {name: copy.deepcopy(net).cpu() for name, net in nets.items()}


def full_state_dict(net: nn.Module) -> dict[str, Any]:
    """Whole weights of a plain, DDP-wrapped or sharded network, on every process; every process must ask."""
    return get_model_state_dict(net, options=StateDictOptions(full_state_dict=True))


def finish(accelerator: Accelerator, nets: Mapping[str, nn.Module]) -> None:
    """End the trackers. On several processes, networks and group are kept until the process ends.

    The last DDP network takes the group along, with the interpreter's lock held; gloo then waits for its threads, and
    for ever if one of them waits for that lock to drop what it remembers of the last barrier.
    """
    for tracker in accelerator.trackers:
        tracker.finish()
    if accelerator.num_processes > 1:
        _KEPT.extend(nets.values())


def end_process(code: int) -> int:
    """Give an exit code back; one process of several ends with it here, without freeing what `finish` kept."""
    if not torch.distributed.is_initialized():
        return code
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _leave_group() -> None:
    # gloo aborts at exit now and then when a DDP network outlives its process group.
    _KEPT.clear()
    gc.collect()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
