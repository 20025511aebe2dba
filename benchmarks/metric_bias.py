"""Which metric to trust: does it stay the same as samples are added, and does it put generators into their order?

    python -m benchmarks.metric_bias --dataset path/to/mnist --output_dir outputs/bench-metric-bias

The generators are real pictures spoilt by a known amount, so their order is known: a growing share is replaced by
draws of a PCA mixture (fidelity), a growing share is moved to half of the classes (variety), a growing noise is added
to all (noise). Every metric sees them through every extractor. After Chong & Forsyth 2020 (bias in N) and Stein et al.
2023, table 11 (ranking).

Extractors and mixture are fitted to one part of the training split, the real pictures of both sides come from the
rest.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from hf_genzoo.data import DataArgs
from hf_genzoo.data.fingerprint import cache_root, digest
from hf_genzoo.evaluation.baselines import pca_mixture
from hf_genzoo.evaluation.distances import frechet_distance, frechet_distance_infinity, sliced_wasserstein
from hf_genzoo.evaluation.extractors import Extractor, get_extractor
from hf_genzoo.evaluation.kernels import cmmd, kernel_distance
from hf_genzoo.evaluation.metrics import METRICS
from hf_genzoo.evaluation.neighbours import overlap
from hf_genzoo.evaluation.reference import load_reference
from hf_genzoo.evaluation.scores import frechet_ratio, unit_length
from hf_genzoo.evaluation.two_sample import classifier_test

Array = NDArray[np.float64]
Pictures = NDArray[np.uint8]

SHARES = {
    "fidelity": (0.0, 0.03, 0.06, 0.12, 0.25, 0.5),
    "variety": (0.0, 0.06, 0.12, 0.25, 0.5, 1.0),
    "noise": (0.0, 4.0, 8.0, 16.0, 32.0, 64.0),
}
SIZES = (500, 1000, 2000, 5000, 10_000)
RANKED_AT = 1000
FLAT_LADDER, FLAT_STEP = "fidelity", 3  # the generator whose metrics are followed over N


def spoil(kind: str, amount: float, real: Pictures, labels: NDArray[np.int64], fake: Pictures, seed: int) -> Pictures:
    """Real pictures (N, C, H, W) spoilt by a known amount; `fake` are N draws of the mixture.

    For "variety", a picture of the second half of the classes is replaced by one of the first half with probability
    `amount`.
    """
    rng = np.random.default_rng(seed)
    if kind == "noise":
        noisy = real + amount * rng.standard_normal(real.shape)
        return noisy.round().clip(0, 255).astype(np.uint8)
    chosen = rng.random(len(real)) < amount
    spoilt = real.copy()
    if kind == "fidelity":
        spoilt[chosen] = fake[chosen]
        return spoilt
    first_half = np.flatnonzero(labels < (labels.max() + 1) // 2)
    moved = np.flatnonzero(chosen & (labels > labels[first_half].max()))
    spoilt[moved] = real[rng.choice(first_half, len(moved))]
    return spoilt


def metrics(real: Array, fake: Array, train: Array) -> dict[str, float]:
    """Every metric, without its interval: the spread over draws is seen here itself."""
    spread = overlap(real, fake)
    return {
        "frechet_ratio": frechet_ratio(fake, real, train),
        "frechet_distance": frechet_distance(real, fake),
        "frechet_distance_infinity": frechet_distance_infinity(real, fake, interval=False).value,
        "kernel_distance": kernel_distance(real, fake).value,
        "cmmd": cmmd(unit_length(real), unit_length(fake)).value,
        "sliced_wasserstein": sliced_wasserstein(real, fake),
        "precision": spread.precision,
        "recall": spread.recall,
        "density": spread.density,
        "coverage": spread.coverage,
        "classifier_test_accuracy": classifier_test(real, fake).statistic,
    }


class Bench:
    """Pictures of the pool, draws of the mixture, and their features by every extractor."""

    def __init__(self, dataset: str, fitted: int, seed: int = 0) -> None:
        args = DataArgs(dataset_name=dataset, class_column="label", num_channels=1, resolution=28)
        reference = load_reference(args)
        self.train = reference.train
        order = np.random.default_rng(seed).permutation(len(self.train.values))
        part, self.pool = order[:fitted], order[fitted:]
        fitting = self.train.take(np.sort(part))
        self.extractors: list[Extractor] = [
            get_extractor(
                name,
                train_images=fitting.values,
                train_labels=fitting.labels,
                class_names=reference.class_names,
                data_fingerprint=digest(fitting.key),
                cache_dir=cache_root(None),
            )
            for name in ("classifier", "random", "pca")
        ]
        self.mixture = pca_mixture(fitting.values, 20_000, seed=seed)

    def draw(self, count: int, kind: str, amount: float, repeat: int) -> tuple[Pictures, Pictures, Pictures]:
        """(held-out, spoilt, training) pictures, `count` each and none twice, all from the pool."""
        rng = np.random.default_rng([repeat, count])
        rows = rng.permutation(self.pool)[: 3 * count].reshape(3, count)
        real, source, train = (np.asarray(self.train.values[part]) for part in rows)
        assert self.train.labels is not None
        fake = self.mixture[rng.permutation(len(self.mixture))[:count]]
        return real, spoil(kind, amount, source, self.train.labels[rows[1]], fake, seed=repeat), train

    def measure(self, count: int, kind: str, amount: float, repeat: int) -> dict[str, dict[str, float]]:
        """Every metric of one draw by every extractor."""
        pictures = self.draw(count, kind, amount, repeat)
        found = {}
        for extractor in self.extractors:
            real, fake, train = (
                np.asarray(extractor(part, progress=False).values, dtype=np.float64) for part in pictures
            )
            found[extractor.name] = metrics(real, fake, train)
        return found


def run(dataset: str, output_dir: Path, repeats: int, fitted: int) -> None:
    """Measure what is not measured yet, one line of cells.jsonl each, and write the table."""
    output_dir.mkdir(parents=True, exist_ok=True)
    path = output_dir / "cells.jsonl"
    done = {tuple(json.loads(line)["cell"]) for line in path.read_text().splitlines()} if path.exists() else set()
    wanted = [(RANKED_AT, k, a, r) for r in range(repeats) for k, amounts in SHARES.items() for a in amounts]
    followed = SHARES[FLAT_LADDER][FLAT_STEP]
    wanted += [(n, FLAT_LADDER, a, r) for n in SIZES for a in (0.0, followed) for r in range(3 if n < 10_000 else 1)]
    wanted = list(dict.fromkeys(cell for cell in wanted if cell not in done))
    if wanted:
        bench = Bench(dataset, fitted)
        for index, cell in enumerate(wanted):
            started = time.perf_counter()
            found = bench.measure(*cell)
            with path.open("a") as file:
                file.write(json.dumps({"cell": cell, "metrics": found}) + "\n")
            print(f"{index + 1}/{len(wanted)}: {cell}, {time.perf_counter() - started:.1f} s", flush=True)
    cells = [json.loads(line) for line in path.read_text().splitlines()]
    (output_dir / "results.md").write_text(table(cells))
    print("\n" + table(cells))


def table(cells: list[dict]) -> str:
    """Bias and ranking of every metric by every extractor, the best ranking first."""
    sizes = sorted({cell["cell"][0] for cell in cells})
    followed = SHARES[FLAT_LADDER][FLAT_STEP]
    rows = []
    for extractor in cells[0]["metrics"]:
        for name in cells[0]["metrics"][extractor]:
            read = _reader(cells, extractor, name)
            over_n = [float(np.mean(read(n, FLAT_LADDER, followed))) for n in sizes]
            change = abs(over_n[-1] / over_n[0] - 1) if over_n[0] > 0 else None  # unbiased ones may be negative
            taus = [_tau(read, kind, METRICS[name].better) for kind in SHARES]
            rows.append((extractor, name, over_n, change, taus))
    rows.sort(key=lambda row: -np.mean(row[4]))
    head = [
        "metric",
        "extractor",
        *(f"N = {n:,}" for n in sizes),
        "change",
        *(f"tau, {kind}" for kind in SHARES),
        "mean",
    ]
    lines = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 2)]
    for extractor, name, over_n, change, taus in rows:
        values = [f"{value:.3g}" for value in over_n]
        ranks = [f"{tau:.2f}" for tau in (*taus, float(np.mean(taus)))]
        lines.append("| " + " | ".join([METRICS[name].title, extractor, *values, _percent(change), *ranks]) + " |")
    return "\n".join(lines) + "\n"


def _percent(change: float | None) -> str:
    return "-" if change is None else f"{change:.0%}"


def _reader(cells: list[dict], extractor: str, name: str) -> Callable[[int, str, float], list[float]]:
    def read(count: int, kind: str, amount: float) -> list[float]:
        fitting = [cell for cell in cells if cell["cell"][:3] == [count, kind, amount]]
        return [cell["metrics"][extractor][name] for cell in fitting]

    return read


def _tau(read: Callable[[int, str, float], list[float]], kind: str, better: str) -> float:
    """Mean over draws of Kendall's tau between the amount of spoiling and the metric; 1 is the right order."""
    columns = np.array([read(RANKED_AT, kind, amount) for amount in SHARES[kind]])
    if better == "ideal":
        columns = np.abs(columns - 1)
    sign = -1 if better == "higher" else 1
    return float(np.mean([kendalltau(range(len(columns)), sign * draw).statistic for draw in columns.T]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--dataset", required=True, help="Hub name or folder of MNIST: 50,000 training pictures or more."
    )
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/bench-metric-bias"), help="Cells and table.")
    parser.add_argument("--repeats", type=int, default=10, help="Draws of every generator at N = 1,000.")
    parser.add_argument(
        "--fitted", type=int, default=20_000, help="Pictures that extractors and mixture are fitted to."
    )
    args = parser.parse_args()
    run(args.dataset, args.output_dir, args.repeats, args.fitted)


if __name__ == "__main__":
    main()
