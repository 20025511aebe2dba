"""The `genzoo` command as a person types it, and how flags, presets and files of flags combine."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import hf_genzoo
from hf_genzoo import cli
from hf_genzoo.api import sample, train
from hf_genzoo.families import FAMILIES
from hf_genzoo.training.args import parse_args, read_config
from hf_genzoo.training.record import command_line
from hf_genzoo.training_scripts import train_vae


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = ("torch", "diffusers", "transformers", "datasets", "numpy")
    code = f"import sys, hf_genzoo, hf_genzoo.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_answers_well_under_a_second() -> None:
    def seconds(*words: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, capture_output=True)
        return time.perf_counter() - started

    own = min(seconds("-m", "hf_genzoo.cli", "--help") for _ in range(3))
    bare = min(seconds("-c", "pass") for _ in range(3))
    assert own - bare < 0.5


def test_lazy_names_and_unknown_ones() -> None:
    assert set(hf_genzoo.__all__) <= set(dir(hf_genzoo))
    with pytest.raises(AttributeError, match="it offers compare, evaluate, export, info"):
        _ = hf_genzoo.nothing


def test_list_shows_every_family(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    shown = capsys.readouterr().out
    for family in FAMILIES.values():
        assert family.name in shown
        assert str(family.year) in shown
    assert cli.main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(row["parameters"]["small"] for row in rows)


def test_train_sample_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a folder"
    words = ["train", "vae", "--preset", "tiny", "--max_train_steps", "2", "--output_dir", str(folder)]
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert str(folder / "samples.png") in shown
    lines = [line for line in shown.splitlines() if line.startswith(("import ", "from ", "pipe"))]
    assert len(lines) == 3
    home = os.getcwd()
    os.chdir(tmp_path)
    try:
        exec("\n".join(lines), {})
    finally:
        os.chdir(home)
    assert (tmp_path / "sample.png").is_file()
    assert cli.main(["sample", str(folder), "--num_images", "2", "--output", str(tmp_path / "grid.png")]) == 0
    assert cli.main(["sample", str(folder), "--class_labels", "1", "--guidance_scale", "2"]) == 1
    assert "VAEPipeline has no class_labels and no guidance_scale" in capsys.readouterr().err
    assert cli.main(["info", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out)["training"]["steps"] == 2


def test_sample_takes_classes_in_turn(tmp_path: Path) -> None:
    """Whatever the batch size; a class may be named or numbered."""
    settings = {"class_column": "label", "max_train_steps": 2, "output_dir": str(tmp_path / "run")}
    folder = train("ddpm", preset="tiny", **settings)
    call = {"num_images": 3, "num_inference_steps": 2}
    drawn = sample(folder, tmp_path / "drawn", class_labels=[4, "9"], batch_size=2, **call)
    fours = sample(folder, tmp_path / "fours", class_labels=[4], **call)
    nines = sample(folder, tmp_path / "nines", class_labels=[9], **call)
    for index, expected in enumerate((fours, nines, fours)):
        found, wanted = (np.asarray(Image.open(f / f"{index:05d}.png"), np.int16) for f in (drawn, expected))
        assert abs(found - wanted).max() <= 1  # rounding in a batch of another size
    assert not np.array_equal(np.asarray(Image.open(fours / "00000.png")), np.asarray(Image.open(nines / "00000.png")))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["info", "nowhere"], "there is no model_index.json"),
        (["sample", "nowhere/at/all"], "nowhere/at/all"),
        (["train", "vae", "--preset", "tiny", "--class_column", "colour"], "image, label"),
        (["train", "vae", "--preset", "tiny", "--dataset_name", "gaussians2d"], "gaussians2d"),
        (["train", "vae", "--preset", "tiny", "--dataset_split", "dev"], "train"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 1
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--learning_rate", "-1"], "--learning_rate is -1.0: it must be above 0"),
        (["--train_batch_size", "0"], "--train_batch_size is 0: it must be at least 1"),
        (["--latent_dimm", "3"], "unrecognized arguments: --latent_dimm"),
        (["--likelihood", "poisson"], "poisson"),
        (["--push_to_hub"], "--hub_model_id user/name"),
        (["--report_to", "wandb", "--hub_token", "hf_x"], "hand the token to the tracker"),
        (["--config", "nowhere.yaml"], "no such file"),
    ],
)
def test_bad_flags_are_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse_args(train_vae.Args, train_vae.PRESETS, words)
    assert message in capsys.readouterr().err


def test_later_settings_win(tmp_path: Path) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text(yaml.safe_dump({"latent_dim": 7, "learning_rate": "2e-3", "train_batch_size": 9}))
    words = ["--preset", "tiny", "--config", str(config), "--train_batch_size", "5"]
    args = parse_args(train_vae.Args, train_vae.PRESETS, words)
    assert (args.latent_dim, args.learning_rate, args.train_batch_size) == (7, 2e-3, 5)
    assert args.resolution == train_vae.TINY["resolution"]
    assert parse_args(train_vae.Args, {}, ["--num_epochs", "3", "--logger", "wandb"]).num_train_epochs == 3


def test_config_file_with_unknown_keys(tmp_path: Path) -> None:
    config = tmp_path / "settings.json"
    config.write_text(json.dumps({"latent_dimm": 7}))
    with pytest.raises(ValueError, match="unknown keys latent_dimm"):
        read_config(config, train_vae.Args)
    config.write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        read_config(config, train_vae.Args)


def test_command_line_gives_the_same_arguments_back() -> None:
    settings = {**train_vae.SMALL, "output_dir": "a folder", "use_ema": False, "hub_token": "hf_secret"}
    args = train_vae.Args(**settings)
    line = command_line(args)
    assert "hf_secret" not in line
    assert "hf_secret" not in json.dumps(args.public_dict())
    import shlex

    again = parse_args(train_vae.Args, train_vae.PRESETS, shlex.split(line)[3:])
    assert again.public_dict() == args.public_dict()


def test_python_call_refuses_unknown_settings() -> None:
    with pytest.raises(ValueError, match="no such setting"):
        hf_genzoo.train("vae", preset="tiny", latent_dimm=3)
    with pytest.raises(ValueError, match="unknown preset 'huge' of vae"):
        hf_genzoo.train("vae", preset="huge")
    with pytest.raises(ValueError, match=f"known families: {', '.join(sorted(FAMILIES))}"):
        hf_genzoo.train("vea")
