"""Every way to load what was published, from a Hub on loopback, with clean caches and, where it is to, without us."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from bare import run_python
from hub_server import TOKEN, HubServer
from hub_toys import TRAINING, draw, other_code, tiny_ddpm, tiny_points, tiny_vae

from hf_genzoo.hub import export, load
from hf_genzoo.hub.layout import belonging_files, model_hash, read_index
from hf_genzoo.hub.variants import add_variant

# key: repository, and how it is sampled
FOLDERS = {
    "tester/vae": (tiny_vae, {}),
    "tester/classes": (lambda: tiny_ddpm(num_classes=4), {"num_inference_steps": 3, "class_labels": [1, 2]}),
    "tester/ddpm": (tiny_ddpm, {"num_inference_steps": 3}),
    "tester/points": (tiny_points, {}),
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HubServer, dict[str, Path]]]:
    """A Hub that holds the folders' files, and the folders."""
    home = tmp_path_factory.mktemp("published")
    with HubServer() as server:
        folders = {}
        for repo, (make, _) in FOLDERS.items():
            family = {"classes": "ddpm", "points": "wgan_gp"}.get(repo.split("/")[1], repo.split("/")[1])
            folders[repo] = export(make(), home / repo, family=family)
            put(server, repo, folders[repo])
        add_variant(folders["tester/vae"], "fp16")
        put(server, "tester/half", folders["tester/vae"])
        put(server, "tester/private", folders["tester/vae"], private=True)
        yield server, folders


def put(server: HubServer, repo: str, folder: Path, private: bool = False) -> str:
    """Store a folder's files; publishing itself has tests of its own."""
    from hub_store import Repo

    stored = server.repos.setdefault(repo, Repo(private))
    files = {p.as_posix(): (folder / p).read_bytes() for p in belonging_files(folder, read_index(folder))}
    return stored.add("published", files).sha


SAMPLE = """
import json, sys, warnings
import numpy as np, torch

def draw(pipeline, **options):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(batch_size=2, generator=torch.Generator().manual_seed(0), output_type="np", **options)[0]

wanted = json.loads(sys.argv[1])
"""

WITHOUT = (
    SAMPLE
    + """
import importlib.util
assert importlib.util.find_spec("hf_genzoo") is None
from diffusers import DDPMPipeline, DiffusionPipeline

for repo, (options, coded) in wanted.items():
    for number in range(2):  # the second time from the cache, after all the others were loaded
        pipeline = DiffusionPipeline.from_pretrained(repo, **({"trust_remote_code": True} if coded else {}))
        np.save(f"{repo.split('/')[1]}-{number}.npy", draw(pipeline, **options))
assert type(DDPMPipeline.from_pretrained("tester/ddpm")) is DDPMPipeline

# Saved again, and that once more: each copy loads, by a fresh name of its module.
for repo, (options, coded) in wanted.items():
    pipeline = DiffusionPipeline.from_pretrained(repo, **({"trust_remote_code": True} if coded else {}))
    for copy in ("copy", "copy-of-copy"):
        folder = f"{copy}-{repo.split('/')[1]}"
        pipeline.save_pretrained(folder)
        pipeline = DiffusionPipeline.from_pretrained(folder, **({"trust_remote_code": True} if coded else {}))
    np.save(f"{repo.split('/')[1]}-2.npy", draw(pipeline, **options))
try:
    DiffusionPipeline.from_pretrained("tester/private", trust_remote_code=True, token=False)
except OSError as error:
    print("refused:", error)
"""
)

