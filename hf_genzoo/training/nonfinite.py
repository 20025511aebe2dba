"""Looking out for losses that are NaN or infinite, without stalling a GPU to look."""

import math

import torch
from accelerate import Accelerator

from hf_genzoo.training.processes import any_process


class LossWatch:
    """Notices losses and gradients that are not finite.

    Where reading a value is free (on a CPU), or skipping is allowed, every optimiser step is judged. Elsewhere a doubt
    is carried along on the device and settled when values are read anyway: at log entries and before checkpoints.

    Args:
        accelerator: Supplies the device, the processes that must agree, and whether losses are scaled (fp16).
        allowed: Optimiser steps that may be skipped before the run stops.
    """

    def __init__(self, accelerator: Accelerator, allowed: int) -> None:
        self.skipped = 0
        self._accelerator = accelerator
        self._allowed = allowed
        self._bad_term: str | None = None
        self._doubt = torch.zeros((), device=accelerator.device)  # NaN once a loss was not finite

    @property
    def judges_each_step(self) -> bool:
        """Whether `judge` looks; otherwise `settle` does."""
        return self._accelerator.device.type == "cpu" or self._allowed > 0

    def see(self, term: str, value: torch.Tensor) -> None:
        """Look at one term of a micro-batch's loss."""
        if not self.judges_each_step:
            self._doubt = self._doubt + value.detach().float().sum() * 0
        elif self._bad_term is None and not torch.isfinite(value.detach()).all():
            self._bad_term = term

    def judge(self, norm: torch.Tensor | float | None, where: str) -> str | None:
        """Decide, on all processes alike, whether an optimiser step must be skipped, and count it.

        Args:
            norm: Norm of the gradients, if it was computed.
            where: Family, step and optimiser, for the message.

        Returns:
            What to tell the user about a skipped step; None if the step is sound.

        Raises:
            FloatingPointError: if more steps are bad than may be skipped.
        """
        if not self.judges_each_step:
            return None
        scaled = self._accelerator.scaler is not None  # fp16: infinite gradients are the scaler's everyday business
        if self._bad_term is None and norm is not None and not scaled and not math.isfinite(norm):
            self._bad_term = "gradient norm"
        if not any_process(self._accelerator, self._bad_term is not None):
            return None
        self.skipped += 1
        what = f"{where}: {self._bad_term or 'a term on another process'} is not finite"
        self._bad_term = None
        if self.skipped > self._allowed:
            raise FloatingPointError(
                f"{what} (skipped steps allowed: {self._allowed}). Lower --learning_rate, check the data, or allow "
                f"more with --max_nonfinite_steps; the weights are those before this step"
            )
        return f"{what}: step skipped ({self.skipped} so far)"

    def settle(self, where: str) -> None:
        """Stop before poisoned weights are logged or saved.

        Raises:
            FloatingPointError: if a loss since the last call was not finite and nobody looked at it.
        """
        if self.judges_each_step:
            return
        if any_process(self._accelerator, not bool(torch.isfinite(self._doubt))):
            raise FloatingPointError(
                f"{where}: a loss since the last log entry was not finite; resume from the last checkpoint, with "
                f"--max_nonfinite_steps N to find the step and skip it"
            )
