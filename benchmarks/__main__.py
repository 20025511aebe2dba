"""Run the quick measurements one after the other and print them; nothing else should run on the machine meanwhile."""

import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import imports, memory, throughput, training_loop

MEASUREMENTS: dict[str, Callable[[], dict[str, float]]] = {
    "imports": imports.measure,
    "training_loop": training_loop.measure,
    "feeding": throughput.feeding,
    "presets": throughput.presets,
    "memory": memory.small_training,
    "streaming": memory.streaming,
}


def main(names: list[str]) -> None:
    """Measure what is named, or everything, and keep the figures in outputs/benchmarks.json."""
    if unknown := sorted(set(names) - set(MEASUREMENTS)):
        raise SystemExit(f"unknown measurements {', '.join(unknown)}; there are {', '.join(MEASUREMENTS)}")
    path = Path("outputs/benchmarks.json")
    path.parent.mkdir(exist_ok=True)
    found = json.loads(path.read_text()) if path.exists() else {}
    found["machine"] = {
        "processor": platform.processor() or platform.machine(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    for name in names or MEASUREMENTS:
        found[name] = MEASUREMENTS[name]()
        print(name, *(f"  {key:<34} {value:10.2f}" for key, value in found[name].items()), sep="\n", flush=True)
        path.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
