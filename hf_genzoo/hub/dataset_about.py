"""What a card says of the embedded sets beyond what can be read off their rows."""

from dataclasses import dataclass, field
from pathlib import Path

from hf_genzoo.data.computed import EMBEDDED
from hf_genzoo.data.points import CONFIGS as POINT_CONFIGS
from hf_genzoo.data.points import MIXTURES
from hf_genzoo.data.sources import DIGITS
from hf_genzoo.data.sprites import FACTOR_SIZES, NUM_COMBINATIONS
from hf_genzoo.hub.card_data import DATA_NOTES
from hf_genzoo.hub.dataset_source import Request


@dataclass(frozen=True)
class About:
    """What the publisher says of a set.

    Args:
        what: One paragraph on what it holds; None where nobody said.
        source: Where it comes from; None where nobody said.
        licence: The Hub's identifier of its licence, such as "cc-by-4.0".
        columns: What columns mean, where their type does not tell.
        files: Further files of the repository, such as a notice that its licence asks for: {path: content}.
    """

    what: str | None
    source: str | None
    licence: str
    columns: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


_WHAT = {
    "digits": "Small pictures of handwritten digits with their classes: a part of MNIST that is large enough to train"
    " on and small enough to come with a package.",
    "sprites": "White shapes on black, after the dSprites data set: every picture is settled by five known factors, so"
    f" that what a model's latent space has learned can be checked. Of the {NUM_COMBINATIONS:,} combinations a seeded"
    " choice is here; those of different splits are distinct.",
    "scenes": "Captioned pictures of one or two coloured shapes, such as 'a small red circle left of a large blue"
    " square', for measuring whether a text-to-image model puts the right things in the right places.",
    "gaussians2d": "Points in the plane with known structure, for watching what a generative model learns and what it"
    " misses.",
}
_COLUMNS = {
    "digits": {"image": "the digit, white on black", "label": "which digit it is"},
    "sprites": {
        "image": "one white shape on black",
        "shape": "the shape",
        "scale": f"its size: {FACTOR_SIZES.scale} steps from half to full",
        "orientation": f"its rotation: {FACTOR_SIZES.orientation} steps of a full turn",
        "x": f"its place from the left: {FACTOR_SIZES.x} steps",
        "y": f"its place from the top: {FACTOR_SIZES.y} steps",
    },
    "scenes": {"image": "the scene, on white", "text": "the scene in words"},
    "gaussians2d": {"points": "x and y", "label": "which Gaussian, or which moon, the point was drawn from"},
}
_LICENCES = {"digits": "cc-by-sa-3.0", "sprites": "cc0-1.0", "scenes": "cc0-1.0", "gaussians2d": "cc0-1.0"}


def about_embedded(request: Request, licence: str | None, description: str | None, said: str | None) -> About:
    """What is known of an embedded set; what the publisher says comes first.

    Args:
        request: What is published.
        licence: Another licence than the set's own.
        description: Another description.
        said: What the publisher adds on where they come from.
    """
    name, columns, source = request.name, dict(_COLUMNS[request.name]), DATA_NOTES[request.name]
    files = {"SOURCE.md": (Path(DIGITS) / "README.md").read_bytes()} if name == "digits" else {}
    if files:
        source += " The notices that these licences ask for are in [SOURCE.md](SOURCE.md)."
    if name == "gaussians2d":
        configs = request.config_names or POINT_CONFIGS[:1]
        kinds = [f"`{c}` ({'an equal mixture of Gaussians' if c in MIXTURES else 'a test shape'})" for c in configs]
        source += f" Drawn from: {', '.join(kinds)}."
    if request.draw != EMBEDDED:
        size = "" if request.draw.num_samples is None else f" --num_samples {request.draw.num_samples}"
        source += f" Drawn with the flags `--seed {request.draw.seed}{size}`, so it is not the set that comes with"
        source += " the package."
    if said:
        source += f" {said}"
    return About(description or _WHAT[name], source, licence or _LICENCES[name], columns, files)
