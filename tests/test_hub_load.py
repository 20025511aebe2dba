"""Published to a Hub on loopback, then loaded in every way, with clean caches, and without the package where it is to.

One interpreter opens all repositories in turn: what one of them brings must not disturb another.
"""

import json
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bare import run_python, together
from hub_client import talk_to
from hub_server import TOKEN, HubServer
from hub_toys import TRAINING, draw, other_code, tiny_ddpm, tiny_points, tiny_vae

from hf_genzoo.hub import Result, export, load, publish, publisher
from hf_genzoo.hub.check_folder import check_folder
from hf_genzoo.hub.layout import VARIANT_WEIGHTS, belonging_files, code_files, model_hash, read_index
from hf_genzoo.hub.variants import write_variant

# repository: how it is made, its family, how it is sampled
MADE = {
    "tester/vae": (tiny_vae, "vae", {}),
    "tester/classes": (lambda: tiny_ddpm(num_classes=4), "ddpm", {"num_inference_steps": 3, "class_labels": [1, 2]}),
    "tester/ddpm": (tiny_ddpm, "ddpm", {"num_inference_steps": 3}),
    "tester/points": (tiny_points, "wgan_gp", {}),
}


@dataclass
class Shelf:
    """What was published: where, from which folders, at which commits."""

    server: HubServer
    folders: dict[str, Path]
    revisions: dict[str, str]

    @property
    def wanted(self) -> str:
        """For the programs below: {repository: (options of sampling, whether it needs remote code, revision)}."""
        coded = {repo: bool(code_files(folder, read_index(folder))) for repo, folder in self.folders.items()}
        assert sorted(repo for repo in coded if not coded[repo]) == ["tester/ddpm"]
        return json.dumps({repo: (MADE[repo][2], coded[repo], self.revisions[repo]) for repo in MADE})

    def expected(self, repo: str) -> np.ndarray:
        return draw(load(self.folders[repo]), **MADE[repo][2])


def opened_here(repo_or_folder: str | Path, *, revision: str | None = None, token: str | None = None) -> list[Result]:
    """In place of the clean interpreters of `verify`: those of the tests below open all repositories at once."""
    pipeline = load(repo_or_folder, revision=revision, token=token)
    options = {"class_labels": [0, 0], "num_inference_steps": 2} if "unet" in pipeline.components else {}
    if options and pipeline.unet.config.num_class_embeds is None:
        options.pop("class_labels")
    return [Result("here", True, "", 0.0, [draw(pipeline, **options)])]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    home = tmp_path_factory.mktemp("published")
    with HubServer() as server:
        done = Shelf(server, {}, {})
        with pytest.MonkeyPatch.context() as patch:
            talk_to(server, patch, home / "cache")
            patch.setattr(publisher.verifier, "verify", opened_here)
            for repo, (make, family, _) in MADE.items():
                done.folders[repo] = export(make(), home / repo, family=family)
                done.revisions[repo] = published(done.folders[repo], repo)
            published(done.folders["tester/vae"], "tester/half", variants=["fp16"])
            published(done.folders["tester/vae"], "tester/private", private=True)
        yield done


def published(folder: Path, repo: str, **how: Any) -> str:
    revision = publish(folder, repo, say=lambda line: None, **how).revision
    assert revision is not None
    return revision


SAMPLE = """
import json, os, sys, traceback, warnings
import numpy as np, torch

wanted, token = json.loads(sys.argv[1]), sys.argv[2]

def keep(name, pipeline, **options):
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(batch_size=2, generator=torch.Generator().manual_seed(0), output_type="np", **options)[0]
    np.save(f"{name.removeprefix('tester/')}.npy", images)
"""

