"""`verify` in real interpreters: a good folder passes, and each kind of damage is found and told, not raised."""

import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hub_toys import other_code, tiny_ddpm, tiny_vae
from ways import verify_all

from hf_genzoo.hub import export, load, report, verify
from hf_genzoo.hub.check_folder import check_folder
from hf_genzoo.hub.verifier import Result


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return export(tiny_vae(), tmp_path / "a folder")


def named(results: list[Result], start: str) -> Result:
    (result,) = [result for result in results if result.way.startswith(start)]
    return result


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Result]]:
    """Four folders verified side by side: two by `verify`, and two that are broken by what runs many at once."""
    home = tmp_path_factory.mktemp("verified")
    good, stock = export(tiny_vae(), home / "a good folder"), export(tiny_ddpm(), home / "stock")
    broken = {name: export(tiny_vae(), home / name) for name in ("needs the package", "ignores the generator")}
    other_code(broken["needs the package"], ("import torch\n", "import hf_genzoo\nimport torch\n"))
    change = ("generator=generator, device=self._execution_device", "device=self._execution_device")
    other_code(broken["ignores the generator"], change)
    (home / "work").mkdir()
    with ThreadPoolExecutor() as pool:
        both, one = pool.submit(verify, good), pool.submit(verify, stock, ways=[3])
        return {**verify_all(broken, home / "work"), "good": both.result(), "stock": one.result()}


def test_a_good_folder_passes_both_ways_with_equal_samples(seen: dict[str, list[Result]]) -> None:
    results = seen["good"]
    assert [result.way.split(" (")[0] for result in results] == [
        "files",
        "without hf_genzoo",
        "with hf_genzoo",
        "same samples in all ways",
    ]
    assert all(result.ok for result in results), report(results)
    assert "diffusers_modules.local.pipeline_vae_" in named(results, "without").detail
    assert "VAEPipeline.from_pretrained: hf_genzoo.pipelines.vae.VAEPipeline" in named(results, "with ").detail
    assert "6 samples of shape (2, 8, 8, 1), equal value by value" in named(results, "same").detail
    assert report(results).count("ok  ") == 4


def test_a_stock_folder_passes_without_remote_code(seen: dict[str, list[Result]]) -> None:
    files, stock = seen["stock"]
    assert files.ok
    assert stock.ok, report([stock])
    assert stock.way.startswith("stock")
    assert "DDIMPipeline.from_pretrained" in stock.detail


def test_code_that_needs_the_package_fails_without_it(seen: dict[str, list[Result]]) -> None:
    results = seen["needs the package"]
    assert "imports 'hf_genzoo'" in named(results, "files").detail
    way = named(results, "without")
    assert not way.ok
    assert "No module named 'hf_genzoo'" in way.detail
    assert "without hf_genzoo (remote code trusted) failed" in named(results, "same").detail


def test_samples_that_do_not_come_from_the_generator_fail(seen: dict[str, list[Result]]) -> None:
    results = seen["ignores the generator"]
    assert named(results, "files").ok
    way = named(results, "without")
    assert not way.ok
    assert "the same seed does not give the same sample twice: values differ by up to" in way.detail
    assert named(results, "with ").ok, "the installed class does use it"


def test_missing_weights_fail(folder: Path) -> None:
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    results = verify(folder, ways=[])
    assert "vae/ holds no weights" in named(results, "files").detail
    assert report(results).startswith("FAIL files")
    (folder / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"no pickle is ever opened")
    with pytest.raises(OSError, match=r"diffusion_pytorch_model\.safetensors found in directory .*a folder"):
        load(folder)


def test_a_folder_that_is_none_and_a_way_that_is_none(tmp_path: Path) -> None:
    (result,) = verify(tmp_path)
    assert not result.ok
    assert "holds no model_index.json" in result.detail
    with pytest.raises(ValueError, match=r"unknown ways \[7\]"):
        verify(tmp_path, ways=[7])


# Files, without any interpreter


def pickled_weights(folder: Path) -> None:
    (folder / "vae" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps({"weight": 1}))


def pickle_in_disguise(folder: Path) -> None:
    (folder / "vae" / "extra.dat").write_bytes(pickle.dumps({"weight": 1}))


def cut_weights(folder: Path) -> None:
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def no_safetensors(folder: Path) -> None:
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"no such thing")


def edited_code(folder: Path) -> None:
    (path,) = folder.glob("*.py")
    path.write_text(path.read_text(encoding="utf-8") + "\n# edited\n", encoding="utf-8")


def orphaned_code(folder: Path) -> None:
    (path,) = folder.glob("*.py")
    shutil.copy(path, folder / "pipeline_vae_0123456789.py")


def missing_code(folder: Path) -> None:
    for path in folder.glob("vae/*.py"):
        path.unlink()


def orphaned_weights(folder: Path) -> None:
    shutil.copytree(folder / "vae", folder / "old_vae")


def missing_component(folder: Path) -> None:
    shutil.rmtree(folder / "vae")


def broken_card(folder: Path) -> None:
    (folder / "README.md").write_text("---\ntags: [a, b\n---\n", encoding="utf-8")


def no_card(folder: Path) -> None:
    (folder / "README.md").unlink()


def half_an_export(folder: Path) -> None:
    (folder / ".genzoo-export").mkdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (pickled_weights, "vae/diffusion_pytorch_model.bin is a pickle"),
        (pickle_in_disguise, "vae/extra.dat is a pickle"),
        (cut_weights, "diffusion_pytorch_model.safetensors is .* bytes long, but its header asks for"),
        (no_safetensors, "diffusion_pytorch_model.safetensors is not a safetensors file"),
        (edited_code, r"pipeline_vae_\w+.py was changed: its text has the hash"),
        (orphaned_code, "pipeline_vae_0123456789.py is named by nothing"),
        (missing_code, r"the code file vae/vae_\w+.py is missing"),
        (orphaned_weights, "old_vae/ holds weights but is not named by the index"),
        (missing_component, "the folder vae/ of ConvVAE is missing"),
        (broken_card, "the front matter of .* does not parse"),
        (no_card, "holds no README.md"),
        (half_an_export, "an export was interrupted"),
    ],
)
def test_damage_is_found_by_looking(folder: Path, damage, message: str) -> None:
    assert check_folder(folder) == []
    damage(folder)
    import re

    problems = check_folder(folder)
    assert any(re.search(message, problem) for problem in problems), problems
    (result,) = verify(folder, ways=[])
    assert not result.ok
