"""Demos as Spaces: files that stand alone, and apps that run where hf_genzoo is not installed."""

import ast
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import yaml
from demo_models import tiny_ddpm
from hub_client import talk_to
from hub_server import TOKEN, HubServer
from hub_toys import tiny_vae
from huggingface_hub import HfApi
from PIL import Image

pytest.importorskip("gradio", reason="needs gradio for the demos")
pytest.importorskip("gradio_client", reason="needs gradio_client to drive the demos")

import gradio
from gradio_client import Client, handle_file

from hf_genzoo.demo.examples import Examples, load_examples
from hf_genzoo.demo.latent_model import LatentModel
from hf_genzoo.demo.space import space_files
from hf_genzoo.hub import export
from hf_genzoo.pipelines._latent_map import lay_out

MAKERS = {"ddpm": tiny_ddpm, "vae": tiny_vae}
SIDES = {"ddpm": 16, "vae": 8}


def exported(family: str, folder: Path) -> Path:
    """An exported folder whose record says that it was trained on the digits."""
    export(MAKERS[family](), folder, family=family)
    record = {"family": family, "args": {"dataset_name": "digits", "resolution": SIDES[family], "num_channels": 1}}
    (folder / "training.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def written(files: Mapping[str, bytes], folder: Path) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    return space_files(exported("vae", tmp_path_factory.mktemp("exported") / "vae"), "user/tiny", "0" * 40)


# What it holds


def test_its_files_stand_alone_and_define_everything_once(files: Mapping[str, bytes]) -> None:
    modules = {path: ast.parse(text) for path, text in files.items() if path.endswith(".py")}
    assert not {f"demo/{name}.py" for name in ("launcher", "space", "command_line", "playground_space")} & set(modules)
    classes: Counter[str] = Counter()
    for path, module in modules.items():
        for node in ast.walk(module):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] == "hf_genzoo"], path
        defined = [node.name for node in module.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
        targets = [target for node in module.body if isinstance(node, ast.Assign) for target in node.targets]
        defined += [target.id for target in targets if isinstance(target, ast.Name)]
        assert len(defined) == len(set(defined)), f"{path} defines {Counter(defined).most_common(1)} times"
        classes.update(node.name for node in module.body if isinstance(node, ast.ClassDef))
    assert {"LatentMap", "Frame", "LatentModel"} <= set(classes)
    assert set(classes.values()) == {1}, "two modules would have two classes of one name"


def test_its_front_matter_and_pins(files: Mapping[str, bytes], tmp_path: Path) -> None:
    front = yaml.safe_load(files["README.md"].decode().split("---\n")[1])
    assert (front["sdk"], front["sdk_version"], front["app_file"]) == ("gradio", gradio.__version__, "app.py")
    assert front["models"] == ["user/tiny"]
    pins = dict(line.split("==") for line in files["requirements.txt"].decode().splitlines())
    assert pins["gradio"] == gradio.__version__
    assert not any("+" in version for version in pins.values())
    (tmp_path / "e.npz").write_bytes(files["examples.npz"])
    assert len(load_examples(tmp_path / "e.npz")) == 500


def test_pictures_of_ones_own_stay_at_home(tmp_path: Path) -> None:
    folder = exported("ddpm", tmp_path / "private")
    record = json.loads((folder / "training.json").read_text())
    record["args"] |= {"dataset_name": None, "train_data_dir": str(tmp_path)}
    (folder / "training.json").write_text(json.dumps(record))
    assert "examples.npz" not in space_files(folder, "user/tiny", "0" * 40)


# How it runs

# Both apps in one interpreter, each as `python app.py` starts it; the folder `demo` is the same in both. Each leaves
# its address in its folder: gradio looks at GRADIO_SERVER_PORT only once.
SERVE = """
import importlib.util, sys, threading, time
from pathlib import Path

folders = [Path(word) for word in sys.argv[1:]]
sys.path.insert(0, str(folders[0]))
for folder in folders:
    spec = importlib.util.spec_from_file_location("app", folder / "app.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    start, address = module.start, folder / "address"
    module.start = lambda app: address.write_text(start(app))
    app = threading.Thread(target=module.main, daemon=True)
    app.start()
    while not (address.exists() and address.read_text()):
        assert app.is_alive()
        time.sleep(0.1)
app.join()
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Client]]:
    """A client of each Space. Both open their model from the Hub, where there is no hf_genzoo."""
    home = tmp_path_factory.mktemp("spaces")
    with HubServer() as hub, pytest.MonkeyPatch.context() as patch:
        talk_to(hub, patch, home / "cache")
        spaces = {family: space_of(family, hub, home) for family in MAKERS}
        assert (spaces["vae"] / "demo/map_tab.py").read_bytes() == (spaces["ddpm"] / "demo/map_tab.py").read_bytes()
        (spaces["ddpm"] / "hf_genzoo.py").write_text("raise ImportError('a Space has no hf_genzoo')\n")
        words = [str(spaces[family]) for family in MAKERS]
        hidden = {"HF_HOME": str(home / "home"), "GRADIO_TEMP_DIR": str(home / "gradio")}
        env = {**os.environ, **hub.environment(), **hidden, "HF_HUB_OFFLINE": "0"}
        log = home / "log"
        with log.open("w") as out:
            server = subprocess.Popen([sys.executable, "-c", SERVE, *words], cwd=home, env=env, stdout=out, stderr=out)
        try:
            yield {family: client_of(spaces[family], server, log) for family in MAKERS}
        finally:
            server.terminate()
            server.wait(30)


def space_of(family: str, hub: HubServer, home: Path) -> Path:
    """Publish a model; the folder of its Space."""
    folder = exported(family, home / family)
    client = HfApi(endpoint=hub.url, token=TOKEN)
    repo_id = client.create_repo(f"tiny-{family}").repo_id
    sha = client.upload_folder(repo_id=repo_id, folder_path=folder).oid
    return written(space_files(folder, repo_id, sha), home / f"{family} space")


def client_of(space: Path, server: subprocess.Popen, log: Path) -> Client:
    """A client, once the app has left its address."""
    deadline = time.monotonic() + 900  # gradio alone takes long to import on a busy machine
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        if (space / "address").exists() and (url := (space / "address").read_text()):
            return Client(url, verbose=False, download_files=log.parent / "client")
        time.sleep(0.3)
    raise AssertionError(log.read_text())


def pixels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L")).astype(int)


def test_a_stock_model_samples_without_hf_genzoo(served: dict[str, Client]) -> None:
    result = served["ddpm"].predict(count=2, classes=["star"], steps=3, api_name="/sample")
    assert "Done." in result[0]
    assert [picture["caption"] for picture in result[2]] == ["star", "star"]


@pytest.fixture(scope="module")
def model(files: Mapping[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> LatentModel:
    """The Space's model, here."""
    path = tmp_path_factory.mktemp("examples") / "examples.npz"
    path.write_bytes(files["examples.npz"])
    examples: Examples = load_examples(path)
    return LatentModel(tiny_vae(), examples)


def test_the_explorer_runs_on_the_models_own_published_code(served: dict[str, Client], model: LatentModel) -> None:
    client = served["vae"]
    assert model.latents is not None
    laid_out = lay_out(model.latents)
    x, y = (float(value) for value in laid_out.points[7])
    _, painted, _, said = client.predict("PCA", "Dots", x, y, api_name="/decode_place")
    assert f"The nearest picture is number {laid_out.nearest(x, y)}" in said
    wanted = np.asarray(model.decode(laid_out.latent_at(x, y)[None])[0]).astype(int)
    assert np.abs(pixels(painted)[::24, ::24] - wanted).max() <= 1
    client.predict("A random draw", 3, None, "1 to 3 of 3", api_name="/begin")
    rows = client.predict("1 to 3 of 3", api_name="/traverse")["value"]
    wanted = np.asarray(model.traversal(model.draw(3).tolist(), model.order.tolist(), 9)[0]).astype(int)
    assert np.abs(pixels(rows)[2:98, 2:98][::12, ::12] - wanted).max() <= 1


def test_ways_between_pictures_without_hf_genzoo(
    served: dict[str, Client], model: LatentModel, tmp_path: Path
) -> None:
    assert model.examples is not None
    ends = [model.examples.picture(number) for number in (0, 1)]
    for number, picture in enumerate(ends):
        picture.save(tmp_path / f"{number}.png")
    one, other = (handle_file(str(tmp_path / f"{number}.png")) for number in (0, 1))
    row, *_ = served["vae"].predict(one, other, 5, "spherical", api_name="/between")
    start, end = model.encode(ends)
    middle = np.asarray(model.between(start, end, 5, "spherical")[2]).astype(int)
    assert np.abs(pixels(row)[2:98, 2 + 2 * 98 : 2 * 98 + 98][::12, ::12] - middle).max() <= 1