WITHOUT = (
    SAMPLE
    + """
import importlib.util
assert importlib.util.find_spec("hf_genzoo") is None
from diffusers import DDPMPipeline, DiffusionPipeline
from huggingface_hub import snapshot_download

trust = {repo: {"trust_remote_code": True} if coded else {} for repo, (_, coded, _) in wanted.items()}
for repo, (options, _, revision) in wanted.items():
    keep(f"{repo}-pinned", DiffusionPipeline.from_pretrained(repo, revision=revision, **trust[repo]), **options)
for repo, (options, _, _) in wanted.items():  # again, after all the others were loaded
    keep(f"{repo}-head", DiffusionPipeline.from_pretrained(repo, device_map="cpu", **trust[repo]), **options)
assert type(DDPMPipeline.from_pretrained("tester/ddpm")) is DDPMPipeline

for repo, (options, _, _) in wanted.items():  # saved again, and the copy once more
    pipeline = DiffusionPipeline.from_pretrained(repo, **trust[repo])
    for copy in ("copy", "copy-of-copy"):
        folder = f"{copy}-{repo.removeprefix('tester/')}"
        pipeline.save_pretrained(folder)
        pipeline = DiffusionPipeline.from_pretrained(folder, **trust[repo])
    keep(f"{repo}-copied", pipeline, **options)

far = {"trust_remote_code": True}
half = {"variant": "fp16", "torch_dtype": torch.float16}
pipeline = DiffusionPipeline.from_pretrained("tester/half", **half, **far)
assert pipeline.vae.dtype == torch.float16
keep("half", pipeline)
pipeline.save_pretrained("copy-half", variant="fp16")
keep("half-copied", DiffusionPipeline.from_pretrained("copy-half", **half, **far))

try:
    DiffusionPipeline.from_pretrained("tester/private", **far)
except OSError:
    print("refused:", traceback.format_exc())  # diffusers says what is wrong, its causes say why
# diffusers does not use token= for the code files: hand it a folder, or log in.
keep("private", DiffusionPipeline.from_pretrained(snapshot_download("tester/private", token=token), **far))
os.environ["HF_TOKEN"] = token
keep("private", DiffusionPipeline.from_pretrained("tester/private", **far))
pipeline = DiffusionPipeline.from_pretrained("tester/vae", **far)
pipeline.save_pretrained("pushed", push_to_hub=True, repo_id="tester/pushed", private=True)
keep("vae-pushed", DiffusionPipeline.from_pretrained("tester/pushed", **far))
"""
)

WITH = (
    SAMPLE
    + """
os.environ["DIFFUSERS_DISABLE_REMOTE_CODE"] = "1"
import hf_genzoo
from hf_genzoo import pipelines

warnings.simplefilter("error", UserWarning)
for repo, (options, coded, revision) in wanted.items():
    ways = [{"revision": revision}, {}, {"local_files_only": True}, {"device_map": "cpu"}]
    for number, way in enumerate(ways):
        pipeline = hf_genzoo.load(repo, **way)
        keep(f"{repo}-{number}", pipeline, **options)
    if coded:
        cls = getattr(pipelines, type(pipeline).__name__)
        keep(f"{repo}-class", cls.from_pretrained(repo, revision=revision), **options)
    pipeline.save_pretrained(f"copy-{repo}")
    keep(f"{repo}-copied", hf_genzoo.load(f"copy-{repo}"), **options)

pipeline = hf_genzoo.load("tester/half", variant="fp16", torch_dtype=torch.float16)
assert pipeline.vae.dtype == torch.float16
keep("half", pipeline)
try:
    hf_genzoo.load("tester/private")
except ValueError as error:
    print("refused:", error)
keep("private", hf_genzoo.load("tester/private", token=token))
assert not [name for name in sys.modules if name.startswith("diffusers_modules.")]
"""
)


@dataclass
class Outcome:
    """What a program left in its folder, caches included, and what it said."""

    python: Path | str
    home: Path
    said: str


def run(shelf: Shelf, python: Path | str, code: str, home: Path) -> Outcome:
    said = run_python(python, code, home, shelf.server.environment(None), shelf.wanted, TOKEN)
    return Outcome(python, home, said)


