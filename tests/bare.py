"""An interpreter like that of a person who has diffusers and not this package."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with everything that is installed here but hf_genzoo.

    Its site-packages are links to those of this interpreter; whatever has the package's name stays out, and so do .pth
    files, through which an editable install comes in.
    """
    home = tmp_path_factory.mktemp("bare") / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True, capture_output=True)
    python = home / "bin" / "python"
    asked = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", asked], check=True, capture_output=True, text=True).stdout.strip())
    for folder in dict.fromkeys(Path(path) for path in sys.path if path.endswith("site-packages")):
        for entry in folder.iterdir():
            is_ours = "hf_genzoo" in entry.name
            if not is_ours and entry.suffix != ".pth" and not (site / entry.name).exists():
                (site / entry.name).symlink_to(entry)
    done = subprocess.run([python, "-c", "import hf_genzoo"], cwd=home, capture_output=True, text=True)
    assert "No module named 'hf_genzoo'" in done.stderr, done.stderr
    return python


def together(*calls: Callable[[], T]) -> list[T]:
    """What calls give that wait for interpreters: side by side, since each keeps one core busy."""
    with ThreadPoolExecutor() as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def run_python(python: Path | str, code: str, home: Path, env: dict[str, str], *words: str) -> str:
    """Run a program with empty caches in an empty folder; what it printed."""
    home.mkdir(parents=True, exist_ok=True)
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHONPATH"))}
    env = {**plain, "HF_HOME": str(home / "hf_home"), "HF_MODULES_CACHE": str(home / "modules"), **env}
    command = [str(python), "-c", code, *words]
    done = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    return done.stdout
