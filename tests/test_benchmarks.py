"""The measuring code itself: the generator to beat, and the report that fills in the tables."""

import numpy as np
import pytest

from benchmarks.report import replace_block, table
from hf_genzoo.evaluation.baselines import pca_gaussian


def test_pca_gaussian_has_each_class_s_mean() -> None:
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(2), 500)
    images = (80 + 60 * labels[:, None, None] + 10 * rng.standard_normal((1000, 4, 4))).round().astype(np.uint8)
    drawn = pca_gaussian(images, labels, 400, components=8)
    assert drawn.shape == (400, 4, 4)
    assert drawn[:200].mean() == pytest.approx(images[:500].mean(), abs=0.5)
    assert drawn[200:].mean() == pytest.approx(images[500:].mean(), abs=0.5)


def test_report_replaces_only_its_block() -> None:
    text = "a\n<!-- begin one -->\nold\n<!-- end one -->\nb\n<!-- begin two -->\n<!-- end two -->\n"
    filled = replace_block(text, "one", table({"milliseconds": 1234.5, "share": 0.123, "name": "x"}))
    assert "old" not in filled
    assert "| `milliseconds` | 1,234 |\n| `share` | 0.12 |\n| `name` | x |" in filled
    assert filled.endswith("b\n<!-- begin two -->\n<!-- end two -->\n")
    with pytest.raises(ValueError, match="no block 'three'"):
        replace_block(text, "three", "")
