"""The code published beside weights: which classes need it, how the files are named, and what they may import."""

import ast
import inspect
import re
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

from hf_genzoo.hub.inline import inlined
from hf_genzoo.hub.layout import STOCK_LIBRARIES, content_hash, split_pipeline_stem, split_stem, text_of

ALLOWED_IMPORTS = frozenset({"numpy", "PIL", "torch", *STOCK_LIBRARIES})

# diffusers scans a code file for imports line by line with these two patterns, in docstrings too: it imports what the
# first group names and downloads what a relative one names.
_SCANNED_IMPORT = re.compile(r"^\s*(?:import\s+(\S+)\s*$|from\s+(\S+)\s+import)")


_ADDED = "\n\n# Added by hf_genzoo at export: a copy made with `save_pretrained` takes its code along.\n"


class PublishedFileError(ValueError):
    """A file cannot be published because it is not self-contained."""


def check_published_file(path: str | Path) -> None:
    """Check that a file, with its parts put in (`inlined`), imports only what every user of diffusers has.

    Allowed are the standard library, numpy, PIL, torch, diffusers and transformers. Imports inside functions count, so
    do `importlib.import_module("...")`, `__import__("...")`, and lines of a docstring that diffusers would take for an
    import. Only an `import_module` whose failure is caught on the spot may name another package.

    Raises:
        PublishedFileError: Naming file, line and what is imported there.
    """
    path = Path(path)
    try:
        text = inlined(text_of(path))
        tree = ast.parse(text)
    except SyntaxError as error:
        raise PublishedFileError(f"{path}:{error.lineno}: not valid Python: {error.msg}") from error
    except ValueError as error:
        raise PublishedFileError(f"{path}: {error}") from error
    for line, module in _imports(tree, text):
        root = module.split(".")[0]
        if module.startswith("."):
            reason = "a relative import, which is not downloaded with the file"
        elif root not in ALLOWED_IMPORTS and root not in sys.stdlib_module_names:
            reason = f"{root!r}, which somebody who only has diffusers does not have"
        else:
            continue
        raise PublishedFileError(
            f"{path}:{line}: imports {reason}. A published file may import the standard library and"
            f" {', '.join(sorted(ALLOWED_IMPORTS))}; move what it needs into the file itself, or"
            " into a part that several share (hf_genzoo.hub.inline)."
        )


def _imports(tree: ast.Module, text: str) -> list[tuple[int, str]]:
    found = []
    optional = {id(node) for attempt in ast.walk(tree) if _catches_import_error(attempt) for node in ast.walk(attempt)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.lineno, "." * node.level + (node.module or "")))
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
            if called == "import_module" and id(node) in optional:
                continue
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                found.append((node.lineno, node.args[0].value))
    for number, line in enumerate(text.split("\n"), start=1):
        match = _SCANNED_IMPORT.match(line)
        if match:
            found.append((number, match[1] or match[2]))
    return sorted(set(found))


def _catches_import_error(node: ast.AST) -> bool:
    return isinstance(node, ast.Try) and any(
        isinstance(handler.type, ast.Name) and handler.type.id in ("ImportError", "ModuleNotFoundError")
        for handler in node.handlers
    )


@dataclass(frozen=True)
class CodeFile:
    """One code file of a repository.

    Args:
        stem: Its unique name without ".py".
        class_name: The class the index names in it.
        text: Its content.
    """

    stem: str
    class_name: str
    text: str


def is_stock(cls: type) -> bool:
    """Whether a class comes with diffusers or transformers, so that a repository needs no code for it."""
    return cls.__module__.split(".")[0] in STOCK_LIBRARIES


def unwrap(component: Any) -> Any:
    """The module inside a compiled one (`torch.compile` wraps it in a private class)."""
    return getattr(component, "_orig_mod", component)


def code_file(cls: type, prefix: str | None = None) -> CodeFile:
    """The file to publish for a class that is not stock.

    The name is the module's own name (or `prefix`, for a pipeline, whose file gets an addition: `pipeline_text`) with
    the hash of the text. A class that was loaded from a repository keeps its name, because its text is the same.

    Raises:
        PublishedFileError: The class has no source file, is not at the top level of it, breaks the import rule, or its
            name would be taken for a module of diffusers.
    """
    path = _source_file(cls)
    check_published_file(path)
    if "." in cls.__qualname__:
        raise PublishedFileError(f"{path}: {cls.__qualname__} must be defined at the top level of its file")
    text = text_of(path)
    _warn_if_edited(cls, path, text)
    text = pipeline_text(text, cls.__name__) if prefix else text
    stem = f"{prefix or _own_name(path)}_{content_hash(text)}"
    _check_clash(stem, cls)
    return CodeFile(stem, cls.__name__, text)


def pipeline_text(text: str, class_name: str) -> str:
    """What is published of a pipeline's file: the file with its parts, and `hf_genzoo.hub.portable` behind it.

    A file that was itself published gets the present version of that addition.
    """
    addition = text_of(Path(__file__).with_name("portable.py"))
    return f"{inlined(text.partition(_ADDED)[0])}{_ADDED}{addition}\n\ntake_code_along({class_name})\n"


def _source_file(cls: type) -> Path:
    try:
        source = inspect.getsourcefile(cls)
    except TypeError as error:
        raise PublishedFileError(f"{cls.__module__}.{cls.__name__} has no source file to publish") from error
    if source is None or not Path(source).is_file():
        raise PublishedFileError(
            f"{cls.__module__}.{cls.__name__} has no source file to publish (looked for {source})"
        )
    return Path(source)


def _warn_if_edited(cls: type, path: Path, text: str) -> None:
    """Warn when the file was edited after it was imported: what is published is then not what was trained.

    Compared are the byte code, names and constants of the class's methods; comments and line numbers may differ.
    """
    written, todo = set(), [compile(text, str(path), "exec")]
    while todo:
        code = todo.pop()
        written.add(_essence(code))
        todo += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    for name, member in vars(cls).items():
        function = inspect.unwrap(getattr(member, "__func__", member)) if callable(member) else None
        code = getattr(function, "__code__", None)
        if code is not None and Path(code.co_filename) == path and _essence(code) not in written:
            warnings.warn(
                f"{path} was edited after it was imported ({cls.__name__}.{name} is not what runs here): the published"
                " code may not fit the weights",
                UserWarning,
                stacklevel=4,
            )
            return


def _essence(code: CodeType) -> tuple:
    constants = tuple(repr(constant) for constant in code.co_consts if not isinstance(constant, CodeType))
    return code.co_name, code.co_code, code.co_names, constants


def _own_name(path: Path) -> str:
    parts = split_pipeline_stem(path.stem) or split_stem(path.stem)
    name = parts[0] if parts else path.stem
    return re.sub(r"\W", "_", name)


def _check_clash(stem: str, cls: type) -> None:
    # The loader asks `hasattr(diffusers.pipelines, name)` before it looks for a file of that name, and, when a
    # pipeline is saved, for the last but one part of the module's path: ["ddpm", "Net"] would mean diffusers' own.
    from diffusers import pipelines

    package = cls.__module__.split(".")[-2:-1]
    for name in (stem, *package):
        if hasattr(pipelines, name):
            raise PublishedFileError(
                f"{cls.__module__}.{cls.__name__}: diffusers.pipelines has a module {name!r} and would load that"
                " instead; rename the file or its folder"
            )