@pytest.fixture(scope="module")
def outcomes(shelf: Shelf, bare_python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    programs = {"without": (bare_python, WITHOUT), "with_package": (sys.executable, WITH)}
    done = together(*(partial(run, shelf, *programs[kind], tmp_path_factory.mktemp(kind)) for kind in programs))
    return dict(zip(programs, done, strict=True))


@pytest.mark.parametrize(
    ("kind", "count", "advice"),
    [("without", 3, "make sure you are authenticated"), ("with_package", 5, "hf auth login")],
)
def test_every_way_gives_the_same_samples(
    kind: str, count: int, advice: str, shelf: Shelf, outcomes: dict[str, Outcome]
) -> None:
    outcome = outcomes[kind]
    for repo in MADE:
        files = sorted(outcome.home.glob(f"{repo.removeprefix('tester/')}-*.npy"))
        assert len(files) >= count
        for file in files:
            assert np.array_equal(np.load(file), shelf.expected(repo)), f"{file.name} differs"
    assert np.array_equal(np.load(outcome.home / "private.npy"), shelf.expected("tester/vae"))
    refused = outcome.said.partition("refused:")[2]
    assert "tester/private" in refused
    assert advice in refused


def test_half_precision_is_the_same_with_and_without_the_package(shelf: Shelf, outcomes: dict[str, Outcome]) -> None:
    without = outcomes["without"].home
    half = np.load(without / "half.npy")
    assert np.array_equal(half, np.load(outcomes["with_package"].home / "half.npy"))
    assert np.array_equal(half, np.load(without / "half-copied.npy"))
    plain = shelf.expected("tester/vae")
    assert 0.0 < np.abs(half.astype(float) - plain).max() < 1e-2


def test_what_was_saved_without_the_package_is_one_of_our_folders(shelf: Shelf, outcomes: dict[str, Outcome]) -> None:
    """Its code and weights are those that were published, under the same names, so the package opens it, too."""
    for repo, folder in shelf.folders.items():
        copy = outcomes["without"].home / f"copy-of-copy-{repo.removeprefix('tester/')}"
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            assert np.array_equal(draw(load(copy), **MADE[repo][2]), shelf.expected(repo))
        code = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.py")}
        assert {path.relative_to(copy): path.read_bytes() for path in copy.rglob("*.py")} == code
        assert [problem for problem in check_folder(copy) if "README" not in problem] == []


OFFLINE = {
    "without": """
from pathlib import Path
from diffusers import DiffusionPipeline
from huggingface_hub import try_to_load_from_cache

for repo, (options, coded, _) in wanted.items():
    # diffusers looks for a coded repository on the Hub when it is given by name: give it the cached folder.
    folder = Path(try_to_load_from_cache(repo, "model_index.json")).parent if coded else repo
    pipeline = DiffusionPipeline.from_pretrained(folder, **({"trust_remote_code": True} if coded else {}))
    keep(f"{repo}_offline", pipeline, **options)
""",
    "with_package": """
import hf_genzoo
from hf_genzoo import pipelines

for repo, (options, coded, revision) in wanted.items():
    pipeline = hf_genzoo.load(repo)
    if coded:
        pipeline = getattr(pipelines, type(pipeline).__name__).from_pretrained(repo)
    keep(f"{repo}_offline", pipeline, **options)
    hf_genzoo.load(repo, revision=revision)
""",
}


def test_offline_from_the_cache(shelf: Shelf, outcomes: dict[str, Outcome]) -> None:
    asked = len(shelf.server.requests)
    env = {**shelf.server.environment(None), "HF_HUB_OFFLINE": "1"}

    def run_offline(kind: str) -> str:
        outcome = outcomes[kind]
        return run_python(outcome.python, SAMPLE + OFFLINE[kind], outcome.home, env, shelf.wanted, TOKEN)

    together(*(partial(run_offline, kind) for kind in OFFLINE))
    assert len(shelf.server.requests) == asked
    for kind in OFFLINE:
        for repo in MADE:
            drawn = np.load(outcomes[kind].home / f"{repo.removeprefix('tester/')}_offline.npy")
            assert np.array_equal(drawn, shelf.expected(repo)), f"{repo} {kind}"


# Versions of the code


VERSIONS = (
    SAMPLE
    + """
from diffusers import DiffusionPipeline

loaded = {repo: DiffusionPipeline.from_pretrained(repo, trust_remote_code=True) for repo in wanted}
for repo, pipeline in loaded.items():
    keep(repo, pipeline)
"""
)


def test_two_versions_of_the_code_in_one_process(shelf: Shelf, bare_python: Path, tmp_path: Path, monkeypatch) -> None:
    """Another version of the pipeline's file paints the negative: each repository runs its own, in either order."""
    other = export(tiny_vae(seed=5), tmp_path / "negative")
    other_code(other, ("mean_image = self.vae.mean_image(", "mean_image = -self.vae.mean_image("))
    talk_to(shelf.server, monkeypatch, tmp_path / "cache")
    put(shelf.server, "tester/negative", other)
    plain, other_plain = shelf.expected("tester/vae"), draw(tiny_vae(seed=5))
    orders = (["tester/vae", "tester/negative"], ["tester/negative", "tester/vae"])

    def run_in(order: list[str]) -> str:
        env = shelf.server.environment(None)
        return run_python(bare_python, VERSIONS, tmp_path / order[0], env, json.dumps(order), TOKEN)

    together(*(partial(run_in, order) for order in orders))
    for order in orders:
        home = tmp_path / order[0]
        assert np.array_equal(np.load(home / "vae.npy"), plain)
        assert np.allclose(np.load(home / "negative.npy"), 1.0 - other_plain, atol=1e-6)

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loaded = {repo: load(repo) for repo in order}
        told = [str(warning.message) for warning in caught if "another version" in str(warning.message)]
        assert len(told) == 1
        assert told[0].startswith("tester/negative was exported with another version of hf_genzoo.pipelines.vae")
        assert np.array_equal(draw(loaded["tester/vae"]), plain)
        assert np.array_equal(draw(loaded["tester/negative"]), other_plain), "with the package its own classes run"


def put(server: HubServer, repo: str, folder: Path, private: bool = False) -> str:
    """Store a folder's files as they are: what another version exported, this one would not publish."""
    from hub_store import Repo

    stored = server.repos.setdefault(repo, Repo(private))
    files = {p.as_posix(): (folder / p).read_bytes() for p in belonging_files(folder, read_index(folder))}
    return stored.add("published", files).sha


# Precision, revisions, rights: with the package, in this process


def test_variants_lie_beside_the_plain_weights(tmp_path: Path) -> None:
    plain = export(tiny_vae(), tmp_path / "plain", training=TRAINING)
    folder = export(tiny_vae(), tmp_path / "vae", training=TRAINING, variants=["fp16", "bf16"])
    names = {path.name for path in (folder / "vae").iterdir()}
    assert {f"diffusion_pytorch_model{part}.safetensors" for part in ("", ".fp16", ".bf16")} < names
    assert model_hash(folder) == model_hash(plain), "the same model in another precision"
    assert check_folder(folder) == []
    assert np.array_equal(draw(load(folder)), draw(tiny_vae()))
    half = load(folder, variant="bf16", torch_dtype=torch.bfloat16)
    assert half.vae.dtype == torch.bfloat16
    weights = load(plain, torch_dtype=torch.bfloat16).vae.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in half.vae.state_dict().items())

    export(tiny_vae(), folder, training=TRAINING)
    assert not [path for path in folder.rglob("*") if VARIANT_WEIGHTS.fullmatch(path.name)], (
        "they are of older weights"
    )
    with pytest.raises(ValueError, match=r"variant=bf16"):
        load(folder, variant="bf16")
    with pytest.raises(ValueError, match="unknown variant 'fp8'; choose one of fp16, bf16"):
        export(tiny_vae(), tmp_path / "new", variants=["fp8"])
    assert not (tmp_path / "new").exists()


