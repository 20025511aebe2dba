"""Disentanglement of codes that are known to be perfect, random, rotated, copied or mixed."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from hf_genzoo.evaluation import disentanglement
from hf_genzoo.evaluation.disentanglement import (
    beta_vae_score,
    dci,
    factor_vae_score,
    info_mec,
    mutual_information_gap,
    report,
    sap,
)


def grid(*sizes: int, repeats: int) -> np.ndarray:
    """Every combination of factors equally often: the factors are exactly independent, in the sample too."""
    return np.tile(np.array(list(itertools.product(*[range(size) for size in sizes]))), (repeats, 1))


def spread(factors: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """The perfect code: one latent for each factor, with mean 0 and standard deviation 1."""
    centred = factors - (np.array(sizes) - 1) / 2
    return centred / np.sqrt((np.square(sizes) - 1) / 12)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


SIZES = (4, 3, 5)
FACTORS = grid(*SIZES, repeats=40)
PERFECT = spread(FACTORS, SIZES)
ROTATION = np.linalg.qr(normal(3, 3, seed=3))[0]
SMALL = {"num_train": 400, "num_test": 400}


def axes(codes: np.ndarray) -> np.ndarray:
    """Other order, sign, scale and offset of three latents."""
    return codes[:, [2, 0, 1]] * [-2.0, 0.5, 1.0] + [3.0, 0.0, -1.0]


# Perfect and random codes


@pytest.mark.parametrize("change", [lambda codes: codes, axes])
def test_a_perfect_code_is_at_the_ceiling(change: Callable[[np.ndarray], np.ndarray]) -> None:
    codes = change(PERFECT)
    assert mutual_information_gap(codes, FACTORS) == pytest.approx(1, abs=1e-12)
    found = dci(codes, FACTORS)
    assert (found.disentanglement, found.completeness, found.informativeness) == pytest.approx((1, 1, 1))
    info = info_mec(codes, FACTORS)
    assert info.active.all()
    assert min(info.modularity, info.compactness) > 0.97  # the neighbours' estimate of no information is not quite 0
    assert info.explicitness > 0.999

    def represent(factors: np.ndarray) -> np.ndarray:
        return change(spread(factors, SIZES))

    assert beta_vae_score(represent, SIZES, **SMALL) == 1
    assert beta_vae_score(lambda factors: 1e-4 * represent(factors), SIZES, **SMALL) == 1
    assert factor_vae_score(represent, SIZES, **SMALL) == 1


def test_mig_of_a_perfect_code_with_more_values_than_bins() -> None:
    """20 bins over 32 even values: 12 bins hold two and hide log 2 of them. Over 40 values all do."""
    factors = grid(32, 40, repeats=1)
    expected = (1 - 24 / 32 * math.log(2) / math.log(32) + 1 - math.log(2) / math.log(40)) / 2
    assert mutual_information_gap(factors, factors) == pytest.approx(expected, abs=1e-12)


def test_sap_of_two_valued_factors_is_at_most_a_half() -> None:
    """The right latent is always right, and the next best one guesses."""
    factors = grid(2, 2, 2, repeats=500)
    codes = spread(factors, (2, 2, 2))
    noise = 4 * 0.5 / np.sqrt(len(factors) / 3)
    assert sap(codes, factors) == pytest.approx(1 / 2, abs=noise)
    copied = np.concatenate([codes, codes[:, :1]], axis=1)
    assert sap(copied, factors) == pytest.approx(1 / 3, abs=noise)


def test_a_random_code_is_at_the_floor() -> None:
    sizes = (20, 20, 20)
    factors = np.random.default_rng(1).integers(0, sizes, (4000, 3))
    codes = normal(4000, 4)
    found = dci(codes, factors)
    assert found.disentanglement < 0.03
    assert found.completeness < 0.03
    chance = 1 / 20
    assert found.informativeness == pytest.approx(chance, abs=4 * np.sqrt(chance * (1 - chance) / 4000))
    info = info_mec(codes, factors)
    assert info.explicitness < 0.02
    assert info.information.max() < 0.02
    assert mutual_information_gap(codes, factors) < 0.01
    assert sap(codes, factors) < 4 * np.sqrt(chance * (1 - chance) / 1333)
    table = normal(*sizes, 4)  # of so many combinations that the 400 with one value in common vary like any others
    for score in (beta_vae_score, factor_vae_score):
        accuracy = score(lambda rows: table[tuple(rows.T)], sizes, num_train=1000, num_test=1500)
        assert accuracy == pytest.approx(1 / 3, abs=4 * np.sqrt(2 / 9 / 1500) + 0.02)


def test_a_code_that_never_varies_has_nothing() -> None:
    codes = np.ones((len(FACTORS), 3))
    assert mutual_information_gap(codes, FACTORS) == pytest.approx(0, abs=1e-12)
    found = dci(codes, FACTORS)
    assert (found.disentanglement, found.completeness) == (0, 0)
    info = info_mec(codes, FACTORS)
    assert (info.modularity, info.compactness, info.active.any()) == (0, 0, False)
    assert info.explicitness == pytest.approx(0, abs=1e-9)
    assert factor_vae_score(lambda rows: np.ones((len(rows), 3)), SIZES, **SMALL) == 0


# Codes that are wrong in one way


def test_a_rotation_hides_the_axes_but_not_the_factors() -> None:
    turned = PERFECT @ ROTATION
    assert mutual_information_gap(turned, FACTORS) < 0.5
    assert sap(turned, FACTORS) < 0.6 * sap(PERFECT, FACTORS)
    found = dci(turned, FACTORS)
    assert found.disentanglement < 0.5
    assert found.completeness < 0.5
    assert found.informativeness > 0.75
    info = info_mec(turned, FACTORS)
    assert info.modularity < 0.5
    assert info.compactness < 0.5
    assert info.explicitness > 0.999


def test_explicitness_is_the_same_for_any_invertible_linear_map() -> None:
    noisy = PERFECT + 0.7 * normal(*PERFECT.shape)
    plain = info_mec(noisy, FACTORS).explicitness
    assert 0.2 < plain < 0.8
    assert info_mec(noisy @ normal(3, 3, seed=1) + 5, FACTORS).explicitness == pytest.approx(plain, abs=1e-4)


def test_two_latents_for_one_factor_are_modular_and_not_compact() -> None:
    """The factor's share is one half in each: entropy log 2 of log 4 for DCI, (1/2 - 1/4) / (1 - 1/4) for InfoC."""
    copied = np.concatenate([PERFECT, -PERFECT[:, :1]], axis=1)
    found = dci(copied, FACTORS)
    assert found.disentanglement == pytest.approx(1)
    assert found.completeness == pytest.approx((0.5 + 1 + 1) / 3, abs=0.02)
    info = info_mec(copied, FACTORS)
    assert info.modularity > 0.97
    assert info.compactness == pytest.approx((1 / 3 + 1 + 1) / 3, abs=0.03)
    assert mutual_information_gap(copied, FACTORS) == pytest.approx(2 / 3, abs=1e-12)


