"""Versions of installed packages, for records of what numbers were made with."""

from collections.abc import Sequence
from importlib import metadata


def installed_versions(packages: Sequence[str]) -> dict[str, str]:
    """Version of each package by name; one that is not installed is left out."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
