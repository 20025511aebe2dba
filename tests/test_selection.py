"""--eval_steps: the best weights by a held-out metric are what is published, and another extractor reports on them."""

import json
from pathlib import Path
from typing import Any

import jobs
import pytest
from huggingface_hub import ModelCard

from hf_genzoo.hub.layout import model_hash
from hf_genzoo.training_scripts import train_ddpm, train_vae

SETTINGS: dict[str, Any] = {
    **train_vae.TINY,
    "max_train_steps": 12,
    "eval_steps": 3,
    "max_eval_samples": 100,
    "eval_extractor": "pca",
    "metric_for_best_model": "kernel_distance",
    "learning_rate": 0.05,
    "use_ema": False,
    "max_train_samples": 600,
    "checkpointing_steps": 4,
    "use_cpu": True,
}


def evaluations(folder: Path) -> dict[int, dict[str, float]]:
    entries = [json.loads(line) for line in (folder / "logs" / "metrics.jsonl").read_text().splitlines()]
    return {entry["step"]: entry for entry in entries if "eval/kernel_distance" in entry}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("selection") / "vae"
    jobs.Job(jobs.train, "vae", {**SETTINGS, "output_dir": str(output)}, log=output.with_name("log")).succeed()
    return output


def test_the_published_weights_are_the_best_evaluated_ones(trained: Path) -> None:
    found = evaluations(trained)
    assert sorted(found) == [3, 6, 9, 12]
    best = min(found, key=lambda step: found[step]["eval/kernel_distance"])
    record = json.loads((trained / "training.json").read_text())["best"]
    assert record["step"] == best
    assert record["value"] == found[best]["eval/kernel_distance"]
    assert (record["extractor"], record["split"]) == ("pca", "validation")
    assert model_hash(trained) == model_hash(trained / "best")
    assert len({entry["eval/kernel_distance"] for entry in found.values()}) == 4


def test_the_report_uses_other_extractors_and_another_split(trained: Path) -> None:
    results = json.loads((trained / "results.json").read_text())
    assert results["data"]["split"] == "test"
    assert "pca" not in [extractor["name"] for extractor in results["protocol"]["extractors"]]
    assert results["model"]["hash"] == model_hash(trained)
    card = ModelCard.load(trained / "README.md")
    assert len(card.data.eval_results) == len(results["metrics"])
    assert "chosen by kernel_distance with pca" in card.text


def test_a_killed_run_chooses_the_same_weights(trained: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "output_dir": str(tmp_path / "vae")}
    assert jobs.Job(jobs.train, "vae", settings, 7, log=tmp_path / "killed").wait() == [-9]
    resumed = {**settings, "resume_from_checkpoint": "latest"}
    jobs.Job(jobs.train, "vae", resumed, log=tmp_path / "resumed").succeed()
    chosen = [json.loads((folder / "training.json").read_text())["best"] for folder in (trained, tmp_path / "vae")]
    assert chosen[0] == chosen[1]
    assert model_hash(tmp_path / "vae") == model_hash(trained)


def test_two_processes_choose_together_and_report(tmp_path: Path) -> None:
    settings = {**SETTINGS, "max_train_steps": 6, "output_dir": str(tmp_path / "vae")}
    jobs.Job(jobs.train, "vae", settings, log=tmp_path / "log", ranks=2).succeed()
    assert sorted(evaluations(tmp_path / "vae")) == [3, 6]
    results = json.loads((tmp_path / "vae" / "results.json").read_text())
    assert results["model"]["hash"] == model_hash(tmp_path / "vae" / "best")


def test_models_with_classes_are_evaluated_as_their_grids_are_drawn(tmp_path: Path) -> None:
    tiny = {
        **train_ddpm.TINY,
        "class_column": "label",
        "max_train_steps": 2,
        "eval_steps": 2,
        "max_train_samples": 200,
    }
    quick = {"max_eval_samples": 60, "guidance_scale": 1.5, "use_cpu": True, "metric_for_best_model": "coverage"}
    folder = train_ddpm.main(train_ddpm.Args(**tiny, **quick, output_dir=str(tmp_path / "ddpm")))
    results = json.loads((folder / "results.json").read_text())
    assert results["protocol"]["sampling"]["guidance_scale"] == 1.5
    assert results["speed"]["network_evaluations"] == 2 * tiny["ddpm_num_inference_steps"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval_steps": 0}, "--eval_steps is 0"),
        ({"max_eval_samples": 5}, "--max_eval_samples is 5"),
        ({"eval_split": "train"}, "is the training split"),
        ({"eval_extractor": "resnet"}, "resnet"),
    ],
)
def test_bad_flags_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_vae.main(train_vae.Args(**{**SETTINGS, **changes}, output_dir=str(tmp_path / "vae")))