def test_one_latent_for_two_factors_is_compact_and_not_modular() -> None:
    """Factors 0 and 1 as the digits of one number. That latent's share is one half for each, of three factors."""
    mixed = np.stack([3.0 * FACTORS[:, 0] + FACTORS[:, 1], FACTORS[:, 2]], axis=1)
    found = dci(mixed, FACTORS)
    assert found.disentanglement == pytest.approx((2 * (1 - math.log(2) / math.log(3)) + 1) / 3, abs=0.03)
    assert found.completeness > 0.97
    info = info_mec(mixed, FACTORS)
    assert info.modularity == pytest.approx(((0.5 - 1 / 3) / (1 - 1 / 3) + 1) / 2, abs=0.03)
    assert info.compactness > 0.97
    assert mutual_information_gap(mixed, FACTORS) == pytest.approx(1, abs=1e-12)


def test_latents_that_know_everything_are_neither_modular_nor_compact() -> None:
    factors = grid(4, 4, repeats=100)
    a, b = factors.T
    everywhere = np.stack([4.0 * a + b, 4.0 * b + a], axis=1)
    info = info_mec(everywhere, factors)
    np.testing.assert_allclose(info.information, 1, atol=0.02)
    assert (info.modularity, info.compactness) == pytest.approx((0, 0), abs=0.02)
    assert mutual_information_gap(everywhere, factors) == pytest.approx(0, abs=1e-12)


def test_a_missing_factor_is_seen_by_the_factor_vae_score_only() -> None:
    """The failure of the beta-VAE score that Kim & Mnih name: where no other latent is still, it must be the third."""
    sizes = (6, 6, 6)

    def represent(factors: np.ndarray) -> np.ndarray:
        return spread(factors, sizes)[:, :2]

    assert beta_vae_score(represent, sizes, **SMALL) == 1
    assert factor_vae_score(represent, sizes, num_train=900, num_test=900) == pytest.approx(2 / 3, abs=4 * 0.016)


# Each estimate


def test_mig_agrees_with_scikit_learn() -> None:
    codes = PERFECT @ normal(3, 5) + normal(len(PERFECT), 5, seed=1)
    scaled = (codes - codes.min(axis=0)) / np.ptp(codes, axis=0)
    bins = np.minimum((20 * scaled).astype(int), 19)
    gaps = []
    for values in FACTORS.T:
        best, second = sorted((mutual_info_score(values, column) for column in bins.T), reverse=True)[:2]
        gaps.append((best - second) / mutual_info_score(values, values))
    assert mutual_information_gap(codes, FACTORS) == pytest.approx(np.mean(gaps), abs=1e-9)


