"""`tools/new_family.py` writes a family that keeps the contract's file rules, or nothing at all."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import contract
import pytest

from hf_genzoo.families import Family

FLAGS = ["--title", "Scratch", "--paper", "Nobody: Nothing", "--year", "2030", "--url", "https://example.org/paper"]


def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("new_family", contract.ROOT / "tools" / "new_family.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what the tool reads and writes."""
    for name in ("hf_genzoo", "pipelines", "training_scripts", "model_cards", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "embedded")
        shutil.copytree(contract.ROOT / name, tmp_path / name, ignore=ignored)
    return tmp_path


@pytest.mark.parametrize(("parent", "own"), [("vae", False), ("wgan_gp", True), ("ddpm", False)])
def test_a_new_family_is_complete(copy: Path, parent: str, own: bool) -> None:
    words = ["scratch", "--like", parent, *FLAGS, "--root", str(copy), *(["--own_pipeline"] if own else [])]
    assert tool().main(words) == 0
    namespace: dict = {"__name__": "hf_genzoo_families_copy"}
    code = compile((copy / "hf_genzoo/families.py").read_text(), "families", "exec")
    sys.modules[namespace["__name__"]] = ModuleType(namespace["__name__"])  # dataclasses look their module up
    exec(code, namespace)
    family: Family = namespace["FAMILIES"]["scratch"]
    assert (family.year, family.parent) == (2030, None if own else parent)
    contract.check_files(family, copy)
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", "--config", str(contract.ROOT / "pyproject.toml")]
    written = [str(copy / "training_scripts/train_scratch.py"), str(copy / "tests/test_scratch.py")]
    checked = subprocess.run([*ruff, *written], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["vae", "--like", "vae"], "there is a family 'vae' already"),
        (["Bad-Name", "--like", "vae"], "use small letters"),
        (["scratch", "--like", "nothing"], "there are ddpm, "),
    ],
)
def test_bad_requests_write_nothing(
    copy: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(copy.rglob("*"))
    with pytest.raises(SystemExit):
        tool().main([*words, *FLAGS, "--root", str(copy)])
    assert message in capsys.readouterr().err
    assert sorted(copy.rglob("*")) == before