def test_stock_networks_have_variants_too(tmp_path: Path) -> None:
    folder = export(tiny_ddpm(num_classes=4), tmp_path / "ddpm", variants=["fp16"])
    half = load(folder, variant="fp16", torch_dtype=torch.float16)
    assert half.unet.dtype == torch.float16
    assert not list((folder / "scheduler").glob("*.safetensors"))
    assert check_folder(folder) == []


def test_weights_beyond_the_range_make_no_variant(tmp_path: Path) -> None:
    source = tiny_vae()
    with torch.no_grad():
        next(source.vae.parameters()).mul_(0).add_(1e6)
    with pytest.raises(ValueError, match=r"does not fit the range of fp16; publish without this variant"):
        export(source, tmp_path / "vae", variants=["fp16"])
    assert not (tmp_path / "vae" / "model_index.json").exists()
    export(source, tmp_path / "vae", variants=["bf16"])


def test_a_folder_of_variants_only_is_not_complete(tmp_path: Path) -> None:
    folder = export(tiny_vae(), tmp_path / "vae", training=TRAINING)
    (written,) = write_variant(folder, "fp16", load(folder).components)
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    (problem,) = check_folder(folder)
    assert problem == f"vae/ holds no weights (*.safetensors) but those of a variant: {written.name}"


