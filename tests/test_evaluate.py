"""`genzoo evaluate`: from a folder to results.json and a card whose numbers parse back; clear errors on the way."""

import json
import shutil
from pathlib import Path
from typing import Any

import jobs
import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, DiffusionPipeline
from hub_toys import tiny_ddpm, tiny_points, tiny_vae
from huggingface_hub import ModelCard
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextConfig, CLIPVisionConfig

import hf_genzoo
from hf_genzoo.cli import main
from hf_genzoo.data import DataArgs, image_dataset
from hf_genzoo.data.fingerprint import cache_root
from hf_genzoo.evaluation import task_scores
from hf_genzoo.evaluation.args import EvaluateArgs
from hf_genzoo.evaluation.extras import require
from hf_genzoo.evaluation.pictures import mean_squared_error
from hf_genzoo.evaluation.protocol import recorded_flags
from hf_genzoo.evaluation.reference import load_reference
from hf_genzoo.evaluation.sources import Conditions, PipelineSource, Sampling
from hf_genzoo.evaluation.yardstick import COPIER, MIXTURE, REAL, Yardstick
from hf_genzoo.hub import export
from hf_genzoo.hub.measured import BEGIN, END

DIGITS: dict[str, Any] = {"dataset_name": "digits", "num_channels": 1, "resolution": 8, "use_cpu": True}
QUICK: dict[str, Any] = {**DIGITS, "num_samples": 120, "extractor": ["pca", "random"]}


def numbers(results: dict[str, Any]) -> dict[tuple[str, str | None], float]:
    return {(row["name"], row["extractor"]): row["value"] for row in results["metrics"]}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = export(tiny_vae(), tmp_path_factory.mktemp("measured") / "vae")
    return folder, hf_genzoo.evaluate(folder, **QUICK)


# Results and card


def test_results_hold_what_it_takes_to_repeat_them(measured: tuple[Path, dict[str, Any]]) -> None:
    folder, results = measured
    assert json.loads((folder / "results.json").read_text()) == json.loads(json.dumps(results))
    protocol = results["protocol"]
    assert (protocol["num_samples"], protocol["seed"], protocol["resizer"]) == (120, 0, "pillow-bicubic")
    assert [extractor["name"] for extractor in protocol["extractors"]] == ["pca", "random"]
    assert all(len(extractor["hash"]) >= 16 for extractor in protocol["extractors"])
    assert results["data"]["split"] == "test"
    assert results["speed"]["network_evaluations"] == 1.0
    assert results["speed"]["ms_per_image"] > 0
    assert results["training"] is None
    assert {"torch", "diffusers", "scipy"} <= set(results["versions"])
    for row in results["metrics"]:
        assert {"value", "interval", "num_samples", "split", "extractor_hash", "seed"} <= set(row)
        if row["interval"]:
            assert row["interval"][0] <= row["value"] <= row["interval"][1], row["name"]


def test_calibration_rows_mean_what_they_say(measured: tuple[Path, dict[str, Any]]) -> None:
    rows = {row["name"]: row for row in measured[1]["calibration"]}
    found = {
        name: {m["name"]: m["value"] for m in row["metrics"] if m["extractor"] == "pca"} for name, row in rows.items()
    }
    assert 0.6 < found[REAL]["frechet_ratio"] < 1.6
    assert found[COPIER]["nearest_ratio"] < 0.01
    assert found[REAL]["nearest_ratio"] > 0.8
    assert any(verdict.startswith("copies its training data: yes") for verdict in rows[COPIER]["verdicts"])
    assert any(verdict.startswith("copies its training data: not shown") for verdict in rows[REAL]["verdicts"])
    assert found["pixel Gaussian"]["frechet_ratio"] > found[REAL]["frechet_ratio"]
    (lost,) = [remark for remark in measured[1]["remarks"] if MIXTURE in remark]  # an untrained decoder
    assert lost.startswith("This model loses to PCA + mixture")


def test_the_card_parses_back_to_the_same_numbers(measured: tuple[Path, dict[str, Any]]) -> None:
    folder, results = measured
    card = ModelCard.load(folder / "README.md")
    found = {(r.metric_type, r.metric_args.get("extractor")): r.metric_value for r in card.data.eval_results}
    assert found == numbers(results)
    assert "This model loses to PCA + mixture" in card.text
    assert "training-set copier" in card.text
    assert card.text.count(BEGIN) == card.text.count(END) == 1
    tables = [line for line in card.text.split("\n") if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)


