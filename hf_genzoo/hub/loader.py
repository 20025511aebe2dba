"""Open an exported folder or Hub repository with the installed classes: no trust flag, nothing remote runs.

diffusers insists on a trust flag as soon as a repository holds code files, and then runs them, even where the package
they come from is installed. So the loader never shows it those files: it builds a view of the repository, a temporary
folder of links to everything but code, with an index that names the installed classes, and hands the view to the
pipeline's own `from_pretrained`.
"""

import inspect
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from diffusers.pipelines import pipeline_utils
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hf_genzoo.hub import installed
from hf_genzoo.hub.layout import INDEX, PICKLE_SUFFIXES, Index, LayoutError, is_hidden, read_index

_DTYPE = "dtype" if hasattr(pipeline_utils, "_resolve_dtype") else "torch_dtype"  # renamed in diffusers 0.42
_ADOPTED = "_hf_genzoo_adopted"


def load(
    repo_or_folder: str | Path,
    *,
    revision: str | None = None,
    torch_dtype: torch.dtype | None = None,
    device_map: str | None = None,
    variant: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> DiffusionPipeline:
    """Load a pipeline with the installed classes.

    A repository made of stock classes only loads as diffusers loads it. Where the repository's code files differ from
    the installed modules (another version of the package), the installed ones are used and a warning says so.

    Args:
        repo_or_folder: A local folder, or "user/name" on the Hub.
        revision: Branch, tag or commit on the Hub.
        torch_dtype: Data type of the weights; as saved if None.
        device_map: As in `DiffusionPipeline.from_pretrained` ("cpu", "cuda", "balanced").
        variant: Weights saved under that variant, such as "fp16".
        cache_dir: Where downloads are kept; the Hub's usual cache if None.
        token: Access token for private repositories.
        local_files_only: Use the cache only.

    Raises:
        LayoutError: Not an exported pipeline, or it needs classes that neither diffusers nor this version has.
        EnvironmentError: The repository cannot be reached or found.
    """
    hub = {"cache_dir": cache_dir, "token": token, "local_files_only": local_files_only}
    origin = os.fspath(repo_or_folder)
    options = {_DTYPE: torch_dtype, "device_map": device_map, "variant": variant}
    options = {name: value for name, value in options.items() if value is not None}
    found = fetch_index(origin, revision=revision, **hub)
    index = read_index(found)
    if not installed.is_ours(index):
        _refuse_foreign(index, origin)
        return DiffusionPipeline.from_pretrained(origin, revision=revision, **hub, **options)
    cls = installed.pipeline_class(index, origin)
    folder = fetch_rest(origin, found, index, variant=variant, **hub)
    with view(folder, index, origin) as shown:
        return _named(_plain_from_pretrained(cls)(cls, str(shown), use_safetensors=True, **options), shown, origin)


def fetch_index(
    repo_or_folder: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Path:
    """A local folder that holds the `model_index.json`: the folder itself, or the beginning of a snapshot.

    Raises:
        LayoutError: Neither a folder nor a repository that can be read, or one without an index.
    """
    if Path(repo_or_folder).is_dir():
        return Path(repo_or_folder)
    try:
        file = hf_hub_download(
            repo_or_folder,
            INDEX,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
        )
    except HFValidationError as error:
        raise LayoutError(f"{repo_or_folder!r} is no folder here, and no repository id: {error}") from error
    except RepositoryNotFoundError as error:
        raise LayoutError(
            f"{repo_or_folder!r} is no folder here, and no repository that can be read; a private one needs"
            f" `hf auth login` or token=...: {error}"
        ) from error
    except RevisionNotFoundError as error:
        raise LayoutError(f"{repo_or_folder} has no branch, tag or commit {revision!r}") from error
    except LocalEntryNotFoundError as error:
        raise LayoutError(f"{repo_or_folder!r} is no folder here, and cannot be had from the Hub: {error}") from error
    except EntryNotFoundError as error:
        raise LayoutError(f"{repo_or_folder} holds no {INDEX}: it is not an exported pipeline") from error
    except HfHubHTTPError as error:
        advice = "; is the token right? `hf auth login` takes a new one" if error.response.status_code == 401 else ""
        raise LayoutError(
            f"{repo_or_folder!r} is no folder here, and cannot be had from the Hub{advice}: {error}"
        ) from error
    return Path(file).parent


def fetch_rest(
    repo_or_folder: str,
    found: Path,
    index: Index,
    *,
    variant: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Path:
    """Download what loading needs beside the index, without code and pickles, of the index's own commit."""
    if Path(repo_or_folder).is_dir():
        return found
    ignored = ["*.py", *(f"*{suffix}" for suffix in PICKLE_SUFFIXES)]
    if variant is None:
        ignored.append("*.*.safetensors")  # weights.fp16.safetensors: another variant
    folder = snapshot_download(
        repo_or_folder,
        revision=found.name,  # snapshots/<commit>/model_index.json
        allow_patterns=[INDEX, *(f"{name}/*" for name in index.components)],
        ignore_patterns=ignored,
        cache_dir=cache_dir,
        token=token,
        local_files_only=local_files_only,
    )
    return Path(folder)


@contextmanager
def view(folder: Path, index: Index, where: str) -> Iterator[Path]:
    """A temporary folder that shows a repository without code and pickles, its index naming the installed classes.

    Links are enough: weights are read, or mapped by inode, before the view is removed.
    """
    raw = installed.local_index(index, where)
    with tempfile.TemporaryDirectory(prefix="genzoo-view-") as name:
        shown = Path(name)
        for component in index.components:
            source = folder / component
            if not source.is_dir():
                raise LayoutError(f"{where} holds no folder {component!r}, which its {INDEX} names")
            for path in source.rglob("*"):
                relative = path.relative_to(folder)
                if path.is_file() and path.suffix not in (".py", *PICKLE_SUFFIXES) and not is_hidden(relative):
                    (shown / relative).parent.mkdir(parents=True, exist_ok=True)
                    _link(path.resolve(), shown / relative)
        (shown / INDEX).write_text(json.dumps(raw, indent=2), encoding="utf-8")
        try:
            yield shown
        except OSError as error:  # such as missing weights: say where, not where the view was
            if str(shown) in str(error):
                raise OSError(str(error).replace(str(shown), str(folder))) from error
            raise


def _link(source: Path, target: Path) -> None:
    for make in (os.symlink, os.link, shutil.copyfile):  # no right to link on some Windows and network disks
        try:
            make(source, target)
            return
        except OSError:
            target.unlink(missing_ok=True)
    raise OSError(f"could not link or copy {source} to {target}")


def _refuse_foreign(index: Index, where: str) -> None:
    library = index.pipeline[0]
    if library is not None:
        raise LayoutError(
            f"{where} was not exported by hf_genzoo: its pipeline is {library}.{index.pipeline[1]}. If you trust its"
            " code: DiffusionPipeline.from_pretrained(..., trust_remote_code=True)"
        )


def _named(pipeline: DiffusionPipeline, shown: Path, origin: str | Path) -> DiffusionPipeline:
    """Record where the pipeline really came from, in place of the view's temporary path."""
    pipeline.register_to_config(_name_or_path=str(origin))
    for component in pipeline.components.values():
        config: Any = getattr(component, "config", None)
        old = getattr(config, "_name_or_path", None)
        if not isinstance(old, str) or not old.startswith(str(shown)):
            continue
        new = f"{origin}{old[len(str(shown)) :]}"
        if hasattr(component, "register_to_config"):
            component.register_to_config(_name_or_path=new)
        else:
            config._name_or_path = new  # a transformers configuration
    return pipeline


def _plain_from_pretrained(cls: type[DiffusionPipeline]) -> Callable[..., DiffusionPipeline]:
    """diffusers' own `from_pretrained` of a class, below the one `adopt` has put over it."""
    function = inspect.getattr_static(cls, "from_pretrained").__func__
    return getattr(function, _ADOPTED, function)


def adopt(module: ModuleType) -> None:
    """Let every pipeline class a module defines open our repositories: `VAEPipeline.from_pretrained(repo)`.

    The file itself cannot do it, since it is published to people without this package; the import hook of
    `hf_genzoo.pipelines` calls this after it has run.
    """
    for cls in list(vars(module).values()):
        if isinstance(cls, type) and issubclass(cls, DiffusionPipeline) and cls.__module__ == module.__name__:
            function = inspect.getattr_static(cls, "from_pretrained").__func__
            if not hasattr(function, _ADOPTED):  # a subclass of an adopted class has it already
                cls.from_pretrained = classmethod(_adopted(function))  # type: ignore[method-assign]


def _adopted(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def from_pretrained(cls: type, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Any:
        """As `DiffusionPipeline.from_pretrained`, with the installed classes in place of a repository's code files."""
        origin = os.fspath(pretrained_model_name_or_path)
        hub = {
            name: kwargs[name] for name in ("cache_dir", "token", "local_files_only") if kwargs.get(name) is not None
        }
        found = fetch_index(origin, revision=kwargs.get("revision"), **hub)
        index = read_index(found)
        if not installed.is_ours(index):
            return function(cls, origin, **kwargs)
        named = installed.pipeline_class(index, origin)
        if not (issubclass(cls, named) or issubclass(named, cls)):
            raise LayoutError(f"{origin} holds a {named.__name__}, not a {cls.__name__}")
        kwargs.pop("revision", None)
        kwargs.pop("trust_remote_code", None)  # nothing remote to trust
        kwargs.setdefault("use_safetensors", True)  # else diffusers would fall back to pickles
        folder = fetch_rest(origin, found, index, variant=kwargs.get("variant"), **hub)
        with view(folder, index, origin) as shown:
            return _named(function(cls, str(shown), **kwargs), shown, origin)

    setattr(from_pretrained, _ADOPTED, function)
    return from_pretrained
