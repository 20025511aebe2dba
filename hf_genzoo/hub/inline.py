"""Parts that several published files share: written once here, put into each file when it is published.

A pipeline's file must stand alone on the Hub, and must not be a copy of its neighbour here; nor must a demo's file in
its Space. So they may import from the parts, `hf_genzoo.pipelines._<name>` and `hf_genzoo.images`, from the pipeline
they extend, and from the schedulers, and in the published text each such import is replaced by the text of the file it
names.
"""

import ast
import re
from importlib import resources

from hf_genzoo.hub.layout import text_of

_PART = re.compile(r"hf_genzoo\.(?:(?:pipelines|schedulers)\.\w+|images)")


def inlined(text: str) -> str:
    """A file's text with each part in place of the import that names it first.

    A text without such imports, like that of a published file, comes back as it is.

    Raises:
        ValueError: A part is imported in a way that has no such replacement: renamed, or not at the top level.
        SyntaxError: The text is not Python.
    """
    return _inlined(text, set())


def _inlined(text: str, done: set[str]) -> str:
    lines, tree = text.splitlines(keepends=True), ast.parse(text)
    replaced = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and _PART.fullmatch(node.module):
            if node not in tree.body or any(alias.asname or alias.name == "*" for alias in node.names):
                raise ValueError(f"line {node.lineno}: import {node.module} at the top level, name by name")
            replaced.append((node, node.module))
    parts = []
    for _, name in replaced:  # in the order of the file: a part may need an earlier one
        parts.append("" if name in done else _part(name, done))
        done.add(name)
    for (node, _), part in reversed(list(zip(replaced, parts, strict=True))):
        lines[node.lineno - 1 : node.end_lineno] = [part]
    return "".join(lines)


def _part(module: str, done: set[str]) -> str:
    """The text of a module without its docstring, between marks."""
    done.add(module)
    package, _, name = module.rpartition(".")
    text = text_of(resources.files(package) / f"{name}.py")  # type: ignore[arg-type]
    docstring = ast.parse(text).body[0]
    body = "".join(text.splitlines(keepends=True)[docstring.end_lineno :])
    title = name.removeprefix("_")
    return f"# Part {title} begins\n{_inlined(body, done).strip()}\n# Part {title} ends\n"
