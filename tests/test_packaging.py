"""What a person gets who installs the wheel."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from contract import ROOT

from hf_genzoo.families import FAMILIES


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive of this checkout, the wheel built from the archive."""
    folder = tmp_path_factory.mktemp("dist")
    words = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_wheel_and_source_archive_hold_everything(distributions: Path) -> None:
    wheel = set(zipfile.ZipFile(next(distributions.glob("*.whl"))).namelist())
    wanted = {"hf_genzoo/data/embedded/digits/train.parquet", "hf_genzoo/training_scripts/accelerate_configs/ddp.yaml"}
    wanted |= {"hf_genzoo/evaluation/templates/trilemma.html", "hf_genzoo/model_cards/_measured.md"}
    wanted |= {"hf_genzoo/model_cards/apache-2.0.txt", "hf_genzoo/schedulers/implicit.py"}
    for family in FAMILIES:
        wanted |= {f"hf_genzoo/training_scripts/train_{family}.py", f"hf_genzoo/model_cards/{family}.md"}
        wanted |= {FAMILIES[family].pipeline_module.replace(".", "/") + ".py"}
    assert wanted <= wheel
    assert not [name for name in wheel if name.startswith(("tests", "benchmarks", "pipelines", "training_scripts"))]
    with tarfile.open(next(distributions.glob("*.tar.gz"))) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {"pipelines/vae.py", "training_scripts/train_vae.py", "model_cards/vae.md", "pyproject.toml"} <= names


def test_installed_wheel_trains_samples_and_exports_elsewhere(distributions: Path, tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "site packages", tmp_path / "else where"
    elsewhere.mkdir()
    wheel = next(distributions.glob("*.whl"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    code = """
import sys, hf_genzoo
assert hf_genzoo.__file__.startswith(sys.argv[1]), hf_genzoo.__file__
folder = hf_genzoo.train("wgan_gp", preset="tiny", output_dir="out", max_train_steps=2)
hf_genzoo.sample(folder, "grid.png", num_images=4)
hf_genzoo.export(hf_genzoo.load(folder), "exported", family="wgan_gp")
"""
    env = {**os.environ, "PYTHONPATH": str(target)}
    words = [sys.executable, "-c", code, str(target)]
    done = subprocess.run(words, cwd=elsewhere, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (elsewhere / "grid.png").is_file()
    assert list((elsewhere / "exported").glob("pipeline_wgan_gp_*.py"))
