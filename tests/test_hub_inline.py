"""Shared parts are put into published files: once each, in order, and only where the import allows it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from hf_genzoo.hub import PublishedFileError, check_published_file
from hf_genzoo.hub.inline import inlined

PIPELINES = Path(__file__).resolve().parent.parent / "pipelines"


@pytest.mark.parametrize("path", sorted(PIPELINES.glob("[!_]*.py")), ids=lambda path: path.stem)
def test_published_text_defines_each_thing_once_and_stays_as_it_is(path: Path) -> None:
    text = inlined(path.read_text())
    imports = [ast.unparse(n) for n in ast.walk(ast.parse(text)) if isinstance(n, (ast.Import, ast.ImportFrom))]
    assert "hf_genzoo" not in "\n".join(imports)
    defined = [node.name for node in ast.parse(text).body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    assert len(defined) == len(set(defined))
    assert inlined(text) == text
    own = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    assert set(own) <= set(defined)


def test_published_text_runs_where_the_package_is_not_installed(tmp_path: Path) -> None:
    (tmp_path / "published.py").write_text(inlined((PIPELINES / "vae.py").read_text()))
    code = (
        "import sys; sys.modules['hf_genzoo'] = None; sys.modules['sklearn'] = None\n"
        "import published, numpy as np\n"
        "print(published.VAEPipeline.latent_map.__name__, published.lay_out(np.eye(9)).points.shape)\n"
        "try: published.lay_out(np.eye(9), method='tsne')\n"
        "except ImportError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[0] == "latent_map (9, 2)"
    assert "needs scikit-learn" in run.stdout.splitlines()[1]


@pytest.mark.parametrize(
    "line",
    [
        "from hf_genzoo.pipelines._pictures import to_pixels as pixels",
        "from hf_genzoo.pipelines._pictures import *",
        "def f():\n    from hf_genzoo.pipelines._pictures import to_pixels",
    ],
)
def test_imports_that_have_no_replacement_are_refused(line: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"import hf_genzoo\.pipelines\._pictures at the top level, name by name"):
        inlined(f"{line}\n")
    (tmp_path / "code.py").write_text(f"{line}\n")
    with pytest.raises(PublishedFileError, match=r"code\.py"):
        check_published_file(tmp_path / "code.py")


def test_only_a_caught_import_may_name_another_package(tmp_path: Path) -> None:
    caught = "import importlib\ntry:\n    m = importlib.import_module('sklearn')\nexcept {}:\n    m = None\n"
    (tmp_path / "good.py").write_text(caught.format("ImportError"))
    check_published_file(tmp_path / "good.py")
    for text in (caught.format("KeyError"), "import importlib\nimportlib.import_module('sklearn')\n"):
        (tmp_path / "bad.py").write_text(text)
        with pytest.raises(PublishedFileError, match="'sklearn'"):
            check_published_file(tmp_path / "bad.py")
    (tmp_path / "bad.py").write_text("try:\n    import sklearn\nexcept ImportError:\n    pass\n")
    with pytest.raises(PublishedFileError, match="'sklearn'"):  # diffusers would look for it before it runs the file
        check_published_file(tmp_path / "bad.py")
