"""Modes that GANs keep in the plane: table 1 of PacGAN (Lin et al. 2018, https://arxiv.org/abs/1712.04086), small.

    python -m benchmarks.tables.t1 --seeds 3

On the ring of 8 and the grid of 25 Gaussians every row trains the same two networks (three hidden layers of 256), and
the discriminator sees 128 inputs a step: a packed one sees 128 packs, as in the paper. 2,500 samples are drawn from
the averaged generator. A sample within three standard deviations of a mode is of high quality, a mode with such a
sample is kept, and the reverse KL is that of these samples' mode histogram to the uniform law; a perfect sampler
scores about the floor, (K - 1) / (2 N). WGAN-GP takes fewer steps of its generator, each after five of its critic. A
discriminator of packs of four is the slowest to see the grid's small modes: a row of its own trains it for longer.
"""

from pathlib import Path
from typing import Any

import torch

from benchmarks.tables.cells import Cells, Row, arguments, markdown, spread, trained
from hf_genzoo.data import Gaussians2D
from hf_genzoo.evaluation.points import mode_report

SETS = ("ring", "grid")
BATCH = 128
SHARED: dict[str, Any] = {
    "hidden_dim": 256,
    "max_train_steps": 10_000,
    "learning_rate": 5e-4,
    "train_batch_size": BATCH,
}
ADAM: dict[str, Any] = {"adam_beta1": 0.0, "adam_beta2": 0.99}  # WGAN-GP's are (0, 0.9), its paper's
ROWS = (
    Row("gan", "GAN", "gan", ADAM),
    Row("pacgan2", "PacGAN2", "gan", {**ADAM, "pack": 2, "train_batch_size": 2 * BATCH}),
    Row("pacgan4", "PacGAN4", "gan", {**ADAM, "pack": 4, "train_batch_size": 4 * BATCH}),
    Row("wgan_gp", "WGAN-GP", "wgan_gp", {"lambda_gp": 0.1, "max_train_steps": 4000}),
    Row(
        "rpgan",
        "relativistic, R1 + R2",
        "gan",
        {**ADAM, "loss": "relativistic", "r1_gamma": 0.1, "r2_gamma": 0.1},
    ),
)
LONG = Row("pacgan4_long", "PacGAN4 for longer", "gan", {**ROWS[2].settings, "max_train_steps": 50_000})
PAPER = {
    ("gan", "ring"): "6.3 ± 0.5 / 98.2 / 0.45 ± 0.09",
    ("gan", "grid"): "17.3 ± 0.8 / 94.8 / 0.70 ± 0.07",
    ("pacgan2", "ring"): "7.9 ± 0.1 / 95.6 / 0.07",
    ("pacgan2", "grid"): "23.8 ± 0.7 / 91.3 / 0.13",
    ("pacgan4", "ring"): "7.8 ± 0.1 / 95.9 / 0.07",
    ("pacgan4", "grid"): "24.8 ± 0.2 / 93.6 / 0.04 ± 0.01",
}
SAMPLES = 2500


def measure(row: Row, name: str, seed: int, output_dir: Path) -> dict[str, Any]:
    """Train a row on a set, and count what 2,500 samples keep of it."""
    import hf_genzoo

    folder = output_dir / f"{row.key}-{name}-{seed}"
    settings = {**SHARED, **row.settings, "dataset_config_name": name, "seed": seed}
    record = trained(row.family, folder, preset="ring", **settings)
    drawn = hf_genzoo.load(folder)(
        batch_size=SAMPLES, generator=torch.Generator().manual_seed(seed), output_type="np"
    ).images
    report = mode_report(drawn, Gaussians2D(name))
    return {
        "modes": report.modes,
        "high_quality": report.high_quality,
        "reverse_kl": report.reverse_kl,
        "reverse_kl_floor": report.reverse_kl_floor,
        "steps": record["steps"],
        "seconds": round(record["seconds"], 1),
        "settings": row.settings,
    }


def table(cells: Cells) -> str:
    """One table a set, and the real data's own row."""
    parts = []
    for name in SETS:
        law, lines = Gaussians2D(name), []
        assert law.modes is not None
        real = [mode_report(law.sample(SAMPLES, seed=seed)[0], law) for seed in range(10)]
        lines.append(
            [
                "real data",
                spread([r.modes for r in real], 1),
                spread([100 * r.high_quality for r in real], 1),
                spread([r.reverse_kl for r in real], 4),
                *("", "10", ""),
            ]
        )
        for row in (*ROWS, LONG):
            if found := cells.read(row.key, name):
                lines.append(_line(row, found, PAPER.get((row.key, name), "")))
        head = [name, f"modes of {len(law.modes)}", "high quality, %", "reverse KL", "steps", "seeds"]
        floor = f"Floor of the reverse KL: {(len(law.modes) - 1) / (2 * SAMPLES):.4f}."
        parts.append(markdown([*head, "paper: modes / % / KL"], lines) + "\n" + floor + "\n")
    return "\n".join(parts)


def _line(row: Row, found: list[dict[str, Any]], paper: str) -> list[str]:
    return [
        row.title,
        spread([cell["modes"] for cell in found], 1),
        spread([100 * cell["high_quality"] for cell in found], 1),
        spread([cell["reverse_kl"] for cell in found], 4),
        f"{found[0]['steps']:,}",
        str(len(found)),
        paper,
    ]


def main() -> None:
    args = arguments(__doc__, (*ROWS, LONG)).parse_args()
    cells, output_dir = Cells("t1"), args.output_dir or Path("outputs/tables/t1")
    if not args.only_write:
        rows = [row for row in ROWS if row.key in args.rows]
        cells.fill(rows, list(SETS), range(args.seeds), lambda *cell: measure(*cell, output_dir))
        if LONG.key in args.rows:
            cells.fill([LONG], ["grid"], [0], lambda *cell: measure(*cell, output_dir))
    cells.write(table(cells))


if __name__ == "__main__":
    main()
