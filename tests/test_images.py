"""Grids and animations: sizes, order, and times."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_genzoo.images import enlarged, image_grid, save_animation


def greys(count: int, size: tuple[int, int] = (10, 8)) -> list[Image.Image]:
    return [Image.new("L", size, 20 * index) for index in range(count)]


def test_enlarged_by_a_whole_factor_without_smoothing() -> None:
    image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    assert enlarged(image, 7).size == (9, 6)
    np.testing.assert_array_equal(np.asarray(enlarged(image, 7)), np.asarray(image).repeat(3, 0).repeat(3, 1))
    assert enlarged(image, 2).size == (3, 2)


def test_grid_is_filled_row_by_row() -> None:
    grid = image_grid(greys(5), columns=3, min_tile=20)
    assert grid.size == (3 * 22 + 2, 2 * 18 + 2)
    assert [grid.getpixel((2 + 22 * c, 2 + 18 * r))[0] for r, c in ((0, 0), (0, 2), (1, 1))] == [0, 40, 80]
    with pytest.raises(ValueError, match="at least one"):
        image_grid([])


def test_animation_goes_there_and_back(tmp_path: Path) -> None:
    path = save_animation(greys(4), tmp_path / "film.gif", milliseconds=100, min_size=30)
    with Image.open(path) as film:
        assert film.size == (30, 24)
        assert film.info["loop"] == 0
        shown = []
        for index in range(film.n_frames):
            film.seek(index)
            shown.append((film.convert("L").getpixel((5, 5)), film.info["duration"]))
    assert shown == [(0, 400), (20, 100), (40, 100), (60, 400), (40, 100), (20, 100)]
    with pytest.raises(ValueError, match="at least two pictures, not 1"):
        save_animation(greys(1), tmp_path / "x.gif")
    with pytest.raises(ValueError, match="pictures of one size"):
        save_animation([*greys(1), *greys(1, (3, 3))], tmp_path / "x.gif")
