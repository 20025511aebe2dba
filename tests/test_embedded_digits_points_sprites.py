"""The embedded sets: digits, points with closed-form densities, sprites with known factors."""

import numpy as np
import pytest
import torch

from hf_genzoo.data import DataArgs, Gaussians2D, MapImages, image_dataset, points_dataset
from hf_genzoo.data import sprites as sprites_module
from hf_genzoo.data.sprites import FACTOR_SIZES, NUM_COMBINATIONS, combination_factors, factor_values, factors, render


def test_digits_have_three_stratified_disjoint_splits(tmp_path):
    sizes, seen = {"train": 4000, "validation": 500, "test": 500}, set()
    for split, size in sizes.items():
        args = DataArgs(
            dataset_name="digits", resolution=28, num_channels=1, class_column="label", data_cache_dir=str(tmp_path)
        )
        data = image_dataset(args, split=split)
        assert isinstance(data, MapImages)
        assert data.pixels.shape == (size, 1, 28, 28)
        assert data.class_names == [str(i) for i in range(10)]
        assert data.labels is not None
        assert np.bincount(data.labels).tolist() == [size // 10] * 10
        seen |= {picture.tobytes() for picture in data.pixels}
        if split == "train":
            assert abs(data.pixels.mean() / 255 - 0.1307) < 0.01  # the mean of MNIST
    assert len(seen) == 5000


def test_digits_need_only_files_of_the_package(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    data = image_dataset(DataArgs(dataset_name="digits", data_cache_dir=str(tmp_path)), split="test")
    assert isinstance(data, MapImages)
    assert data.examples(2)["pixel_values"].shape == (2, 3, 32, 32)
    assert sorted(path.name.split("-")[0] for path in tmp_path.iterdir() if path.is_dir()) == ["images"]


# ---------------------------------------------------------------- points


@pytest.mark.parametrize(("config", "modes", "std"), [("ring", 8, 0.01), ("grid", 25, 0.05)])
def test_mixtures_have_the_modes_and_density_they_say(config, modes, std):
    known = Gaussians2D(config)
    assert known.modes is not None
    assert (len(known.modes), known.std) == (modes, std)
    points, which = known.sample(50_000, seed=1)
    assert which is not None
    residual = points - known.modes[which]
    assert np.allclose(residual.std(0), std, rtol=0.02)
    assert np.allclose(np.bincount(which, minlength=modes) / 50_000, 1 / modes, atol=0.01)
    # far-apart modes: the entropy is that of one Gaussian plus log K
    entropy = np.log(2 * np.pi * np.e * std**2) + np.log(modes)
    assert abs(-known.log_density(points).mean() - entropy) < 5 / 50_000**0.5
    nearest, good = known.nearest_mode(points)
    assert (nearest == which).all()
    assert abs(good.mean() - (1 - np.exp(-4.5))) < 0.003  # within 3 standard deviations in the plane


def test_densities_are_normalised():
    axis = np.linspace(-0.08, 0.08, 161)  # 8 standard deviations around a mode, which holds an eighth
    near = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2) + np.array([1.0, 0.0])
    total = np.exp(Gaussians2D("ring").log_density(near)).sum() * (axis[1] - axis[0]) ** 2
    assert abs(total - 1 / 8) < 1e-9


def test_places_of_modes():
    ring, grid = Gaussians2D("ring").modes, Gaussians2D("grid").modes
    assert ring is not None
    assert grid is not None
    assert np.allclose(np.hypot(*ring.T), 1)
    assert set(grid.ravel()) == {-4, -2, 0, 2, 4}
    assert len(np.unique(grid, axis=0)) == 25


def test_shapes_lie_on_their_curves():
    points, which = Gaussians2D("moons").sample(20_000, seed=0)
    assert which is not None
    centres = np.array([[-0.5, -0.25], [0.5, 0.25]]) / 1.5
    distance = np.linalg.norm(points - centres[which], axis=1)
    assert abs(distance.mean() - 1 / 1.5) < 0.005
    assert distance.std() < 0.06
    spiral, none = Gaussians2D("swiss_roll").sample(20_000, seed=0)
    assert none is None
    radius, angle = np.hypot(*spiral.T), np.arctan2(spiral[:, 1], spiral[:, 0])
    turns = (radius * 4.5 * np.pi - angle) / (2 * np.pi)  # an integer on the spiral
    assert np.abs(turns - np.round(turns)).mean() < 0.06
    for config in ("moons", "swiss_roll"):
        with pytest.raises(ValueError, match="no closed form"):
            Gaussians2D(config).log_density(points)


def test_points_come_in_the_same_order_rules_as_pictures():
    args = DataArgs(dataset_name="gaussians2d", dataset_config_name="moons", class_column="label")
    data = points_dataset(args)
    assert (data.num_samples, data.num_classes, data.key) == (100_000, 2, "points")
    batch = next(data.batches(batch_size=8, seed=0))
    assert batch["points"].shape == (8, 2)
    assert batch["points"].dtype == torch.float32
    halves = [next(data.batches(batch_size=4, seed=0, rank=r, world_size=2)) for r in range(2)]
    for key in ("points", "class_labels"):
        assert torch.equal(batch[key], torch.cat([half[key] for half in halves]))
    assert points_dataset(args).fingerprint == data.fingerprint
    held_out = points_dataset(args, split="validation")
    assert held_out.fingerprint != data.fingerprint
    assert held_out.num_samples == 10_000
    assert not set(map(tuple, held_out.points)) & set(map(tuple, data.points))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset_config_name": "rings"}, "it has: ring, grid, swiss_roll, moons"),
        ({"dataset_split": "dev"}, "its splits are: train, validation, test"),
        ({"dataset_name": "digits"}, "no set of points"),
        ({"class_column": "mode"}, "the columns are: label"),
        ({"streaming": True}, "nothing to stream"),
    ],
)
def test_wrong_flags_for_points(options, message):
    with pytest.raises(ValueError, match=message):
        points_dataset(DataArgs(**{"dataset_name": "gaussians2d"} | options))


