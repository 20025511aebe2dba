"""Model cards: no number without a source, front matter that the Hub takes, code blocks that run and can be pinned."""

import ast
import copy
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import card_code
import pytest
import yaml
from hub_server import TOKEN, USER, HubServer
from hub_toys import TRAINING, tiny_ddpm, tiny_points, tiny_vae
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, constants
from jinja2 import nodes

from hf_genzoo import model_cards
from hf_genzoo.evaluation.metrics import METRICS
from hf_genzoo.families import FAMILIES
from hf_genzoo.hub import export, render_card
from hf_genzoo.hub.card import CardError, pin, relocate, unpinned, update_card
from hf_genzoo.hub.card_templates import environment
from hf_genzoo.hub.layout import belonging_files, read_index
from hf_genzoo.hub.load_calls import LOADERS
from hf_genzoo.hub.measured import ResultsError
from hf_genzoo.hub.paper import comparison

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


CALIBRATION_WITHOUT_A_NUMBER = {"name": "real training data", "metrics": [{**METRIC, "value": None}]}


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
    assert "MNIST is commonly given under CC BY-SA 3.0" in card
    assert "## Measured" not in card
    assert card.count(" not measured |") == 2  # nothing was, so the paper's numbers stand alone


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
    assert "of one batch | loss not finite |" in diverged


def test_the_data_and_their_licence(folder: Path, tmp_path: Path) -> None:
    def card(name: str, **args: Any) -> tuple[str, dict[str, Any]]:
        text = render_card(folder, family="vae", training=training(data={**TRAINING["data"], "name": name}, args=args))
        return text, ModelCard(text).data.to_dict()

    text, data = card("user/pictures")
    assert data["datasets"] == ["user/pictures"]
    assert (
        "(https://huggingface.co/datasets/user/pictures). *To the publisher of this model: state\nthe licence" in text
    )
    for name, args in ((str(tmp_path), {}), ("some/folder", {"train_data_dir": "some/folder"})):
        text, data = card(name, **args)
        assert "datasets" not in data
        assert "To the publisher of this model: state both here" in " ".join(text.split())
        assert str(tmp_path) not in text.replace(f"{folder}", "")  # only the folder that the code blocks load from
    for name, known in (("digits", "MNIST"), ("gaussians2d/ring", "Points drawn from a known density")):
        text, data = card(name, dataset_name=name.split("/")[0])
        assert "datasets" not in data
        assert known in text
    assert card("digits/mine", dataset_name="digits/mine")[1]["datasets"] == ["digits/mine"]  # of a user named digits
    assert "under the [Apache License 2.0]" in text