def test_explicitness_of_a_bit_that_is_wrong_one_time_in_ten() -> None:
    """Logistic regression of one bit on another can be any conditional law: it saves 1 - h(0.1) of a bit."""
    table = grid(2, 2, 10, 10, repeats=5)
    factors = table[:, :2]
    bits = factors ^ (table[:, 2:] == 0)  # wrong independently of both factors and of each other
    h = -(0.1 * math.log2(0.1) + 0.9 * math.log2(0.9))
    assert info_mec(bits, factors).explicitness == pytest.approx(1 - h, abs=1e-4)


def test_information_of_a_gaussian_channel() -> None:
    """z = +-1 + noise: the information in a bit by numerical integration, against the neighbours' estimate."""
    factors = grid(2, 2, repeats=2500)
    codes = 2.0 * factors - 1 + normal(*factors.shape)
    z = np.linspace(-10, 10, 4001)
    given = np.exp(-((z - 1) ** 2) / 2) / np.sqrt(2 * np.pi)
    marginal = (given + given[::-1]) / 2
    expected = (given * np.log(given / marginal)).sum() * (z[1] - z[0]) / math.log(2)
    information = info_mec(codes, factors).information
    np.testing.assert_allclose(information, [[expected, 0], [0, expected]], atol=0.03)


def test_inactive_latents_are_pruned() -> None:
    """Only the second latent tells factor 1: where it is too small to count, half of the answers are guesses."""
    sizes = (4, 4)

    def represent_at(scale: float) -> Callable[[np.ndarray], np.ndarray]:
        return lambda factors: spread(factors, sizes) * [1, scale]

    assert factor_vae_score(represent_at(0.06), sizes, **SMALL) == 1
    chance = factor_vae_score(represent_at(0.04), sizes, num_train=900, num_test=900)
    assert chance == pytest.approx(0.5, abs=4 * 0.5 / 30)

    def with_dead(factors: np.ndarray) -> np.ndarray:
        return np.concatenate([np.zeros((len(factors), 1)), spread(factors, sizes)], axis=1)

    assert factor_vae_score(with_dead, sizes, **SMALL) == 1

    copied = np.concatenate([PERFECT / np.ptp(PERFECT, axis=0), PERFECT[:, :1] / np.ptp(PERFECT[:, 0])], axis=1)
    below, above = (info_mec(copied * [1, 1, 1, scale], FACTORS) for scale in (0.04, 0.06))
    assert below.active.tolist() == [True, True, True, False]
    assert below.compactness > 0.97
    assert above.active.all()
    assert above.compactness == pytest.approx((1 / 3 + 1 + 1) / 3, abs=0.03)


def test_neither_the_order_of_latents_nor_their_scale_for_the_factor_vae_score_matters() -> None:
    mix = np.array([[1.0, 0.2, 0.0, 0.5], [0.3, 1.0, 0.0, 0.5], [0.0, 0.0, 1.0, 0.5]])
    order = [3, 1, 0, 2]
    codes = PERFECT @ mix + 0.2 * normal(len(PERFECT), 4)
    swapped = codes[:, order]
    assert mutual_information_gap(swapped, FACTORS) == pytest.approx(mutual_information_gap(codes, FACTORS), abs=1e-12)
    assert sap(swapped, FACTORS) == sap(codes, FACTORS)
    a, b = dci(codes, FACTORS), dci(swapped, FACTORS)
    np.testing.assert_allclose(a.importances[order], b.importances, atol=0.02)  # equal splits are decided at random
    assert (a.disentanglement, a.completeness) == pytest.approx((b.disentanglement, b.completeness), abs=0.02)
    a, b = info_mec(codes, FACTORS), info_mec(swapped, FACTORS)
    np.testing.assert_allclose(a.information[order], b.information, atol=1e-6)
    assert (a.modularity, a.explicitness, a.compactness) == pytest.approx(
        (b.modularity, b.explicitness, b.compactness), abs=1e-4
    )

    def represent(factors: np.ndarray) -> np.ndarray:
        return spread(factors, SIZES) @ mix

    def represent_swapped(factors: np.ndarray) -> np.ndarray:
        return represent(factors)[:, order]

    assert factor_vae_score(represent, SIZES, **SMALL) == factor_vae_score(represent_swapped, SIZES, **SMALL)
    uneven = np.array([1, 0.1, 3, 1])
    assert factor_vae_score(lambda factors: represent(factors) * uneven, SIZES, **SMALL) == pytest.approx(
        factor_vae_score(represent, SIZES, **SMALL)
    )
    plain, other = (beta_vae_score(each, SIZES, **SMALL) for each in (represent, represent_swapped))
    assert plain == pytest.approx(other, abs=0.01)