# ---------------------------------------------------------------- sprites


def test_factors_number_all_combinations_and_splits_are_disjoint():
    assert NUM_COMBINATIONS == 737_280
    assert combination_factors(np.array([0, NUM_COMBINATIONS - 1])).tolist() == [[0] * 5, [2, 5, 39, 31, 31]]
    rows = np.concatenate([factors(split) for split in ("train", "validation", "test")])
    assert len(np.unique(rows, axis=0)) == len(rows) == 24_000
    for column, size in enumerate(FACTOR_SIZES):
        share = np.bincount(rows[:, column], minlength=size) / len(rows) * size
        assert np.abs(share - 1).max() < 0.25


def test_pictures_have_the_factors_they_say():
    rows = factors("test")[:300]
    pictures = render(rows, 64)
    assert set(np.unique(pictures)) == {0, 255}
    assert not pictures[:, [0, -1]].any()  # nothing is cut off
    assert not pictures[:, :, [0, -1]].any()
    values = factor_values(rows)
    mass = (pictures > 0).sum((1, 2))
    squares = rows[:, 0] == 0
    side = 2 * sprites_module.HALF_SIZE * 64 * values[squares, 1]
    assert np.abs(mass[squares] / side**2 - 1).max() < 0.12
    axis = np.arange(64) + 0.5
    x = (pictures > 0).sum(1) @ axis / mass
    margin = 1.5 * sprites_module.HALF_SIZE
    wanted = 64 * (margin + (1 - 2 * margin) * values[:, 3])
    assert np.abs(x - wanted)[rows[:, 0] < 2].max() < 0.6


def test_orientation_turns_the_sprite():
    upright, turned = render(np.array([[2, 5, 0, 15, 15], [2, 5, 10, 15, 15]]), 65, antialiased=True).astype(int)
    candidates = [
        np.roll(np.rot90(upright, k), (i, j), (0, 1)) for k in (1, 3) for i in (-1, 0, 1) for j in (-1, 0, 1)
    ]
    assert min(np.abs(candidate - turned).sum() for candidate in candidates) < 0.2 * upright.sum()
    assert np.abs(upright - turned).sum() > 0.2 * upright.sum()
    square = render(np.array([[0, 5, 0, 3, 4], [0, 5, 10, 3, 4]]), 64)  # a quarter turn leaves a square
    assert (square[0] != square[1]).sum() < 0.1 * (square[0] > 0).sum()


def test_sprites_are_a_dataset(tmp_path):
    args = DataArgs(
        dataset_name="sprites",
        dataset_split="test",
        num_channels=1,
        class_column="scale",
        data_cache_dir=str(tmp_path),
        max_train_samples=100,
    )
    data = image_dataset(args)
    assert isinstance(data, MapImages)
    assert data.num_classes == 6
    assert data.labels is not None
    table = factors("test")[data.rows]
    assert np.array_equal(data.labels, table[:, 1])
    assert np.array_equal(data.pixels[:, 0], render(table, 32))
    args.num_channels, args.dataset_config_name = 3, "antialiased"
    grey = image_dataset(args)
    assert isinstance(grey, MapImages)
    assert grey.pixels.shape == (100, 3, 32, 32)
    assert len(np.unique(grey.pixels)) > 10
    assert grey.fingerprint != data.fingerprint


def test_wrong_factors_and_configs_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"\[3, 0, 0, 0, 0\] are out of range"):
        render(np.array([[3, 0, 0, 0, 0]]))
    with pytest.raises(ValueError, match="it has: binary, antialiased"):
        image_dataset(DataArgs(dataset_name="sprites", dataset_config_name="grey", data_cache_dir=str(tmp_path)))
    with pytest.raises(ValueError, match="the columns are: shape, scale, orientation, x, y"):
        image_dataset(DataArgs(dataset_name="sprites", class_column="colour", data_cache_dir=str(tmp_path)))
