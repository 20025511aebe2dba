"""The calls in a card's Python blocks that load its model, and the commit they name."""

import ast
import re

WIDTH = 100  # columns of a code block that a reader sees without scrolling
LOADERS = ("load", "from_pretrained")

_BLOCK = re.compile(r"(^```python\n)(.*?)(^```)", re.DOTALL | re.MULTILINE)


def with_revision(card: str, location: str, revision: str | None) -> str:
    """The card with `revision="..."` in every call that loads `location`, or in none of them.

    The calls are written anew in one style, so that the result depends on their arguments only: setting a revision and
    taking it out again gives what taking it out alone gives. Calls that load something else are left alone, and so are
    blocks that are not Python.

    Args:
        card: Text of a README.
        location: First argument of the calls: a folder or a repository.
        revision: A commit; None takes the revisions out.
    """
    return _BLOCK.sub(lambda block: block[1] + _in_block(block[2], location, revision) + block[3], card)


def _in_block(code: str, location: str, revision: str | None) -> str:
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return code
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _loads(node, location)]
    for call in sorted(calls, key=lambda call: (call.lineno, call.col_offset), reverse=True):
        lines = code.splitlines(keepends=True)
        start = _offset(lines, call.lineno, call.col_offset)
        end = _offset(lines, call.end_lineno or 0, call.end_col_offset or 0)
        before = code[:start].rpartition("\n")[2]
        after = code[end:].partition("\n")[0]
        code = code[:start] + _written(call, code, revision, before, after) + code[end:]
    return code


def _loads(call: ast.Call, location: str) -> bool:
    named = isinstance(call.func, ast.Attribute) and call.func.attr in LOADERS
    first = call.args[0] if call.args else None
    return named and isinstance(first, ast.Constant) and first.value == location


def _offset(lines: list[str], line: int, column: int) -> int:
    """Position in the text of what `ast` gives as a line and a column in UTF-8 bytes."""
    inside = lines[line - 1].encode()[:column].decode()
    return sum(map(len, lines[: line - 1])) + len(inside)


def _written(call: ast.Call, code: str, revision: str | None, before: str, after: str) -> str:
    """The call as text, on one line where there is room."""

    def text(node: ast.AST) -> str:
        return ast.get_source_segment(code, node) or ""

    arguments = [text(argument) for argument in call.args]
    if revision is not None:
        arguments.append(f'revision="{revision}"')
    for keyword in call.keywords:
        if keyword.arg != "revision":
            arguments.append(f"{keyword.arg}={text(keyword.value)}" if keyword.arg else f"**{text(keyword.value)}")
    name = text(call.func)
    flat = f"{name}({', '.join(arguments)})"
    if len(before) + len(flat) + len(after) <= WIDTH:
        return flat
    indent = before[: len(before) - len(before.lstrip())]
    inner = f"{indent}    {', '.join(arguments)}\n"
    if len(inner) > WIDTH:
        inner = "".join(f"{indent}    {argument},\n" for argument in arguments)
    return f"{name}(\n{inner}{indent})"
