"""Model cards: no number without a source, front matter that parses, code blocks that run."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub_toys import TRAINING, tiny_ddpm, tiny_points, tiny_vae
from huggingface_hub import ModelCard

from hf_genzoo.families import FAMILIES
from hf_genzoo.hub import export, render_card
from hf_genzoo.hub.card import CardError, relocate, update_card
from hf_genzoo.hub.measured import ResultsError

METRIC = {
    "name": "frechet_ratio",
    "value": 23.4567,
    "interval": [22.1, 24.9],
    "dataset": "digits",
    "split": "validation",
    "num_samples": 1000,
    "extractor": "pca",
    "extractor_hash": "ab12",
    "seed": 3,
}
RESULTS = {
    "format": 1,
    "model": {"name": "toy", "hash": "none", "parameters": {"vae": 3}},
    "data": {"name": "digits", "split": "validation", "fingerprint": "f00d", "shape": [1, 8, 8]},
    "protocol": {
        "num_samples": 1000,
        "seed": 3,
        "resizer": "pillow-bicubic",
        "headline": {"name": "coverage", "extractor": "pca"},
        "extractors": [{"name": "pca", "hash": "ab12", "dim": 64}],
        "sampling": {"scheduler": "DDIMScheduler", "guidance_scale": None},
    },
    "speed": None,
    "versions": {"torch": "2.9.1"},
    "metrics": [METRIC, {**METRIC, "name": "coverage", "value": 0.625, "interval": None}],
    "verdicts": ["distinguishable: yes"],
    "calibration": [{"name": "real training data", "metrics": [{**METRIC, "value": 1.25, "interval": None}]}],
    "remarks": ["This model loses."],
}


def results(**changes: Any) -> str:
    """results.json with one value of its metric changed."""
    changed = copy.deepcopy(RESULTS)
    changed["metrics"][0].update(changes)
    return json.dumps(changed)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return export(tiny_vae(), tmp_path / "vae")


def training(**changes: Any) -> dict[str, Any]:
    return {**TRAINING, **changes}


def test_every_recorded_number_is_stated(folder: Path) -> None:
    card = render_card(folder, family="vae", training=training())
    for text in ("1,234", "78,976", "7.9 minutes on cpu", "0.02413", "3.94 M", "4,000 samples", "f00dfeed", "| 7 |"):
        assert text in card, text
    assert TRAINING["command"] in card
    assert "MNIST is published under" in card
    assert "## Measured" not in card


def test_losses_of_two_networks_streams_and_long_runs(folder: Path) -> None:
    data = {**TRAINING["data"], "name": "user/pictures", "num_samples": None}
    record = training(loss={"critic": -1.25, "generator": 20000.0}, data=data, seconds=8000, git_revision="abc123")
    card = render_card(folder, family="vae", training=record)
    for text in ("critic -1.25, generator 20,000", "streamed", "2.2 hours", "abc123"):
        assert text in card, text
    assert ModelCard(card).data.to_dict()["datasets"] == ["user/pictures"]
    for nothing in (None, {}):
        assert "Last logged loss" not in render_card(folder, family="vae", training=training(loss=nothing))
    diverged = render_card(folder, family="vae", training=training(loss={"loss": float("nan")}))
    assert "| Last logged loss | loss not finite |" in diverged


def test_without_a_record_the_card_says_so(folder: Path) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "was not recorded" in card
    assert "datasets" not in ModelCard(card).data.to_dict()


@pytest.mark.parametrize("name", sorted(set(TRAINING) - {"family", "args", "sample_grid"}))
def test_a_missing_value_is_an_error(folder: Path, name: str) -> None:
    record = training()
    del record[name]
    with pytest.raises(CardError, match=name):
        render_card(folder, family="vae", training=record)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "many", True])
def test_a_value_that_is_no_number_is_an_error(folder: Path, value: object) -> None:
    with pytest.raises(CardError, match=f"recorded is {value!r}"):
        render_card(folder, family="vae", training=training(steps=value))


def test_results_come_from_the_file_and_parse_back(folder: Path) -> None:
    (folder / "results.json").write_text(results(), encoding="utf-8")
    card = render_card(folder, family="vae", training=training())
    assert "| Frechet ratio | 23.46 (22.1 to 24.9) |" in card
    assert "| real training data | - | 1.25 |" in card
    for text in ("1,000 generated samples", "scheduler `DDIMScheduler`", "> This model loses.", "hash `ab12`"):
        assert text in card, text
    assert "guidance_scale" not in card  # it was not set
    assert "**Coverage 0.625**" in card
    result, _ = ModelCard(card).data.eval_results or []
    assert (result.metric_type, result.metric_value, result.dataset_split) == ("frechet_ratio", 23.4567, "validation")
    assert result.metric_args["interval"] == [22.1, 24.9]
    assert result.metric_args["seed"] == 3


def test_only_the_measured_part_is_renewed(folder: Path) -> None:
    (folder / "README.md").write_text((folder / "README.md").read_text().replace("# Variational", "# My variational"))
    for value in (5.5, 7.5):
        (folder / "results.json").write_text(results(value=value), encoding="utf-8")
        update_card(folder)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "# My variational" in card
    assert card.count("| Frechet ratio | 7.5") == 1
    assert "5.5" not in card
    assert card.index("## Measured") < card.index("## The paper")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (results(value=None), "was not measured, its value is None"),
        (results(value=float("nan")), "was not measured, its value is nan"),
        (results(name="fid"), "unknown metric 'fid'"),
        ('{"format": 0}', "format 0, not 1: measure again"),
        ("[]", "was not written by `genzoo evaluate`"),
        ("{", "was not written by `genzoo evaluate`"),
    ],
)
def test_results_that_are_not_measured_cannot_be_rendered(folder: Path, content: str, message: str) -> None:
    (folder / "results.json").write_text(content, encoding="utf-8")
    with pytest.raises(ResultsError, match=message):
        render_card(folder, family="vae")


def test_the_sample_grid_must_exist(folder: Path) -> None:
    with pytest.raises(CardError, match=r"samples\.png of the training record does not exist"):
        render_card(folder, family="vae", training=training(sample_grid="samples.png"))
    (folder / "samples.png").touch()
    assert "](samples.png)" in render_card(folder, family="vae", training=training(sample_grid="samples.png"))


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_has_a_card(folder: Path, family: str) -> None:
    card = render_card(folder, family=family, training=training())
    head = yaml.safe_load(card.split("---")[1])
    assert head["library_name"] == "diffusers"
    assert head["license"] == "apache-2.0"
    assert family in head["tags"]
    assert FAMILIES[family].url in card
    assert re.search(r"```bibtex\n@\w+\{\w+,", card)
    assert "{{" not in card
    assert "{%" not in card
    assert not re.search(r"\n{4,}", card)


def test_points_are_not_tagged_as_pictures(tmp_path: Path) -> None:
    card = ModelCard((export(tiny_points(), tmp_path / "x") / "README.md").read_text(encoding="utf-8"))
    assert card.data.to_dict().get("pipeline_tag") is None
    assert "points" in card.content


def test_a_published_card_loads_from_the_repository(folder: Path) -> None:
    (folder / "samples.png").touch()
    card = render_card(folder, family="vae", training=training(sample_grid="samples.png"))
    there = relocate(card, "user/vae-digits", "https://hub/user/vae-digits/resolve/main")
    assert str(folder) not in there
    assert there.count('("user/vae-digits"') == 3
    data = ModelCard(there).data.to_dict()
    assert data["thumbnail"] == "https://hub/user/vae-digits/resolve/main/samples.png"
    assert relocate("# my own", "user/x", "https://hub") == "# my own"


@pytest.mark.parametrize("make", [tiny_vae, tiny_ddpm, tiny_points, lambda: tiny_ddpm(num_classes=3)])
def test_code_blocks_run(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = export(make(), tmp_path / "with a 'quote' and space")
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    for number, block in enumerate(blocks):
        (tmp_path / str(number)).mkdir()
        monkeypatch.chdir(tmp_path / str(number))
        exec(compile(block, f"block {number}", "exec"), {})
        assert make is tiny_points or Path("sample.png").is_file()
