"""Train a SMALL preset for as many steps as fit into a number of minutes here."""

import json
import statistics
from pathlib import Path
from typing import Any

PROBE_STEPS = 200  # of the training that tells how many steps fit into the time


def train_for(
    family: str, dataset: str, minutes: float, output_dir: Path, seed: int = 0, **changes: Any
) -> dict[str, Any]:
    """Train the family's SMALL preset; a short training before it tells how many steps fit into `minutes`.

    The number of steps is all that changes: the presets' learning rates and averages are shares of the run.

    Returns:
        What the run recorded.
    """
    import hf_genzoo

    settings = {"preset": "small", "dataset_name": dataset, "seed": seed, "overwrite_output_dir": True, **changes}
    probe = output_dir.with_name("probe")
    hf_genzoo.train(family, output_dir=str(probe), max_train_steps=PROBE_STEPS, num_validation_images=1, **settings)
    log = [json.loads(line) for line in (probe / "logs" / "metrics.jsonl").read_text().splitlines()]
    rate = statistics.median(entry["images_per_second"] for entry in log[len(log) // 2 :])
    record = json.loads((probe / "training.json").read_text())
    steps = round(minutes * 60 * rate / (record["images_seen"] / record["steps"]))
    hf_genzoo.train(family, output_dir=str(output_dir), max_train_steps=steps, **settings)
    return json.loads((output_dir / "training.json").read_text())
