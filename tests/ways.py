"""Many exported folders loaded in every way, by one clean interpreter a way (`verify` starts two for each folder)."""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hf_genzoo.hub import Result, verifier
from hf_genzoo.hub.check_folder import check_folder
from hf_genzoo.hub.layout import read_index

EACH = """
import sys, traceback
from pathlib import Path
import probe

for home in sys.argv[1:]:
    try:
        probe.main(Path(home) / "request.json")
    except BaseException:
        (Path(home) / "fault.txt").write_text(traceback.format_exc())
"""


def verify_all(folders: Mapping[str, Path], home: Path) -> dict[str, list[Result]]:
    """For each folder what `verify` gives: its files, each way that applies, and their agreement.

    The probe is `verify`'s own, and so are the environment and the judgement. What one folder brings into an
    interpreter must not disturb the next.

    Args:
        folders: Exported folders by name.
        home: An empty folder to work in.
    """
    indices = {name: read_index(folder) for name, folder in folders.items()}
    asked: dict[int, list[str]] = {way: [] for way in verifier.WAYS}
    for name, index in indices.items():
        for way in verifier.ways_of(index):
            place = home / str(way) / name
            place.mkdir(parents=True)
            verifier.write_request(place, way, str(folders[name].resolve()), None, index.pipeline[1])
            asked[way].append(name)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda way: _run(way, home / str(way), asked[way]), [way for way in asked if asked[way]]))
    results = {}
    for name, index in indices.items():
        problems = check_folder(folders[name])
        files = Result("files", not problems, "; ".join(problems), 0.0)
        tried = [_read(home / str(way) / name, way) for way in verifier.ways_of(index)]
        results[name] = [files, *tried, verifier.agreement(tried)]
    return results


def _run(way: int, place: Path, names: list[str]) -> None:
    shutil.copyfile(Path(verifier.__file__).with_name("probe.py"), place / "probe.py")
    (place / "each.py").write_text(EACH, encoding="utf-8")
    command = [sys.executable, "each.py", *(str(place / name) for name in names)]
    env = {**verifier.environment(True, None), **verifier.caches(way, place)}
    done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


def _read(place: Path, way: int) -> Result:
    fault = place / "fault.txt"
    if fault.is_file():
        return Result(verifier.WAYS[way], False, fault.read_text(), 0.0)
    return verifier.read_answer(place, way)
