"""Frechet ratios in several feature spaces: what one space cannot see, another one can.

A classifier looks past a little noise, as it has learnt to; random convolutions answer to it, and the principal
components of the pixels to how far the pictures spread.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.tables.cells import spread
from hf_genzoo.evaluation.args import EvaluateArgs
from hf_genzoo.evaluation.protocol import make_yardstick
from hf_genzoo.evaluation.yardstick import Yardstick

SPACES = ("classifier", "random", "pca")
MEAN = "mean"
"""Key of the geometric mean of the spaces."""


@cache
def yardstick(num_samples: int, **data: Any) -> Yardstick:
    """What measures samples against held-out pictures in every space; made once for all cells.

    Args:
        num_samples: Pictures of each side.
        data: Flags of the data (see `EvaluateArgs`).
    """
    return make_yardstick(EvaluateArgs(**data, num_samples=num_samples, extractor=list(SPACES)), "cpu")


def frechet_ratios(yardstick: Yardstick, samples: NDArray[np.uint8]) -> dict[str, float]:
    """The Frechet distance to held-out pictures over that of training pictures, by space, and their geometric mean."""
    found = {
        space: next(m.value for m in yardstick.distances(samples, space) if m.name == "frechet_ratio")
        for space in SPACES
    }
    return {**found, MEAN: float(np.exp(np.mean(np.log(list(found.values())))))}


def shown(found: Sequence[dict[str, float]]) -> str:
    """The ratios of one cell's seeds: every space, in the order of SPACES."""
    return " / ".join(spread([ratios[space] for ratios in found], 2) for space in SPACES)
