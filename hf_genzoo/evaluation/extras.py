"""Packages that measuring needs and the rest of hf_genzoo does not."""

from importlib.util import find_spec


def require(*modules: str) -> None:
    """Refuse to begin work that could not be finished.

    Raises:
        ValueError: naming what is missing and how to install it.
    """
    if missing := [module for module in modules if find_spec(module) is None]:
        raise ValueError(f'measuring needs {", ".join(missing)}: pip install "hf_genzoo[evaluation]"')
