"""Files that are whole or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write to; once it is written it takes the place of `path`, and if that fails nothing is left of it.

    Each writer has a name of its own: two processes that write the same file both succeed.
    """
    aside = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