def test_measuring_again_changes_nothing_and_new_weights_drop_the_numbers(tmp_path: Path) -> None:
    folder = export(tiny_vae(), tmp_path / "vae")
    hf_genzoo.evaluate(folder, **QUICK)
    card = (folder / "README.md").read_text()
    hf_genzoo.evaluate(folder, **QUICK)
    assert (folder / "README.md").read_text() == card
    export(tiny_vae(), folder)  # the same weights
    assert (folder / "results.json").exists()
    assert "## Measured" in (folder / "README.md").read_text()
    export(tiny_vae(seed=1), folder)
    assert not (folder / "results.json").exists()
    assert "## Measured" not in (folder / "README.md").read_text()


def test_a_stock_folder_gets_a_card_and_a_foreign_card_is_kept(tmp_path: Path) -> None:
    DDPMPipeline(tiny_ddpm().unet, DDPMScheduler()).save_pretrained(tmp_path / "stock")
    settings = {**QUICK, "scheduler": "DDIM", "num_inference_steps": 2, "extractor": ["pca"], "num_samples": 70}
    results = hf_genzoo.evaluate(tmp_path / "stock", **settings)
    assert results["speed"]["network_evaluations"] == 2.0
    assert results["protocol"]["sampling"]["scheduler"] == "DDIMScheduler"
    card = ModelCard.load(tmp_path / "stock" / "README.md")
    assert {r.metric_type: r.metric_value for r in card.data.eval_results if r.metric_args["extractor"] == "pca"} == {
        name: value for (name, extractor), value in numbers(results).items() if extractor == "pca"
    }
    (tmp_path / "stock" / "README.md").write_text("---\nlicense: mit\ntags:\n- mine\n---\n\n# Mine\n\nMy own words.\n")
    hf_genzoo.evaluate(tmp_path / "stock", **settings)
    mine = ModelCard.load(tmp_path / "stock" / "README.md")
    assert mine.data.license == "mit"
    assert "My own words." in mine.text
    assert len(mine.data.eval_results) == len(results["metrics"])


def test_class_conditional_models_are_asked_and_judged(tmp_path: Path) -> None:
    folder = export(tiny_ddpm(num_classes=11), tmp_path / "ddpm")
    results = hf_genzoo.evaluate(
        folder,
        **{**QUICK, "class_column": "label", "num_inference_steps": 2, "guidance_scale": 1.5, "num_samples": 60},
    )
    assert results["speed"]["network_evaluations"] == 4.0
    found = numbers(results)
    assert found[("conditional_accuracy_real", None)] > 0.6  # 8 x 8 pixels are enough for that
    assert found[("conditional_accuracy", None)] < 0.35  # an untrained network
    assert results["protocol"]["sampling"]["condition"].startswith("classes")


def test_reconstruction_is_that_of_the_pipeline(measured: tuple[Path, dict[str, Any]]) -> None:
    folder, results = measured
    reference = load_reference(DataArgs(dataset_name="digits", num_channels=1, resolution=8))
    held_out = Yardstick(reference, 120, ["pca"], cache_root(None)).held_out.values
    real = torch.from_numpy(held_out / 255.0).float()
    back = hf_genzoo.load(folder).reconstruct(real, output_type="np").images
    expected = mean_squared_error(back, held_out.transpose(0, 2, 3, 1) / 255.0).mean()
    assert numbers(results)[("reconstruction_mse", None)] == pytest.approx(expected, rel=1e-4)


def test_points_are_measured_by_their_density(tmp_path: Path) -> None:
    folder = export(tiny_points(), tmp_path / "ring")
    results = hf_genzoo.evaluate(folder, dataset_name="gaussians2d", num_samples=500, use_cpu=True)
    found = {name: value for (name, _), value in numbers(results).items()}
    real = {m["name"]: m["value"] for m in results["calibration"][0]["metrics"]}
    assert real["modes"] == 8
    assert real["high_quality"] > 0.97
    assert real["reverse_kl"] < 5 * real["reverse_kl_floor"]
    assert found["wasserstein_2"] > 3 * real["wasserstein_2"]
    assert "Wasserstein-2" in (folder / "README.md").read_text()