def test_revision_and_variant_from_the_hub(hub: HubServer, tmp_path: Path) -> None:
    folder = export(tiny_vae(), tmp_path / "vae", training=TRAINING, variants=["fp16"])
    first = put(hub, "tester/vae", folder)
    hub.repos["tester/vae"].tags["v1"] = first
    put(hub, "tester/vae", export(tiny_vae(seed=1), tmp_path / "second"))
    plain = draw(load(folder))
    for revision in (first, "v1"):
        assert np.array_equal(draw(load("tester/vae", revision=revision)), plain)
    assert not any(".fp16." in request for request in hub.requests), "the variant is loaded on request only"
    assert not np.allclose(draw(load("tester/vae")), plain)
    widened = load("tester/vae", revision=first, variant="fp16", torch_dtype=torch.float32)
    assert 0.0 < np.abs(draw(widened) - plain).max() < 1e-2
    with pytest.raises(ValueError, match="variant=bf16"):
        load("tester/vae", revision=first, variant="bf16")
    with pytest.raises(ValueError, match="tester/vae has no branch, tag or commit 'no-such'"):
        load("tester/vae", revision="no-such")


def test_a_private_repository_needs_a_token(hub: HubServer, tmp_path: Path) -> None:
    from hf_genzoo.pipelines import VAEPipeline

    folder = export(tiny_vae(), tmp_path / "vae")
    put(hub, "tester/private", folder, private=True)
    hub.add_token("hf_other", "read", "stranger")
    hub.add_token("hf_old", "expired")
    openers = (load, VAEPipeline.from_pretrained)
    for opener in openers:
        for token in (False, "hf_other", "hf_old"):
            with pytest.raises(ValueError, match=r"tester/private[\s\S]*`hf auth login`") as caught:
                opener("tester/private", token=token)
            assert "hf_o" not in str(caught.value)
    for opener in openers:  # after the refusals: what lies in the cache is opened without asking
        assert np.array_equal(draw(opener("tester/private", token=TOKEN)), draw(load(folder)))


def test_a_repository_is_measured_without_touching_it(hub: HubServer, tmp_path: Path, monkeypatch) -> None:
    import hf_genzoo

    folder = export(tiny_vae(), tmp_path / "vae", training=TRAINING)
    put(hub, "tester/vae", folder)
    monkeypatch.chdir(tmp_path)
    options = {"dataset_name": "digits", "num_channels": 1, "resolution": 8, "num_samples": 60, "use_cpu": True}
    results = hf_genzoo.evaluate("tester/vae", extractor=["pca"], **options)
    assert results["model"]["hash"] == model_hash(folder)
    assert (tmp_path / "outputs" / "evaluation" / "tester--vae" / "results.json").is_file()
    assert not (folder / "results.json").exists()
    assert not [request for request in hub.requests if not request.startswith(("GET", "HEAD"))]
