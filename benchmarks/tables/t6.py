"""Steps against noise: tables 1 and 2 of DDIM (Song, Meng & Ermon 2021, https://arxiv.org/abs/2010.02502), small.

    python -m benchmarks.tables.t6 --dataset_name path/to/mnist

One network, the SMALL preset of `ddpm` with the paper's linear betas, is trained once and sampled in every way: five
amounts of noise, from none (eta 0) over DDPM's (eta 1) to its larger variance (sigma-hat), by five numbers of steps,
on two grids. "uniform" is the authors', range(0, T, T // S), which ends with a call of the network at t = 0;
"trailing" begins at T - 1 and ends at T / S - 1. A cell is the Frechet distance of 1,000 samples to held-out pictures
over that of as many training pictures, in three feature spaces: a classifier's, random convolutions', and that of the
principal components of the pixels. Every cell begins with the same noise and asks for every class alike, so that cells
differ by what they do alone; nothing is guided.

The second table encodes held-out pictures, with their classes, into noise and decodes them again.
"""

from collections.abc import Callable, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.tables.cells import Cells, Row, arguments, markdown, spread, trained
from benchmarks.tables.spaces import MEAN, SPACES, frechet_ratios, shown, yardstick
from hf_genzoo.evaluation.yardstick import picture
from hf_genzoo.pipelines.ddim import ImplicitDiffusionPipeline

ROWS = (
    Row("eta0", "eta 0 (DDIM)", "ddpm", {"eta": 0.0}),
    Row("eta02", "eta 0.2", "ddpm", {"eta": 0.2}),
    Row("eta05", "eta 0.5", "ddpm", {"eta": 0.5}),
    Row("eta1", "eta 1 (DDPM)", "ddpm", {"eta": 1.0}),
    Row("sigma_hat", "sigma-hat", "ddpm", {"eta": 1.0, "sigma_hat": True}),
)
RECONSTRUCTION = Row("reconstruction", "squared error of a pixel", "ddpm")
GRIDS = ("uniform", "trailing")
STEPS = (5, 10, 20, 50, 100)
RECONSTRUCTION_STEPS = (10, 20, 50, 100, 200, 500)
SAMPLES, BACK = 1000, 100
BATCH = 100  # of 250 the activations leave the processor's cache: a picture takes 1.9 times as long
PAPER = {  # Frechet distance on CIFAR-10 in 10, 20, 50 and 100 steps, quadratic grid
    "eta0": ("", "13.36", "6.84", "4.67", "4.16"),
    "eta02": ("", "14.04", "7.11", "4.77", "4.25"),
    "eta05": ("", "16.66", "8.35", "5.25", "4.46"),
    "eta1": ("", "41.07", "18.36", "8.01", "5.78"),
    "sigma_hat": ("", "367.43", "133.37", "32.72", "9.99"),
}
PAPER_RECONSTRUCTION = ("0.014", "0.0065", "0.0023", "0.0009", "0.0004", "0.0001")
NETWORK: dict[str, Any] = {
    "preset": "small",
    "class_column": "label",
    "ddpm_beta_schedule": "linear",
    "max_train_steps": 16000,
    "checkpointing_steps": 500,
    "checkpoints_total_limit": 1,
}


