"""Guidance trades coverage for agreement with the text: both over the guidance scale, as a figure.

    python -m benchmarks.guidance outputs/glide

The model is one that `genzoo train glide --preset small` has left, trained on the data set scenes, whose pictures can
be read back. Each scale draws the same captions of the held-out split from the same noise. Samples are kept, so a
stopped run goes on. Writes results.json, results.md and figure.png.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables.cells import markdown
from hf_genzoo.data.fingerprint import cache_root
from hf_genzoo.evaluation import protocol, task_scores
from hf_genzoo.evaluation.args import EvaluateArgs
from hf_genzoo.evaluation.sample_store import Store
from hf_genzoo.evaluation.sources import PipelineSource, Sampling
from hf_genzoo.evaluation.subject import open_subject

SCALES = (1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
TITLES = {
    "coverage": "coverage",
    "precision": "precision",
    "text_all_correct": "all correct",
    "text_all_correct_one": "one object",
    "text_all_correct_two": "two objects",
    "text_all_correct_one_held_out": "one, new",
    "text_all_correct_two_held_out": "two, new",
    "text_all_correct_shuffled": "captions exchanged",
}


def measure(model: str, num_samples: int, scales: list[float]) -> list[dict[str, float]]:
    """For each scale the metrics of `TITLES` by name.

    Raises:
        ValueError: if the model takes no texts, or was not trained on scenes.
    """
    args = EvaluateArgs(
        **protocol.recorded_flags(EvaluateArgs, [model], {"num_samples": num_samples}), num_samples=num_samples
    )
    subject = open_subject(model)
    yardstick, found = protocol.make_yardstick(args, "cpu"), []
    numbers = np.arange(num_samples)
    for scale in scales:
        source = subject.source(
            Sampling(args.scheduler, args.num_inference_steps, scale, args.seed), yardstick.reference
        )
        samples = Store(cache_root(args.data_cache_dir), source, args.batch_size).draw(num_samples).values
        if not isinstance(source, PipelineSource) or not (
            texts := task_scores.text(samples, source, numbers, yardstick)
        ):
            raise ValueError(f"{model} takes no texts, or learnt other data than scenes")
        measured = {m.name: m.value for m in [*yardstick.distances(samples), *texts]}
        found.append({"guidance_scale": scale, **{name: measured[name] for name in TITLES if name in measured}})
        print(found[-1], flush=True)
    return found


def draw(found: list[dict[str, float]], path: Path) -> None:
    """Coverage against agreement: one point a scale."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 4.5), layout="constrained")
    for name in ("text_all_correct", "text_all_correct_one", "text_all_correct_two"):
        points = [(row[name], row["coverage"], row["guidance_scale"]) for row in found if name in row]
        axis.plot([p[0] for p in points], [p[1] for p in points], "o-", label=TITLES[name])
        for share, coverage, scale in points:
            axis.annotate(f"{scale:g}", (share, coverage), textcoords="offset points", xytext=(5, 5), fontsize=8)
    axis.set(xlabel="share of pictures that show every fact of their caption", ylabel="coverage")
    axis.legend(title="captions; numbers are guidance scales")
    axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def table(found: list[dict[str, float]]) -> str:
    """One line a scale."""
    names = [name for name in TITLES if any(name in row for row in found)]
    lines = [[f"{row['guidance_scale']:g}", *(f"{row[n]:.3f}" if n in row else "-" for n in names)] for row in found]
    return markdown(["guidance scale", *(TITLES[name] for name in names)], lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="Folder of a trained model.")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/bench-guidance"), help="Results.")
    parser.add_argument("--num_samples", type=int, default=1000, help="Pictures of each scale.")
    parser.add_argument("--scales", type=float, nargs="+", default=list(SCALES), help="Guidance scales.")
    args = parser.parse_args(argv)
    found: Any = measure(args.model, args.num_samples, args.scales)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    (args.output_dir / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    (args.output_dir / "results.md").write_text(table(found))
    draw(found, args.output_dir / "figure.png")
    print(table(found))


if __name__ == "__main__":
    main()
