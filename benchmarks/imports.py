"""How long a person waits for `import hf_genzoo` and `genzoo --help`."""

import statistics
import subprocess
import sys
import time


def measure(rounds: int = 5) -> dict[str, float]:
    """Median seconds of a bare interpreter, of the import, and of the help text, each in a new process."""
    commands = {
        "interpreter_ms": ["-c", "pass"],
        "import_ms": ["-c", "import hf_genzoo"],
        "help_ms": ["-m", "hf_genzoo.cli", "--help"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, words in commands.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - started)
    return {name: 1e3 * statistics.median(taken) for name, taken in seconds.items()}
