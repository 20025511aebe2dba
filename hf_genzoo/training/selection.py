"""The best weights of a run, by a metric on a held-out split, and the report on them at the end.

The extractor that chooses is not the one that reports: of many noisy numbers the best one flatters.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline

from hf_genzoo.training.args import TrainingArgs
from hf_genzoo.training.record import BEST

_FACTS = "best.json"


class Selection:
    """Keeps the best pipeline so far in `output_dir/best`, whole or not at all.

    Args:
        args: The run's flags.
        output_dir: Its folder.
        device: Where samples are drawn.

    Raises:
        ValueError: if the data is streamed, or the held-out split or the extractor cannot be had.
    """

    def __init__(self, args: TrainingArgs, output_dir: Path, device: torch.device) -> None:
        from hf_genzoo.data.fingerprint import cache_root
        from hf_genzoo.evaluation.metrics import METRICS
        from hf_genzoo.evaluation.reference import load_reference
        from hf_genzoo.evaluation.yardstick import Yardstick

        reference = load_reference(args, args.eval_split)
        count = min(args.max_eval_samples, reference.largest_count)
        self._yardstick = Yardstick(reference, count, [args.eval_extractor], cache_root(args.data_cache_dir), device)
        self._args, self._folder = args, output_dir / BEST
        self._sign = 1.0 if METRICS[args.metric_for_best_model].better == "lower" else -1.0

    @property
    def best(self) -> dict[str, Any] | None:
        """Step, value, metric, extractor and split of the best weights so far."""
        path = self._folder / _FACTS
        return json.loads(path.read_text()) if path.is_file() else None

    def consider(
        self, step: int, export: Callable[[], DiffusionPipeline], sampling: Mapping[str, Any]
    ) -> dict[str, float]:
        """Measure the present weights, and keep them if they are better than all before.

        Args:
            step: Of the training.
            export: Makes the pipeline.
            sampling: How to draw from it.

        Returns:
            Every metric by name.

        Raises:
            ValueError: if its samples cannot be measured, or the metric that chooses is not among the numbers.
        """
        from hf_genzoo.evaluation.sources import PipelineSource, Sampling
        from hf_genzoo.evaluation.subject import conditions_of

        pipeline, reference = export(), self._yardstick.reference
        asked = Sampling(**{**sampling, "seed": self._args.seed})
        source = PipelineSource(pipeline, self._args.family, str(step), asked, conditions_of(pipeline, reference))
        numbers = np.arange(self._yardstick.num_samples)
        samples = np.concatenate([source.draw(part) for part in np.array_split(numbers, -(-len(numbers) // 100))])
        found = {m.name: m.value for m in self._yardstick.distances(samples)}
        name = self._args.metric_for_best_model
        if name not in found:
            known = ", ".join(found)
            raise ValueError(
                f"--metric_for_best_model {name} cannot be had of {len(samples)} samples; there are {known}"
            )
        if self.best is None or self._sign * found[name] < self._sign * self.best["value"]:
            self._keep(export(), step, found[name])
        return found

    def load(self) -> DiffusionPipeline:
        """The best pipeline."""
        from hf_genzoo.hub import load

        return load(self._folder)

    def _keep(self, pipeline: DiffusionPipeline, step: int, value: float) -> None:
        from hf_genzoo.hub import export

        aside = self._folder.with_name(f".{BEST}.partial")
        shutil.rmtree(aside, ignore_errors=True)
        export(pipeline, aside, family=self._args.family)
        facts = {
            "step": step,
            "metric": self._args.metric_for_best_model,
            "value": value,
            "extractor": self._args.eval_extractor,
            "split": self._args.eval_split,
            "num_samples": self._yardstick.num_samples,
        }
        (aside / _FACTS).write_text(json.dumps(facts, indent=1))
        shutil.rmtree(self._folder, ignore_errors=True)
        aside.rename(self._folder)


def report(output_dir: Path, args: TrainingArgs) -> None:
    """Measure the published folder as `genzoo evaluate` does, on every process; numbers go into its card."""
    from hf_genzoo.evaluation import protocol
    from hf_genzoo.evaluation.args import EvaluateArgs
    from hf_genzoo.evaluation.command_line import summary

    given = {"data_cache_dir": args.data_cache_dir, "use_cpu": args.use_cpu}
    flags = EvaluateArgs(**protocol.recorded_flags(EvaluateArgs, [output_dir], given), **given)
    results = protocol.run(output_dir, flags)
    if results is not None:
        print(summary(results))
