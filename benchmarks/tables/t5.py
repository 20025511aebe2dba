"""Exact likelihoods against a known density: table 2 of Song et al. 2021 (https://arxiv.org/abs/2011.13456), in small.

    python -m benchmarks.tables.t5 --seeds 3

Part A trains nothing: the data are eight Gaussians of width 0.1 on a ring, in 2, 8 and 32 dimensions, whose density
and score are known at every noise level. `score_sde`'s own likelihood, given that score, is compared with the density,
with the exact trace and with random ones; `flow` is the straight path of flow matching by the same solver. What is
left with the exact trace is the first time of the ODE, the solver, and for VE the prior, which is not the law at time
1, and the smallest noise level.

Part B trains the network for points on two moons: the likelihood of held-out points by the ODE, and the bound, by both
weightings of the loss.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.tables.cells import Cells, Row, arguments, markdown, spread, trained
from hf_genzoo.data import DataArgs, points_dataset
from hf_genzoo.pipelines._flow_likelihood import flow_log_density
from tests.exact_score import exact_pipeline
from tests.oracle import GaussianMixture

POINTS = {2: 500, 8: 200, 32: 100}
TIMES = (1e-2, 1e-3, 1e-5)
TRACES = ("exact", "rademacher", "gaussian")
EXACT = (
    Row("vp", "VP", "score_sde", {"sde": "vp"}),
    Row("sub_vp", "sub-VP", "score_sde", {"sde": "sub_vp"}),
    Row("ve2", "VE, sigma_max 2", "score_sde", {"sde": "ve", "sigma_max": 2.0}),
    Row("ve10", "VE, sigma_max 10", "score_sde", {"sde": "ve", "sigma_max": 10.0}),
    Row("ve50", "VE, sigma_max 50", "score_sde", {"sde": "ve", "sigma_max": 50.0}),
    Row("flow", "flow", "score_sde"),
)
WEIGHTED = {"likelihood_weighting": True}
TRAINED = tuple(
    Row(f"{sde}-{name}", f"{title}, lambda = {what}", "score_sde", {"sde": sde, "sigma_max": 10.0, **settings})
    for sde, title in (("vp", "VP"), ("sub_vp", "sub-VP"), ("ve", "VE, sigma_max 10"))
    for name, what, settings in (("std", "std^2", {}), ("g", "g^2", WEIGHTED))
)
COLUMNS = [f"d{dim}" for dim in POINTS]
HELD_OUT = 1000


def log_density(row: Row, mixture: GaussianMixture, x: Tensor, first: float, trace: str, seed: int) -> Tensor:
    """ln p(x) by the ODE, (B,) nats."""
    generator = torch.Generator().manual_seed(seed)
    if row.key != "flow":
        pipeline = exact_pipeline(mixture, **row.settings)
        return pipeline.log_likelihood(x, trace=trace, generator=generator, first_time=first)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        s = t[:, None].clamp(max=1.0 - 1e-9)  # at 1 nothing of the data is left
        denoised = mixture.denoised(x, 1.0 - s, s)
        return (x - denoised) / s

    return flow_log_density(velocity, x, first, 1.0, 1.0, trace, generator)[0]


def measure_exact(row: Row, column: str, seed: int) -> dict[str, Any]:
    """Errors of the likelihood in nats: of each first time with the exact trace, of each trace from the earliest."""
    dim = int(column[1:])
    mixture = GaussianMixture.ring(dim=dim)
    x = mixture.sample(POINTS[dim], torch.Generator().manual_seed(seed))
    true = mixture.log_density(x)
    errors = {first: log_density(row, mixture, x, first, "exact", seed) - true for first in TIMES}
    random = {trace: log_density(row, mixture, x, TIMES[-1], trace, seed) - true for trace in TRACES[1:]}
    return {
        "nll": -float(true.mean()),
        "error": {f"{first:g}": float(error.abs().mean()) for first, error in errors.items()},
        "bias": {trace: float(error.mean()) for trace, error in random.items()},
        "deviation": {trace: float(error.std()) for trace, error in random.items()},
        "points": len(x),
    }


def measure_trained(row: Row, column: str, seed: int, output_dir: Path) -> dict[str, Any]:
    """Train a row on two moons, and take the likelihood of held-out points."""
    import hf_genzoo

    folder = output_dir / f"{row.key}-{column}-{seed}"
    shared = {"preset": "ring", "dataset_config_name": "moons", "likelihood_weighting": False, "seed": seed}
    record = trained(row.family, folder, **{**shared, **row.settings})
    pipeline, generator = hf_genzoo.load(folder), torch.Generator().manual_seed(seed)
    data = DataArgs(dataset_name="gaussians2d", dataset_config_name="moons")
    x = points_dataset(data, split="validation").examples(HELD_OUT)["points"]
    found = pipeline.log_likelihood(x)
    bound = pipeline.log_likelihood_bound(x, num_times=500, generator=generator)
    return {
        "nll": -float(found.mean()),
        "bound": -float(bound.mean()),
        "bound_error": float(bound.std() / len(bound) ** 0.5),
        "steps": record["steps"],
        "seconds": round(record["seconds"], 1),
    }


def exact_tables(cells: Cells) -> list[str]:
    """Part A: by the first time, and by the trace."""
    by_time, by_trace = [], []
    for column in COLUMNS:
        for row in EXACT:
            if not (found := cells.read(row.key, column)):
                continue
            head = [f"{row.title}, D = {column[1:]}"]
            errors = [spread([cell["error"][f"{first:g}"] for cell in found], 4) for first in TIMES]
            by_time.append([*head, spread([cell["nll"] for cell in found], 3), *errors, str(len(found))])
            bias = [spread([cell["bias"][trace] for cell in found], 3) for trace in TRACES[1:]]
            deviation = [spread([cell["deviation"][trace] for cell in found], 2) for trace in TRACES[1:]]
            by_trace.append([*head, *bias, *deviation])
    names = [f"error from t = {first:g}" for first in TIMES]
    randoms = [f"{what}, {trace}" for what in ("bias", "deviation of a point") for trace in TRACES[1:]]
    return [
        markdown(["exact score, exact trace; nats", "true NLL", *names, "seeds"], by_time),
        markdown([f"exact score, random trace, from t = {TIMES[-1]:g}; nats", *randoms], by_trace),
    ]


def trained_table(cells: Cells) -> str:
    """Part B."""
    lines = []
    for row in TRAINED:
        if found := cells.read(row.key, "moons"):
            nll, bound = ([cell[name] for cell in found] for name in ("nll", "bound"))
            gap = [b - n for n, b in zip(nll, bound, strict=True)]
            noise = max(cell["bound_error"] for cell in found)
            seconds = spread([cell["seconds"] for cell in found], 0)
            cells_of_row = [spread(nll, 3), spread(bound, 3), spread(gap, 3), f"{noise:.3f}"]
            lines.append([row.title, *cells_of_row, f"{found[0]['steps']:,}", seconds, str(len(found))])
    head = ["trained on two moons; nats", "NLL by the ODE", "bound", "bound - NLL", "standard error of the bound"]
    return markdown([*head, "steps", "seconds", "seeds"], lines)


def main() -> None:
    args = arguments(__doc__, (*EXACT, *TRAINED)).parse_args()
    cells, output_dir = Cells("t5"), args.output_dir or Path("outputs/tables/t5")
    if not args.only_write:
        cells.fill([row for row in EXACT if row.key in args.rows], COLUMNS, range(args.seeds), measure_exact)
        rows = [row for row in TRAINED if row.key in args.rows]
        cells.fill(rows, ["moons"], range(args.seeds), lambda *cell: measure_trained(*cell, output_dir))
    cells.write("\n".join([*exact_tables(cells), trained_table(cells)]))


if __name__ == "__main__":
    main()