def test_a_folder_of_real_pictures_cannot_be_told_from_real(tmp_path: Path) -> None:
    args = DataArgs(dataset_name="digits", num_channels=1, resolution=8)
    pictures = image_dataset(args, split="validation").pixels[::2]  # they come class by class
    (tmp_path / "pictures").mkdir()
    for index, picture in enumerate(pictures):
        Image.fromarray(picture[0]).save(tmp_path / "pictures" / f"{index:04d}.png")
    results = hf_genzoo.evaluate(tmp_path / "pictures", **{**QUICK, "num_samples": 250})
    found = numbers(results)
    assert found[("frechet_ratio", "pca")] == pytest.approx(1, abs=0.35)
    assert found[("classifier_test_accuracy", "random")] == pytest.approx(0.5, abs=0.1)
    assert results["speed"] is None
    assert not (tmp_path / "pictures" / "README.md").exists()


def test_a_grey_model_with_an_extractor_for_colour(tmp_path: Path) -> None:
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = CLIPConfig(
        text_config=CLIPTextConfig(**vision, vocab_size=9).to_dict(),
        vision_config=CLIPVisionConfig(**vision, image_size=16, patch_size=8).to_dict(),
        projection_dim=6,
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(tmp_path / "clip")
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16).save_pretrained(tmp_path / "clip")
    folder = export(tiny_vae(), tmp_path / "vae")
    results = hf_genzoo.evaluate(folder, **{**QUICK, "extractor": [str(tmp_path / "clip")], "num_samples": 60})
    assert results["protocol"]["extractors"][0]["dim"] == 6
    assert numbers(results)[("frechet_ratio", results["protocol"]["headline"]["extractor"])] > 1


# The same numbers


def test_batches_and_processes_do_not_change_the_numbers(tmp_path: Path) -> None:
    folder = export(tiny_ddpm(num_classes=11), tmp_path / "model")
    settings = {**QUICK, "class_column": "label", "num_inference_steps": 2, "max_train_samples": 300}
    settings["data_cache_dir"] = str(tmp_path / "cache")
    found = {}
    for name, batch_size in (("whole", 100), ("small", 7), ("processes", 100)):
        for drawn in ("samples", "scores"):
            shutil.rmtree(tmp_path / "cache" / drawn, ignore_errors=True)
        args = (str(folder), {**settings, "batch_size": batch_size, "output_dir": str(tmp_path / name)})
        if name == "processes":
            jobs.Job(_evaluate, *args, log=tmp_path / "job", ranks=2).succeed()
        else:
            _evaluate(*args)
        found[name] = numbers(json.loads((tmp_path / name / "results.json").read_text()))
    assert list(found["whole"]) == list(found["small"]) == list(found["processes"])
    for key, value in found["whole"].items():
        for other in ("small", "processes"):
            assert found[other][key] == pytest.approx(value, rel=2e-3, abs=2e-3), (key, other)


def _evaluate(folder: str, settings: dict[str, Any]) -> None:
    hf_genzoo.evaluate(folder, **settings)


# Errors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"extractor": ["resnet"]}, "resnet"),
        ({"num_samples": 5000}, r"4000 in train and 500 in test; choose 2 to 500"),
        ({"split": "train"}, "is the training split"),
        ({"split": "dev"}, "no split 'dev'"),
        ({"streaming": True}, "--streaming"),
        ({"steps": 3}, "evaluate has no setting steps"),
        ({"extractor": ["inception"]}, "torch-fidelity"),
        ({"guidance_scale": 2.0}, "has no guidance_scale"),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    folder = export(tiny_vae(), tmp_path / "vae")
    with pytest.raises(ValueError, match=message):
        hf_genzoo.evaluate(folder, **{**QUICK, **settings})
    assert not (folder / "results.json").exists()


def test_samples_that_are_not_finite_leave_the_card_alone(tmp_path: Path) -> None:
    spoilt = tiny_vae()
    with torch.no_grad():
        next(spoilt.vae.decoder.parameters()).fill_(float("nan"))
    folder = export(spoilt, tmp_path / "vae")
    card = (folder / "README.md").read_text()
    with pytest.raises(ValueError, match=r"100 of 100 samples of .* hold NaN or infinite values"):
        hf_genzoo.evaluate(folder, **QUICK)
    assert (folder / "README.md").read_text() == card


def test_fewer_samples_than_dimensions_are_said(tmp_path: Path) -> None:
    folder = export(tiny_vae(), tmp_path / "vae")
    results = hf_genzoo.evaluate(folder, **{**QUICK, "num_samples": 50, "extractor": ["random"]})
    assert ("frechet_ratio", "random") not in numbers(results)
    assert ("kernel_distance", "random") in numbers(results)
    assert any(remark.startswith("No Frechet distance with random: 50 samples for") for remark in results["remarks"])