class Table:
    """The network, and the held-out pictures that its samples are measured against.

    Args:
        dataset: Name or folder of the data.
        output_dir: Where the network, and grids of samples, go.
        changes: Of the network's settings.
    """

    def __init__(self, dataset: str, output_dir: Path, **changes: Any) -> None:
        self.output_dir = output_dir
        self.record = trained("ddpm", output_dir / "net", **{**NETWORK, "dataset_name": dataset, **changes})
        self.pipeline: Any = ImplicitDiffusionPipeline.from_pretrained(output_dir / "net")
        self.pipeline.set_progress_bar_config(disable=True)
        learnt = self.record["args"]
        flags = {name: learnt[name] for name in ("dataset_name", "class_column", "num_channels", "resolution")}
        self.yardstick = yardstick(SAMPLES, **flags)

    def sampled(self, row: Row, grid: str, steps: int, seed: int) -> dict[str, Any]:
        """The Frechet ratios of samples; their grid is saved."""
        generator, drawn = torch.Generator().manual_seed(seed), []
        x_T = torch.randn(SAMPLES, *self.pipeline.latent_shape, generator=generator)
        for start in range(0, SAMPLES, BATCH):
            images = self.pipeline(
                class_labels=[i % 10 for i in range(start, min(start + BATCH, SAMPLES))],
                latents=x_T[start : start + BATCH],
                num_inference_steps=steps,
                timestep_spacing=grid,
                generator=generator,
                output_type="np",
                **row.settings,
            ).images
            drawn.append((images * 255).round().astype(np.uint8).transpose(0, 3, 1, 2))
        samples = np.concatenate(drawn)
        picture(samples).save(self.output_dir / f"{row.key}-{grid}-{steps}-{seed}.png")
        ratios = frechet_ratios(self.yardstick, samples)
        return {"frechet_ratio": ratios, "samples": len(samples), **self._training()}

    def reconstructed(self, grid: str, steps: int, seed: int) -> dict[str, Any]:
        """The squared error of held-out pictures that were encoded and decoded."""
        held_out = self.yardstick.held_out
        rows = np.random.default_rng(seed).permutation(len(held_out.values))[:BACK]
        x = torch.from_numpy(np.ascontiguousarray(held_out.values[rows])).float() / 255
        how = {"num_inference_steps": steps, "timestep_spacing": grid}
        if held_out.labels is not None:
            how["class_labels"] = held_out.labels[rows].tolist()
        back = self.pipeline.reconstruct(x, output_type="pt", **how).images
        return {"squared_error": (back - x).square().mean().item(), "pictures": len(x), **self._training()}

    def _training(self) -> dict[str, Any]:
        return {"steps": self.record["steps"], "seconds": round(self.record["seconds"], 1)}


def fill(cells: Cells, rows: Sequence[Row], seeds: Sequence[int], make: Callable[[], Table]) -> None:
    """Measure what is missing; the network is trained, or read, only if anything is."""
    kept: list[Table] = []

    def measure(row: Row, column: str, seed: int) -> dict[str, Any]:
        kept.extend([] if kept else [make()])
        grid, steps = column.split("-")
        if row is RECONSTRUCTION:
            return kept[0].reconstructed(grid, int(steps), seed)
        return kept[0].sampled(row, grid, int(steps), seed)

    cells.fill(rows, [f"{grid}-{steps}" for grid in GRIDS for steps in STEPS], seeds, measure)
    back = [f"{grid}-{steps}" for grid in GRIDS for steps in RECONSTRUCTION_STEPS]
    cells.fill([RECONSTRUCTION], back, seeds, measure)


def table(cells: Cells) -> str:
    """One table a grid, one of what comes back, and what of the paper holds."""
    parts = []
    for grid in GRIDS:
        lines = [
            [row.title, *(_ratios(cells, row, grid, steps) for steps in STEPS), *PAPER[row.key][1:]] for row in ROWS
        ]
        head = [f"{grid}: {' / '.join(SPACES)}", *(f"S = {steps}" for steps in STEPS)]
        parts.append(markdown([*head, *(f"paper (quadratic), {steps}" for steps in STEPS[1:])], lines))
    lines = [[grid, *(_error(cells, grid, steps) for steps in RECONSTRUCTION_STEPS)] for grid in GRIDS]
    lines.append(["paper, CIFAR-10", *PAPER_RECONSTRUCTION])
    head = ["encoded and decoded: squared error", *(f"S = {steps}" for steps in RECONSTRUCTION_STEPS)]
    parts.append(markdown(head, lines))
    said = {space: claims(cells, space) for space in (*SPACES, MEAN)}
    for claim in said[MEAN]:
        counts = (f"{space} {_verdict(found[claim])}" for space, found in said.items())
        parts.append(f"- {claim}: {', '.join(counts)} comparisons")
    parts.append(f"- {RETURNS}: {_verdict(returns(cells))} comparisons\n")
    if found := cells.read(ROWS[0].key, f"{GRIDS[0]}-{STEPS[0]}"):
        parts.append(
            f"Network: {found[0]['steps']:,} steps, {found[0]['seconds']:,.0f} seconds; "
            f"{found[0]['samples']:,} samples a cell.\n"
        )
    return "\n".join(parts)


