"""The code blocks of cards, run as a reader would run them."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

RUN = """
import json, os, sys, traceback
from pathlib import Path

for folder in map(Path, sys.argv[1:]):
    os.chdir(folder)
    ran = []
    try:
        for path in sorted((folder / "blocks").glob("*.py")):
            exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), {"__name__": "__main__"})
            ran.append(path.name)
        if (folder / "command.json").exists():
            from hf_genzoo.cli import main

            status = main(json.loads((folder / "command.json").read_text(encoding="utf-8")))
            assert status == 0, f"the command ended with {status}"
            ran.append("command")
    except BaseException:
        (folder / "fault.txt").write_text(traceback.format_exc(), encoding="utf-8")
    (folder / "ran.json").write_text(json.dumps(ran), encoding="utf-8")
"""


def blocks(card: str, language: str) -> list[str]:
    """The card's fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", card, re.DOTALL | re.MULTILINE)


def write_python(card: str, folder: Path) -> int:
    """Put the card's Python blocks into a folder, for `run`; how many there are."""
    found = blocks(card, "python")
    (folder / "blocks").mkdir(parents=True)
    for number, block in enumerate(found):
        (folder / "blocks" / f"{number}.py").write_text(block, encoding="utf-8")
    return len(found)


def write_training(card: str, folder: Path, *more: str) -> None:
    """Put the card's one shell block, a `genzoo` command, into a folder, for `run`: in the words that a shell makes of
    it, and some more."""
    (block,) = blocks(card, "bash")
    programs = folder / "programs"
    programs.mkdir(parents=True)
    (programs / "genzoo").write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n", encoding="utf-8")
    (programs / "genzoo").chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", block], env={"PATH": path}, capture_output=True, text=True, check=True)
    words = [*done.stdout.split("\0")[:-1], *more]
    (folder / "command.json").write_text(json.dumps(words), encoding="utf-8")


def run(*folders: Path, home: Path, environment: Mapping[str, str] | None = None) -> None:
    """Run what was written to folders, each block with a namespace of its own, in one clean interpreter with clean
    caches. `outcome` tells what came of each.

    Args:
        folders: Of one card each; it is run there.
        home: For the caches.
        environment: Variables to set; by default the Hub is out of reach.
    """
    env = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", **(environment or {})}
    command = [sys.executable, "-c", RUN, *(str(folder) for folder in folders)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


def outcome(folder: Path) -> list[str]:
    """What of a folder ran through: names of blocks, and "command".

    Raises:
        AssertionError: Something did not, with its trace.
    """
    fault = folder / "fault.txt"
    assert not fault.exists(), fault.read_text(encoding="utf-8")
    return json.loads((folder / "ran.json").read_text(encoding="utf-8"))