WITH = (
    SAMPLE
    + """
import os
import hf_genzoo
from hf_genzoo import pipelines

os.environ["DIFFUSERS_DISABLE_REMOTE_CODE"] = "1"
warnings.simplefilter("error", UserWarning)
for repo, (options, coded) in wanted.items():
    loaded = [hf_genzoo.load(repo, **how) for how in ({}, {"local_files_only": True}, {"device_map": "cpu"})]
    if coded:
        loaded.append(getattr(pipelines, type(loaded[0]).__name__).from_pretrained(repo))
    for number, pipeline in enumerate(loaded):
        np.save(f"{repo.split('/')[1]}-{number}.npy", draw(pipeline, **options))
assert not [name for name in sys.modules if name.startswith("diffusers_modules.")]
"""
)


def wanted(folders: dict[str, Path]) -> str:
    coded = {repo: any(folder.glob("pipeline_*.py")) for repo, folder in folders.items()}
    assert coded == {"tester/vae": True, "tester/classes": True, "tester/ddpm": False, "tester/points": True}
    return json.dumps({repo: (options, coded[repo]) for repo, (_, options) in FOLDERS.items()})


@pytest.mark.parametrize(("kind", "code", "count"), [("without", WITHOUT, 3), ("with", WITH, 3)])
def test_every_way_gives_the_same_samples(
    kind: str, code: str, count: int, served, bare_python: Path, tmp_path: Path
) -> None:
    """Several repositories in one process, twice each: none disturbs another."""
    server, folders = served
    python = bare_python if kind == "without" else sys.executable
    said = run_python(python, code, tmp_path / kind, server.environment(None), wanted(folders))
    for repo, (_, options) in FOLDERS.items():
        expected = draw(load(folders[repo]), **options)
        files = sorted((tmp_path / kind).glob(f"{repo.split('/')[1]}-*.npy"))
        assert len(files) >= count
        for file in files:
            assert np.array_equal(np.load(file), expected), f"{file.name} differs"
    if kind == "without":
        assert "refused:" in said
        for repo in ("vae", "classes", "points"):  # what was saved there is one of our folders here, too
            copy = tmp_path / kind / f"copy-of-copy-{repo}"
            assert np.array_equal(draw(load(copy), **FOLDERS[f"tester/{repo}"][1]), np.load(files_of(tmp_path, repo)))


def files_of(tmp_path: Path, repo: str) -> Path:
    return tmp_path / "without" / f"{repo}-0.npy"


OFFLINE = (
    SAMPLE
    + """
import hf_genzoo

for repo, (options, coded) in wanted.items():
    np.save(f"{repo.split('/')[1]}-offline.npy", draw(hf_genzoo.load(repo), **options))
"""
)
BARE_OFFLINE = (
    SAMPLE
    + """
from pathlib import Path
from diffusers import DiffusionPipeline
from huggingface_hub import try_to_load_from_cache

for repo, (options, coded) in wanted.items():
    # diffusers looks for a coded repository on the Hub when it is given by name: give it the cached folder.
    folder = Path(try_to_load_from_cache(repo, "model_index.json")).parent if coded else repo
    pipeline = DiffusionPipeline.from_pretrained(folder, **({"trust_remote_code": True} if coded else {}))
    np.save(f"{repo.split('/')[1]}-offline.npy", draw(pipeline, **options))
"""
)
FILL = SAMPLE + "import hf_genzoo\nfor repo in wanted: hf_genzoo.load(repo)\n"
BARE_FILL = (
    SAMPLE
    + """
from diffusers import DiffusionPipeline
for repo, (options, coded) in wanted.items():
    DiffusionPipeline.from_pretrained(repo, **({"trust_remote_code": True} if coded else {}))
"""
)


@pytest.mark.parametrize(("fill", "code"), [(FILL, OFFLINE), (BARE_FILL, BARE_OFFLINE)], ids=["with", "without"])
def test_offline_from_the_cache(fill: str, code: str, served, bare_python: Path, tmp_path: Path) -> None:
    server, folders = served
    python = sys.executable if code == OFFLINE else bare_python
    words = wanted(folders)
    run_python(python, fill, tmp_path, server.environment(None), words)
    asked = len(server.requests)
    run_python(python, code, tmp_path, {**server.environment(None), "HF_HUB_OFFLINE": "1"}, words)
    assert len(server.requests) == asked
    for repo, (_, options) in FOLDERS.items():
        drawn = np.load(tmp_path / f"{repo.split('/')[1]}-offline.npy")
        assert np.array_equal(drawn, draw(load(folders[repo]), **options))