def claims(cells: Cells, space: str) -> dict[str, list[bool]]:
    """Each claim on the samples, in one space, with the comparisons it consists of: every pair of what it orders."""

    def ratio(key: str, grid: str, steps: int) -> float:
        found = cells.read(key, f"{grid}-{steps}")
        return float(np.mean([cell["frechet_ratio"][space] for cell in found])) if found else float("nan")

    etas, steps_up = [row.key for row in ROWS[:-1]], list(combinations(STEPS, 2))
    hat = ROWS[-1].key
    return {
        **{
            f"{grid}, every row: more steps are better": _known(
                [(ratio(row.key, grid, more), ratio(row.key, grid, few)) for row in ROWS for few, more in steps_up]
            )
            for grid in GRIDS
        },
        **{
            f"{grid}, up to 20 steps: more noise is worse from eta 0 to 1": _known(
                [
                    (ratio(less, grid, steps), ratio(more, grid, steps))
                    for steps in STEPS[:3]
                    for less, more in combinations(etas, 2)
                ]
            )
            for grid in GRIDS
        },
        "uniform: sigma-hat is the worst row at every number of steps": _known(
            [(ratio(key, "uniform", steps), ratio(hat, "uniform", steps)) for steps in STEPS for key in etas]
        ),
        "sigma-hat is better on the trailing grid than on the uniform one, at every number of steps": _known(
            [(ratio(hat, "trailing", steps), ratio(hat, "uniform", steps)) for steps in STEPS]
        ),
    }


RETURNS = "pictures come back more exactly with more steps, on both grids"


def returns(cells: Cells) -> list[bool]:
    """The comparisons of what is encoded and decoded."""

    def error(grid: str, steps: int) -> float:
        found = cells.read(RECONSTRUCTION.key, f"{grid}-{steps}")
        return float(np.mean([cell["squared_error"] for cell in found])) if found else float("nan")

    return _known(
        [(error(grid, more), error(grid, few)) for grid in GRIDS for few, more in pairwise(RECONSTRUCTION_STEPS)]
    )


def _known(pairs: Sequence[tuple[float, float]]) -> list[bool]:
    """Whether the first of each pair is the smaller one; pairs that are not measured yet are left out."""
    return [small < large for small, large in pairs if np.isfinite(small + large)]


def _verdict(holds: list[bool]) -> str:
    return f"{sum(holds)} of {len(holds)}"


def _ratios(cells: Cells, row: Row, grid: str, steps: int) -> str:
    found = cells.read(row.key, f"{grid}-{steps}")
    return shown([cell["frechet_ratio"] for cell in found]) if found else ""


def _error(cells: Cells, grid: str, steps: int) -> str:
    found = cells.read(RECONSTRUCTION.key, f"{grid}-{steps}")
    return spread([cell["squared_error"] for cell in found], 5) if found else ""


def main() -> None:
    parser = arguments(__doc__, ROWS)
    parser.add_argument("--dataset_name", default="../shared/data/mnist", help="Digits of 28 x 28 with labels.")
    parser.set_defaults(seeds=1)
    args = parser.parse_args()
    cells, output_dir = Cells("t6"), args.output_dir or Path("outputs/tables/t6")
    if not args.only_write:
        rows = [row for row in ROWS if row.key in args.rows]
        fill(cells, rows, range(args.seeds), lambda: Table(args.dataset_name, output_dir))
    cells.write(table(cells))


if __name__ == "__main__":
    main()
