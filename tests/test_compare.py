"""`genzoo compare`: the same footing for all, nothing done twice, and a report of what was measured."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_toys import tiny_ddpm, tiny_points, tiny_vae
from PIL import Image

import hf_genzoo
from hf_genzoo.cli import main
from hf_genzoo.data import DataArgs, image_dataset
from hf_genzoo.evaluation.comparison import over_seeds
from hf_genzoo.evaluation.measurement import Measurement
from hf_genzoo.evaluation.sources import PipelineSource
from hf_genzoo.evaluation.trilemma import MIXTURE, Comparison
from hf_genzoo.hub import export

QUICK: dict[str, Any] = {
    "dataset_name": "digits",
    "num_channels": 1,
    "resolution": 8,
    "num_samples": 120,
    "extractor": ["pca", "random"],
    "seeds": [0, 1],
    "use_cpu": True,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """An untrained decoder, an untrained denoiser, and a folder of real pictures."""
    root = tmp_path_factory.mktemp("models")
    pictures = image_dataset(DataArgs(dataset_name="digits", num_channels=1, resolution=8), split="validation").pixels
    (root / "real").mkdir()
    for index, picture in enumerate(pictures[::4]):
        Image.fromarray(picture[0]).save(root / "real" / f"{index:04d}.png")
    ddpm = tiny_ddpm()
    ddpm.scheduler.register_to_config(num_train_timesteps=1000)
    return [export(tiny_vae(), root / "vae"), export(ddpm, root / "ddpm"), root / "real"]


@pytest.fixture(scope="module")
def compared(models: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Comparison]:
    record = {"args": {}, "sampling": {"scheduler": "DDIMScheduler", "num_inference_steps": 2}, "family": "ddpm"}
    facts = {"seconds": 12.5, "images_seen": 640, "steps": 10, "device": "cpu", "num_processes": 1}
    (models[1] / "training.json").write_text(json.dumps({**record, **facts, "data": {"name": "digits"}}))
    output = tmp_path_factory.mktemp("report")
    folder = hf_genzoo.compare(*models, **QUICK, output_dir=str(output))
    return folder, Comparison.from_json((folder / "comparison.json").read_text())


def test_the_report_holds_every_model_and_calibration_row(compared: tuple[Path, Comparison]) -> None:
    folder, comparison = compared
    assert [row.name for row in comparison.models] == ["vae", "ddpm", "real"]
    assert {row.name for row in comparison.rows} > {MIXTURE, "real training data", "training-set copier"}
    for name in ("comparison.html", "comparison.png", "comparison.md", "comparison.csv"):
        assert (folder / name).stat().st_size > 1000
    rows = list(csv.DictReader((folder / "comparison.csv").open()))
    assert {row["name"] for row in rows} == {row.name for row in comparison.rows}
    assert comparison.seeds == (0, 1)
    assert "DDIMScheduler" in comparison.sampling["ddpm"]


def test_real_pictures_win_and_costs_are_the_recorded_and_counted_ones(compared: tuple[Path, Comparison]) -> None:
    rows = {row.name: row for row in compared[1].rows}
    ratio = {name: row.metrics["frechet_ratio"].value for name, row in rows.items()}
    assert ratio["real"] == pytest.approx(1, abs=0.5)
    assert ratio["vae"] > ratio[MIXTURE] > ratio["real"]
    assert rows["ddpm"].nfe == 2
    assert rows["vae"].nfe == 1
    assert rows["real"].ms_per_image is None
    assert rows["ddpm"].ms_per_image.value > rows["vae"].ms_per_image.value
    assert (rows["ddpm"].training_seconds, rows["ddpm"].training_images) == (12.5, 640)
    assert rows["ddpm"].num_seeds == 2
    text = (compared[0] / "comparison.md").read_text()
    assert "real has better quality than vae" in text.replace("vae has better", "")


def test_a_second_time_draws_and_scores_nothing(
    models: list[Path], compared: tuple[Path, Comparison], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hf_genzoo.evaluation import comparison, yardstick

    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("done again")

    monkeypatch.setattr(PipelineSource, "draw", never)
    monkeypatch.setattr(yardstick.Yardstick, "score", never)
    monkeypatch.setattr(comparison, "_speeds", lambda *args: {})
    hf_genzoo.compare(*models, **QUICK, output_dir=str(tmp_path))
    again = Comparison.from_json((tmp_path / "comparison.json").read_text())
    assert [row.metrics for row in again.rows] == [row.metrics for row in compared[1].rows]


def test_over_seeds_is_the_mean_with_the_interval_of_one_draw() -> None:
    draws = [[Measurement("coverage", v, (v - 0.1, v + 0.2), "pca")] for v in (0.4, 0.6)]
    found = over_seeds(draws, "pca")["coverage"]
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.4, 0.7))
    assert list(over_seeds(draws, "random")) == ["coverage@pca"]
    bare = over_seeds([[Measurement("kernel_test_p", 0.5, None, "pca")]], "pca")["kernel_test_p"]
    assert bare.interval is None


def test_bad_input_is_named(models: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="named twice"):
        hf_genzoo.compare(models[0], models[0], **QUICK)
    with pytest.raises(ValueError, match="each once"):
        hf_genzoo.compare(models[0], **{**QUICK, "seeds": [1, 1]})
    with pytest.raises(ValueError, match="compare has no setting colour"):
        hf_genzoo.compare(models[0], colour=1)
    points = export(tiny_points(), tmp_path / "points")
    with pytest.raises(ValueError, match="holds points, not pictures"):
        hf_genzoo.compare(points, dataset_name="gaussians2d", num_samples=100)
    assert main(["compare", str(tmp_path / "nothing"), "--dataset_name", "digits"]) == 1
    assert "nothing" in capsys.readouterr().err


def test_the_command_line_prints_the_table(
    models: list[Path], compared: tuple[Path, Comparison], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(models[0]), "--dataset_name", "digits", "--num_channels", "1", "--resolution", "8", "--use_cpu"]
    words += ["true", "--num_samples", "120", "--extractor", "pca", "random", "--seeds", "0", "1"]
    assert main(["compare", *words, "--output_dir", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "| vae |" in shown
    assert str(tmp_path / "comparison.html") in shown
    assert np.isfinite(Comparison.from_json((tmp_path / "comparison.json").read_text()).models[0].nfe)