VERSIONS = (
    SAMPLE
    + """
from diffusers import DiffusionPipeline

for repo in wanted:
    pipeline = DiffusionPipeline.from_pretrained(repo, trust_remote_code=True)
    np.save(f"{repo.split('/')[1]}-{sys.argv[2]}.npy", draw(pipeline))
    later = pipeline if repo == wanted[0] else None
    first = later or first
np.save(f"{wanted[0].split('/')[1]}-{sys.argv[2]}-again.npy", draw(first))
"""
)


def test_two_versions_of_the_code_in_one_process(served, bare_python: Path, tmp_path: Path) -> None:
    """Another version of the pipeline's file paints the negative: each repository runs its own, in either order."""
    server, folders = served
    other = export(tiny_vae(), tmp_path / "negative")
    other_code(other, ("mean_image = self.vae.mean_image(", "mean_image = -self.vae.mean_image("))
    put(server, "tester/negative", other)
    plain = draw(load(folders["tester/vae"]))
    for order in (["tester/vae", "tester/negative"], ["tester/negative", "tester/vae"]):
        home = tmp_path / order[0].split("/")[1]
        run_python(bare_python, VERSIONS, home, server.environment(None), json.dumps(order), "x")
        assert np.array_equal(np.load(home / "vae-x.npy"), plain)
        assert np.allclose(np.load(home / "negative-x.npy"), 1.0 - plain, atol=1e-6)
        first = np.load(home / f"{order[0].split('/')[1]}-x-again.npy")
        assert np.array_equal(first, np.load(home / f"{order[0].split('/')[1]}-x.npy")), "the later one changed it"
    with pytest.warns(UserWarning, match="exported with another version of hf_genzoo.pipelines.vae"):
        assert np.array_equal(draw(load(other)), plain), "with the package its own classes run"


def test_revision_variant_and_dtype(hub: HubServer, tmp_path: Path) -> None:
    folder = export(tiny_vae(), tmp_path / "vae", training=TRAINING)
    before = model_hash(folder)
    assert add_variant(folder, "fp16") == [Path("vae/diffusion_pytorch_model.fp16.safetensors")]
    assert model_hash(folder) == before, "the same model in another precision"
    first = put(hub, "tester/vae", folder)
    put(hub, "tester/vae", export(tiny_vae(seed=1), tmp_path / "second"))
    plain = draw(load(folder))
    assert np.array_equal(draw(load("tester/vae", revision=first)), plain)
    assert not np.allclose(draw(load("tester/vae")), plain)
    half = load("tester/vae", revision=first, variant="fp16", torch_dtype=torch.float16)
    assert half.vae.dtype == torch.float16
    assert "fp16" in " ".join(hub.requests)
    widened = load("tester/vae", revision=first, variant="fp16", torch_dtype=torch.float32)
    assert 0.0 < np.abs(draw(widened) - plain).max() < 1e-2
    with pytest.raises(ValueError, match="unknown variant 'fp8'; choose one of fp16, bf16"):
        add_variant(folder, "fp8")
    with pytest.raises(ValueError, match="variant=bf16"):
        load("tester/vae", revision=first, variant="bf16")


def test_a_private_repository_needs_a_token(hub: HubServer, tmp_path: Path) -> None:
    folder = export(tiny_vae(), tmp_path / "vae")
    put(hub, "tester/private", folder, private=True)
    with pytest.raises(ValueError, match=r"'tester/private' is no folder here.*private.*`hf auth login`"):
        load("tester/private", token=False)
    assert np.array_equal(draw(load("tester/private", token=TOKEN)), draw(load(folder)))


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