# The report


def test_report_of_a_perfect_code_with_a_factor_that_never_varies() -> None:
    sizes = (2, 1, 3)

    def represent(factors: np.ndarray) -> np.ndarray:
        assert factors.shape[1] == 3
        return (factors - [0.5, 0, 1])[:, [2, 0]]

    scores = report(represent, sizes, num_train=1500, num_test=500, progress=False)
    ceiling = {
        "mig": 1,
        "dci_disentanglement": 1,
        "dci_completeness": 1,
        "dci_informativeness": 1,
        "info_m": 1,
        "info_e": 1,
        "info_c": 1,
        "beta_vae_score": 1,
        "factor_vae_score": 1,
    }
    assert {name: scores[name] for name in ceiling} == pytest.approx(ceiling, abs=0.03)
    assert scores.keys() - ceiling.keys() == {"sap"}
    assert report(represent, sizes, num_train=1500, num_test=500, progress=False) == scores


def test_each_combination_is_represented_once_and_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = (20, 15, 10)
    seen: list[np.ndarray] = []

    def represent(factors: np.ndarray) -> np.ndarray:
        seen.append(factors)
        return spread(factors, sizes) @ ROTATION

    remembered = [score(represent, sizes, num_train=100, num_test=100) for score in (beta_vae_score, factor_vae_score)]
    assert max(len(rows) for rows in seen) <= disentanglement.ROWS_AT_ONCE
    assert sum(len(rows) for rows in seen) <= 2 * 20 * 15 * 10
    monkeypatch.setattr(disentanglement, "LARGEST_MEMORY", 0)
    seen.clear()
    asked = [score(represent, sizes, num_train=100, num_test=100) for score in (beta_vae_score, factor_vae_score)]
    assert sum(len(rows) for rows in seen) == 200 * 128 + 200 * 64 + 100
    assert asked == pytest.approx(remembered, abs=1e-12)
    assert max(len(rows) for rows in seen) <= disentanglement.ROWS_AT_ONCE


# Bad input


@pytest.mark.parametrize("metric", [mutual_information_gap, dci, sap, info_mec])
def test_bad_arrays_are_named(metric: Callable) -> None:
    broken = PERFECT.copy()
    broken[7, 1] = np.nan
    with pytest.raises(ValueError, match="1 of 2400 codes are NaN or infinite: check the encoder"):
        metric(broken, FACTORS)
    with pytest.raises(ValueError, match=r"codes have shape \(2400,\)"):
        metric(PERFECT[:, 0], FACTORS)
    with pytest.raises(ValueError, match="codes have 1 latents"):
        metric(PERFECT[:, :1], FACTORS)
    with pytest.raises(ValueError, match="2400 codes against 2399 rows of factors"):
        metric(PERFECT, FACTORS[1:])
    with pytest.raises(ValueError, match=r"shape \(2400, 3\) and type float64: they must be integers"):
        metric(PERFECT, FACTORS.astype(float))
    with pytest.raises(ValueError, match="there are 1 factors"):
        metric(PERFECT, FACTORS[:, :1])
    with pytest.raises(ValueError, match="factor 1 takes one value in all 2400 samples: leave its column out"):
        metric(PERFECT, FACTORS * [1, 0, 1])


@pytest.mark.parametrize("metric", [dci, sap])
def test_a_split_without_training_or_test_samples_is_refused(metric: Callable) -> None:
    for number in (0, 2400):
        with pytest.raises(ValueError, match=f"{number} of 2400 samples to test on"):
            metric(PERFECT, FACTORS, num_test=number)
    rare = np.where(np.arange(2400)[:, None] == 5, 1, 0) * [1, 0, 0] + FACTORS * [0, 1, 1]
    with pytest.raises(ValueError, match="factor 0 takes one value in all 10 samples to train on"):
        metric(PERFECT, rare, num_test=2390)


@pytest.mark.parametrize("score", [beta_vae_score, factor_vae_score, report])
def test_bad_representations_are_named(score: Callable) -> None:
    for sizes in [(4, 1, 1), (4, 0, 3), ()]:
        with pytest.raises(ValueError, match=r"factor sizes \[.*\]: all must be positive, and at least two"):
            score(lambda rows: rows, sizes, **SMALL)
    with pytest.raises(ValueError, match="60 of 60 codes are NaN or infinite"):
        score(lambda rows: np.full((len(rows), 2), np.nan), SIZES, **SMALL)
    with pytest.raises(ValueError, match=r"represent gave 59 codes for 60 rows of factors"):
        score(lambda rows: rows[1:], SIZES, **SMALL)
