"""The code blocks of a card, run as a reader would run them."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

RUN = """
import sys
from pathlib import Path

for number, path in enumerate(sorted(Path(sys.argv[1]).glob("*.py")), start=1):
    exec(compile(path.read_text(encoding="utf-8"), f"block {number}", "exec"), {"__name__": "__main__"})
    print("ran", number)
"""


def blocks(card: str, language: str) -> list[str]:
    """The card's fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", card, re.DOTALL | re.MULTILINE)


def run_python(card: str, folder: Path, environment: Mapping[str, str] | None = None) -> int:
    """Run the card's Python blocks, each with a namespace of its own, in one clean interpreter with clean caches.

    Args:
        card: Text of a README.
        folder: Empty; the blocks run in it.
        environment: Variables to set; by default the Hub is out of reach.

    Returns:
        How many blocks there are.
    """
    found = blocks(card, "python")
    written = folder / "blocks"
    written.mkdir()
    for number, block in enumerate(found):
        (written / f"{number}.py").write_text(block, encoding="utf-8")
    output = _run([sys.executable, "-c", RUN, str(written)], folder, environment or {})
    assert output.count("ran ") == len(found)
    return len(found)


def run_training(card: str, folder: Path, output_dir: Path) -> None:
    """Run the card's one shell block, a training command, for two steps into another folder."""
    (block,) = blocks(card, "bash")
    command = f"{block.rstrip()} --max_train_steps 2 --output_dir '{output_dir}'"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    _run(["bash", "-c", command], folder, {"PATH": path})


def _run(command: list[str], folder: Path, environment: Mapping[str, str]) -> str:
    env = {**os.environ, "HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1", **environment}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return done.stdout
