"""Push to a Hub on loopback with the real clients, and load back from it in clean interpreters."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import HubServer
from hub_toys import TRAINING, tiny_vae, tree

from hf_genzoo.hub import export, push
from hf_genzoo.hub.layout import LayoutError, model_hash
from hf_genzoo.hub.publisher import PushError

REPO = "tester/vae-digits"

PUSH_AND_LOAD = """
import sys
from huggingface_hub import HfApi
from hf_genzoo.hub import load, push, report, verify
from hf_genzoo.pipelines import VAEPipeline

folder, repo = sys.argv[1:]
first = push(folder, repo, private=True)
again = push(folder, repo)
assert first == again, (first, again)
print("commit", first)
for pipeline in (load(repo), VAEPipeline.from_pretrained(repo), load(repo, local_files_only=True)):
    assert type(pipeline) is VAEPipeline, pipeline
    assert pipeline.config["_name_or_path"] == repo
results = verify(repo, revision=first.split("/")[-1])
print(report(results))
assert len(results) == 4 and all(result.ok for result in results)
try:
    load(repo, token=False, cache_dir=folder + "-other")
except ValueError as error:
    print("refused", error)
"""


def run(code: str, hub: HubServer, home: Path, *arguments: str) -> str:
    env = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", **hub.environment()}
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return done.stdout


def test_push_uploads_one_whole_commit_that_loads_back(tmp_path: Path) -> None:
    folder = export(tiny_vae(), tmp_path / "vae", training=TRAINING)
    kept_home = ("checkpoint-4/optimizer.bin", "logs/events", "samples/0000004.png", "optimizer.bin", ".cache/x.json")
    published = set(tree(folder))
    for name in kept_home:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("stays at home", encoding="utf-8")
    before = tree(folder)
    with HubServer() as hub:
        output = run(PUSH_AND_LOAD, hub, tmp_path / "home", str(folder), REPO)
        repo = hub.repos[REPO]
        assert repo.private
        assert len(repo.commits) == 2, "the creation and one commit; the unchanged second push makes none"
        assert f"commit {hub.url}/{REPO}/commit/{repo.commits[-1].sha}" in output
        files = repo.commits[-1].files
        assert set(files) - {".gitattributes"} == published
        assert {name: data for name, data in files.items() if name != "README.md"}.items() <= {
            **before,
            ".gitattributes": b"",
        }.items()
        assert str(folder) not in files["README.md"].decode()
        assert f'hf_genzoo.load("{REPO}")' in files["README.md"].decode()
        assert f"refused '{REPO}' is no folder here" in output
        assert "hf auth login" in output
        assert not [request for request in hub.requests if "optimizer" in request]
    assert tree(folder) == before


def test_what_can_fail_here_fails_before_the_hub_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", unreachable)
    folder = export(tiny_vae(), tmp_path / "vae")
    with pytest.raises(LayoutError, match=r"holds no model_index\.json"):
        push(tmp_path, REPO, token="hf_secret")
    with pytest.raises(PushError, match="'vae' lacks its owner: pass 'user/vae'"):
        push(folder, "vae", token="hf_secret")
    with pytest.raises(PushError, match="is not a repository name"):
        push(folder, "user/vae--..", token="hf_secret")
    monkeypatch.setattr("hf_genzoo.hub.publisher.get_token", lambda: None)
    with pytest.raises(PushError, match="hf auth login"):
        push(folder, REPO)
    (folder / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(PushError, match=r"not fit to be published:\n- vae/diffusion_pytorch_model.bin is a pickle"):
        push(folder, REPO, token="hf_secret")


MEASURE = """
import json, sys
import hf_genzoo

results = hf_genzoo.evaluate(
    sys.argv[1], dataset_name="digits", num_channels=1, resolution=8, num_samples=60, extractor=["pca"], use_cpu=True
)
print("hash", results["model"]["hash"])
"""


def test_a_repository_is_measured_without_touching_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = export(tiny_vae(), tmp_path / "vae", training=TRAINING)
    monkeypatch.chdir(tmp_path)
    with HubServer() as hub:
        run(PUSH_AND_LOAD.split("for pipeline in")[0], hub, tmp_path / "home", str(folder), REPO)
        output = run(MEASURE, hub, tmp_path / "home", REPO)
    assert f"hash {model_hash(folder)}" in output
    assert (tmp_path / "outputs" / "evaluation" / "tester--vae-digits" / "results.json").is_file()
    assert not (folder / "results.json").exists()
