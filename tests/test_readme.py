"""What the README tells people to type is understood."""

import re
import shlex
from pathlib import Path

import pytest

from hf_genzoo.api import script_of
from hf_genzoo.training.args import parse_args

README = Path(__file__).parent.parent / "README.md"


def commands() -> list[str]:
    """The lines of all blocks for the shell, with continued ones joined and remarks left out."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [re.sub(r"\s+#.*", "", line) for line in lines if line.strip()]


def test_blocks_of_code_are_closed() -> None:
    fences = re.findall(r"^```(\w*)$", README.read_text("utf-8"), re.MULTILINE)
    assert len(fences) % 2 == 0
    assert all(fences[0::2])
    assert not any(fences[1::2])


@pytest.mark.parametrize("command", [line for line in commands() if re.match("genzoo train .*_dir", line)])
def test_commands_of_training_have_the_flags_they_use(command: str) -> None:
    _, _, family, *flags = (word for word in shlex.split(command) if word != "...")
    script = script_of(family)
    assert parse_args(script.Args, script.PRESETS, flags).family == family