def test_the_command_is_for_readers(folder: Path) -> None:
    given = (
        "genzoo train vae --train_data_dir '/home/me/my pictures' --output_dir /home/me/runs/vae --push_to_hub True "
        "--hub_model_id me/vae --hub_private_repo True --block_out_channels 16 64 --learning_rate 0.001 "
        "--attention_levels -1 --max_train_steps 1234"
    )
    (block,) = card_code.blocks(render_card(folder, family="vae", training=training(command=given)), "bash")
    expected = (
        "genzoo train vae --train_data_dir 'my pictures' --output_dir outputs/vae --block_out_channels 16 64 "
        "--learning_rate 0.001 --attention_levels -1 --max_train_steps 1234"
    )
    assert shlex.split(block.replace("\\\n", "")) == shlex.split(expected)
    assert max(map(len, block.splitlines())) <= 100
    assert block.count(" \\\n") == 1


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
    assert "(figure 5) | Coverage 0.625 with `pca` features |" in card
    assert "Ours: 1,000 samples, against split `validation` of `digits`." in card
    for text in ("1,000 generated pictures", "scheduler `DDIMScheduler`", "> This model loses.", "hash `ab12`"):
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
        changed = json.loads(results(value=value))
        changed["metrics"][1]["value"] = value / 10
        (folder / "results.json").write_text(json.dumps(changed), encoding="utf-8")
        update_card(folder)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "| Coverage 0.75 with `pca` features |" in card
    assert "# My variational" in card
    assert card.count("| Frechet ratio | 7.5") == 1
    assert "5.5" not in card
    assert card.index("## Measured") < card.index("## The paper")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (results(value=None), "was not measured, its value is None"),
        (results(value=float("nan")), "was not measured, its value is nan"),
        (results(value="3.2"), "was not measured, its value is '3.2'"),
        (results(value=True), "was not measured, its value is True"),
        (results(interval=[1.0, None]), r"interval \[1.0, None\], not two numbers"),
        (results(interval=[1.0, float("inf")]), r"interval \[1.0, inf\], not two numbers"),
        (
            json.dumps({**RESULTS, "calibration": [CALIBRATION_WITHOUT_A_NUMBER]}),
            "real training data: .* was not measured",
        ),
        (json.dumps({k: v for k, v in RESULTS.items() if k != "calibration"}), "was not written by `genzoo evaluate`"),
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


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_templates_look_measured_numbers_up(family: str) -> None:
    """In the comparison with the paper a template names metrics; it holds neither rows nor numbers of its own."""
    page = environment().parse((Path(model_cards.__path__[0]) / f"{family}.md").read_text(encoding="utf-8"))
    (claims,) = (block for block in page.find_all(nodes.Block) if block.name == "claims")
    assert not "".join(text.data for text in claims.find_all(nodes.TemplateData)).strip()
    calls = list(claims.find_all(nodes.Call))
    assert calls
    for call in calls:
        given = {keyword.key: keyword.value.as_const() for keyword in call.kwargs}
        assert {"paper", "source", "why"} <= given.keys() <= {"paper", "source", "why", "measured", "extractor"}
        assert given.get("measured") in (None, *METRICS)


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ('{{ claim("FID", paper="3", source="table 1", why="-", measured="5.1") }}', "gives '5.1' as measured"),
        ('{{ claim("FID", paper="3", source="table 1", why="-", measured=5.1) }}', "gives 5.1 as measured"),
        ('{{ claim("FID", paper="3", source="table 1", why="-") }}| FID | 3 | 5.1 | - |', "calls of claim"),
        ("", "calls of claim"),
        (None, "has no block 'claims'"),
    ],
)
def test_a_template_that_types_a_measured_number_is_refused(
    claims: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "{% block other %}{% endblock %}" if claims is None else f"{{% block claims %}}{claims}{{% endblock %}}"
    monkeypatch.setattr("hf_genzoo.hub.paper.template", lambda name: environment().from_string(text))
    with pytest.raises(CardError, match=message):
        comparison("vae", {}, None)


def test_the_sample_grid_must_exist(folder: Path) -> None:
    with pytest.raises(CardError, match=r"samples\.png of the training record does not exist"):
        render_card(folder, family="vae", training=training(sample_grid="samples.png"))
    (folder / "samples.png").touch()
    card = render_card(folder, family="vae", training=training(sample_grid="samples.png", sampling={"scheduler": "X"}))
    assert "](samples.png)" in card
    assert "nothing was picked out; drawn with scheduler X.*" in card
    assert ModelCard(card).data.to_dict()["widget"] == [
        {"text": "Sample grid, seed 7", "output": {"url": "samples.png"}}
    ]


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
    title, summary = card.split("\n# ")[1].split("\n\n")[:2]
    assert title == f"{FAMILIES[family].title}, trained on digits"
    assert len(re.findall(r"[.!?](?=\s|$)", summary)) == 2, "the summary is two sentences"
    assert "| Parameters | " in card
    assert " | 3.94 M (`vae`) |" in card


def test_points_are_not_tagged_as_pictures(tmp_path: Path) -> None:
    card = ModelCard((export(tiny_points(), tmp_path / "x") / "README.md").read_text(encoding="utf-8"))
    assert card.data.to_dict().get("pipeline_tag") is None
    assert "points" in card.content


@pytest.mark.parametrize("make", [tiny_vae, tiny_ddpm, tiny_points])
def test_what_a_card_shows_is_there(make: Any, tmp_path: Path) -> None:
    """Pictures and relative links go up with the folder; other links are complete."""
    (tmp_path / "samples.png").touch()
    folder = export(make(), tmp_path, training=training(sample_grid="samples.png"))
    published = {path.as_posix() for path in belonging_files(folder, read_index(folder))}
    links = re.findall(r"\]\(([^)]+)\)", (folder / "README.md").read_text(encoding="utf-8"))
    assert "samples.png" in links
    for link in links:
        assert re.fullmatch(r"https://[\w.-]+/[\w./-]+", link) or link in published, link


def test_a_published_card_loads_from_the_repository(folder: Path) -> None:
    (folder / "samples.png").touch()
    card = render_card(folder, family="vae", training=training(sample_grid="samples.png"))
    there = relocate(card, "user/vae-digits", "https://hub/user/vae-digits/resolve/main")
    assert str(folder) not in there
    assert there.count('("user/vae-digits"') == 4
    data = ModelCard(there).data.to_dict()
    assert data["thumbnail"] == "https://hub/user/vae-digits/resolve/main/samples.png"
    assert relocate("# my own", "user/x", "https://hub") == "# my own"
    assert relocate(pin(there, "a" * 40), "user/vae-digits", "https://hub/user/vae-digits/resolve/main") == there


@pytest.mark.parametrize("name", ["user/x", "an-organisation-with-a-long-name/" + "a-model-with-a-long-name-" * 3])
@pytest.mark.parametrize("make", [tiny_vae, tiny_ddpm, tiny_points, lambda: tiny_ddpm(num_classes=3)])
def test_every_load_names_the_commit(make: Any, name: str, tmp_path: Path) -> None:
    record = training(sampling={"scheduler": "DDIMScheduler", "num_inference_steps": 3})
    folder = export(make(), tmp_path / "model", training=record)
    card = relocate((folder / "README.md").read_text(encoding="utf-8"), name, "https://hub")
    first, second = "a" * 40, "b" * 40
    pinned = pin(card, first)
    assert pin(pinned, first) == pinned
    assert pin(pinned, second) == pin(card, second)
    assert unpinned(pinned) == unpinned(card) == card
    loads = 0
    for block in card_code.blocks(pinned, "python"):
        (call,) = (node for node in ast.walk(ast.parse(block)) if is_load(node))
        assert call.args[0].value == name
        assert {keyword.arg: keyword.value.value for keyword in call.keywords}.pop("revision") == first
        assert max(map(len, block.splitlines())) <= 119
        loads += 1
    assert loads == pinned.count(first) >= 3


def is_load(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOADERS


def test_only_loads_of_this_model_are_pinned() -> None:
    mine = (
        "```python\nother = X.from_pretrained('user/other')\nmine = f(X.from_pretrained(\n    'user/x', # note\n"
        "    **options))  # größer\n```\n\n```python\nnot python\n```\n\n```bash\nload('user/x')\n```\n\n"
    )
    card = f'{mine}<!-- location: "user/x" -->\n'
    there = pin(card, "abc")
    assert "X.from_pretrained('user/other')\n" in there
    assert "mine = f(X.from_pretrained('user/x', revision=\"abc\", **options))  # größer\n" in there
    assert there.count("abc") == 1
    assert unpinned(there) == unpinned(card)
    assert pin(mine, "abc") == mine  # not rendered here


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub on loopback which this process's own client may reach, too."""
    with HubServer() as server:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        yield server


def test_published_code_blocks_run_over_http(folder: Path, tmp_path: Path, hub: HubServer) -> None:
    (folder / "samples.png").touch()
    card = render_card(folder, family="vae", training=training(sample_grid="samples.png"))
    files = {path.as_posix(): (folder / path).read_bytes() for path in belonging_files(folder, read_index(folder))}
    repo = f"{USER}/vae-card"
    files["README.md"] = relocate(card, repo, f"{hub.url}/{repo}/resolve/main").encode()
    api = HfApi(endpoint=hub.url, token=TOKEN)
    api.create_repo(repo)
    commit = api.create_commit(
        repo, [CommitOperationAdd(name, content) for name, content in files.items()], commit_message="A model"
    )
    pinned = pin(files["README.md"].decode(), commit.oid)
    ModelCard(pinned).validate()
    (tmp_path / "reader").mkdir()
    reader = {**hub.environment(), "HF_HUB_OFFLINE": "0"}
    assert card_code.write_python(pinned, tmp_path / "reader") == 4
    card_code.run(tmp_path / "reader", home=tmp_path / "reader home", environment=reader)
    assert len(card_code.outcome(tmp_path / "reader")) == 4
    assert (tmp_path / "reader" / "sample.png").is_file()
    assert any(commit.oid in request and "model_index.json" in request for request in hub.requests)


@pytest.mark.parametrize("make", [tiny_vae, tiny_ddpm, tiny_points, lambda: tiny_ddpm(num_classes=3)])
@pytest.mark.parametrize("measured", [False, True])
def test_cards_pass_the_hubs_validation(make: Any, measured: bool, tmp_path: Path, hub: HubServer) -> None:
    (tmp_path / "samples.png").touch()
    data = {**TRAINING["data"], "name": "user/pictures"}
    folder = export(make(), tmp_path, training=training(sample_grid="samples.png", data=data))
    if measured:
        (folder / "results.json").write_text(results(), encoding="utf-8")
        update_card(folder)
    card = ModelCard(relocate((folder / "README.md").read_text(encoding="utf-8"), "user/x", f"{hub.url}/user/x"))
    card.validate()
    head = card.data.to_dict()
    assert {"library_name", "license", "tags", "datasets", "thumbnail", "widget"} <= head.keys()
    assert ("model-index" in head) == measured


@pytest.mark.parametrize(
    "change",
    [("license: apache-2.0", "license: free"), ("pipeline_tag: unconditional-image-generation", "pipeline_tag: art")],
)
def test_the_validation_can_fail(folder: Path, hub: HubServer, change: tuple[str, str]) -> None:
    card = render_card(folder, family="vae", training=training())
    assert change[0] in card
    with pytest.raises(ValueError, match=change[0].split(":")[0]):
        ModelCard(card.replace(*change)).validate()
