"""What the command lines share."""

import argparse
from typing import NoReturn

from hf_genzoo.hub.secrets import scrub


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults behind every flag, line breaks of the description and the examples kept."""


class DiscreetParser(argparse.ArgumentParser):
    """A parser whose messages, which repeat what was typed, show no access token."""

    def error(self, message: str) -> NoReturn:
        super().error(scrub(message))
