"""Everything between a pipeline in memory and a repository on the Hugging Face Hub.

`export` writes a Hub-ready folder, `load` opens a folder or repository with the installed classes, `verify` proves in
clean interpreters that it loads in every way it promises, `publish` puts it on the Hub whole or not at all. The
submodules are imported on first use, so that `import hf_genzoo.hub` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_genzoo.hub.card import render_card
    from hf_genzoo.hub.client import HubError
    from hf_genzoo.hub.code_files import PublishedFileError, check_published_file
    from hf_genzoo.hub.dataset_publisher import PushedData, push_data
    from hf_genzoo.hub.exporter import export
    from hf_genzoo.hub.loader import load
    from hf_genzoo.hub.publisher import Published, publish
    from hf_genzoo.hub.verifier import Result, report, verify

__all__ = [
    "HubError",
    "Published",
    "PublishedFileError",
    "PushedData",
    "Result",
    "check_published_file",
    "export",
    "load",
    "publish",
    "push_data",
    "render_card",
    "report",
    "verify",
]

# No submodule may be called like a function here: importing it would put the module in the function's place.
_HOMES = {
    "HubError": "client",
    "Published": "publisher",
    "PublishedFileError": "code_files",
    "PushedData": "dataset_publisher",
    "Result": "verifier",
    "check_published_file": "code_files",
    "export": "exporter",
    "load": "loader",
    "publish": "publisher",
    "push_data": "dataset_publisher",
    "render_card": "card",
    "report": "verifier",
    "verify": "verifier",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
