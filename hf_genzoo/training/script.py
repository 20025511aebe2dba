"""From a command line to a script's `main`."""

import sys
from collections.abc import Sequence
from types import ModuleType

from hf_genzoo.hub.secrets import scrub
from hf_genzoo.training.args import parse_args
from hf_genzoo.training.processes import end_process


def run_script(script: ModuleType, argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Parse the flags of a training script, run its `main`, and turn bad input into one line without a stack trace.

    Args:
        script: Module with `Args`, `PRESETS` (settings by name) and `main(args)`.
        argv: Words of the command line; `sys.argv[1:]` by default.
        prog: What the user typed to get here, for usage lines.

    Returns:
        0 when the run finished, 1 when it could not, 128 + n when signal n stopped it. One process of several does
        not return but ends.
    """
    args = parse_args(script.Args, script.PRESETS, argv, script.__doc__, prog)
    try:
        script.main(args)
    except SystemExit as stopped:  # by a signal, with a checkpoint
        return end_process(int(stopped.code or 0))
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"{args.family}: {scrub(error, args.hub_token)}", file=sys.stderr)
        return end_process(1)
    return end_process(0)