def test_the_command_line_says_what_is_wrong_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    flags = ["--dataset_name", "digits", "--resolution", "8", "--num_channels", "1", "--num_samples", "60"]
    assert main(["evaluate", str(tmp_path / "empty"), *flags]) == 1
    assert "holds neither a pipeline (no model_index.json) nor pictures" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", "--help"])
    assert stopped.value.code == 0
    assert "--num_samples" in capsys.readouterr().out


def test_the_command_line_prints_the_numbers_and_takes_recorded_flags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = export(tiny_vae(), tmp_path / "vae")
    record = {"data": {"name": "digits", "fingerprint": "x"}, "args": {**DIGITS, "dataset_split": "train"}}
    budget = {"steps": 3, "images_seen": 12, "seconds": 1.5, "device": "cpu", "num_processes": 1, "sampling": {}}
    (folder / "training.json").write_text(json.dumps({**record, **budget}))
    assert main(["evaluate", "--num_samples", "70", "--extractor", "pca", "--use_cpu", "true", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "70 samples against digits, split test" in shown
    assert "real training data" in shown
    results = json.loads((folder / "results.json").read_text())
    assert results["training"]["images_seen"] == 12
    assert results["data"]["shape"] == [1, 8, 8]


def test_other_data_than_the_model_s_bring_their_own_columns(tmp_path: Path) -> None:
    folder = export(tiny_vae(), tmp_path / "vae")
    args = {"train_data_dir": "mine/", "class_column": "animal", "dataset_split": "all", "resolution": 8}
    (folder / "training.json").write_text(json.dumps({"args": args, "sampling": {"num_inference_steps": 7}}))
    same = recorded_flags(EvaluateArgs, [folder], {"train_data_dir": "mine/"})
    assert same == {"class_column": "animal", "dataset_split": "all", "resolution": 8, "num_channels": 1} | {
        "num_inference_steps": 7
    }
    other = recorded_flags(EvaluateArgs, [folder], {"dataset_name": "digits", "num_channels": 3})
    assert other == {"resolution": 8, "num_inference_steps": 7}
    assert recorded_flags(EvaluateArgs, [folder], {})["train_data_dir"] == "mine/"


# Text


class Illustrator(DiffusionPipeline):
    """Draws the scene of each caption, so that alignment is known."""

    def __init__(self) -> None:
        super().__init__()

    def __call__(self, prompt: list[str], generator: Any = None, output_type: str = "np") -> tuple[np.ndarray]:
        from hf_genzoo.data import scenes

        known = {scene.caption: (scene, radii) for scene, radii in scenes.scenes("test")[::-1]}
        return (np.stack([scenes.render(*known[caption]) for caption in prompt]) / 255.0,)


def test_text_alignment_of_an_illustrator_is_perfect_and_of_exchanged_captions_is_not() -> None:
    args = DataArgs(dataset_name="scenes", caption_column="text", resolution=64, num_channels=3, max_train_samples=100)
    reference = load_reference(args)
    yardstick = Yardstick(reference, 80, [], cache_root(None))
    source = PipelineSource(
        Illustrator(), "illustrator", "hash", Sampling(), Conditions(captions=reference.held_out.captions)
    )
    pictures = source.draw(np.arange(80))
    found = {m.name: m for m in task_scores.text(pictures, source, np.arange(80), yardstick)}
    assert found["text_all_correct"].value == 1.0
    assert found["text_slots"].value == 1.0
    assert found["text_all_correct_shuffled"].value < 0.1
    assert 0.1 < found["text_slots_shuffled"].value < 0.7
    assert found["text_all_correct_two"].value == 1.0


def test_a_copy_of_the_folder_has_the_same_hash(measured: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    shutil.copytree(measured[0], tmp_path / "copy")
    again = hf_genzoo.evaluate(tmp_path / "copy", **QUICK)
    assert again["model"]["hash"] == measured[1]["model"]["hash"]
    assert numbers(again) == numbers(measured[1])


def test_missing_packages_are_named_before_any_work() -> None:
    with pytest.raises(ValueError, match=r'needs nonesuch: pip install "hf_genzoo\[evaluation\]"'):
        require("json", "nonesuch")
