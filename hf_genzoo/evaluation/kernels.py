"""Kernel distances (MMD^2) of two samples of features, (N, D) and (M, D), with standard errors.

Papers
- Gretton et al. 2012, "A Kernel Two-Sample Test": the unbiased estimate.
- Binkowski et al. 2018, "Demystifying MMD GANs": the kernel distance KID.
- Jayasumana et al. 2024, "Rethinking FID: Towards a Better Evaluation Metric for Image Generation": CMMD.

What differs from the papers and why: both are U-statistics (the diagonal left out), so their mean is exactly zero for
two samples of one law; the published code of CMMD keeps the diagonal, an offset of about 1/N. KID takes all samples at
once: the mean over a hundred random parts of 1,000, as published, estimates the same number with more noise, and the
spread of those overlapping parts says little of what another set of samples would give.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from hf_genzoo.evaluation.distances import Array, as_pair, squared_distances
from hf_genzoo.evaluation.intervals import GROUPS, Estimate, from_replicates, group_of

Kernel = Callable[[Array, Array], Array]


def mmd_squared(k_xx: Array, k_yy: Array, k_xy: Array) -> float:
    """The unbiased estimate of MMD^2 from kernel matrices (Gretton et al. 2012, eq. 3)."""
    n, m = len(k_xx), len(k_yy)
    within = (k_xx.sum() - np.trace(k_xx)) / (n * (n - 1)) + (k_yy.sum() - np.trace(k_yy)) / (m * (m - 1))
    return float(within - 2 * k_xy.mean())


def kernel_distance(real: ArrayLike, fake: ArrayLike) -> Estimate:
    """KID: MMD^2 of the kernel (x.y / D + 1)^3 (Binkowski et al. 2018, section 4), unbiased.

    Raises:
        ValueError: if features are not finite or fewer than 2 of a kind.
    """
    return _estimate(real, fake, lambda x, y: (x @ y.T / x.shape[1] + 1) ** 3)


def cmmd(real: ArrayLike, fake: ArrayLike, bandwidth: float = 10.0) -> Estimate:
    """1000 MMD^2 of the kernel exp(-|x - y|^2 / (2 bandwidth^2)) (Jayasumana et al. 2024, section 4), unbiased.

    With unit-length embeddings and the paper's bandwidth of 10 the kernel is almost linear, and CMMD almost
    10 |mean_r - mean_f|^2: it cannot see a wrong spread. Read it beside one that can (Frechet distance, coverage).
    """
    found = _estimate(real, fake, lambda x, y: np.exp(squared_distances(x, y) / (-2 * bandwidth**2)))
    return Estimate(1000 * found.value, None if found.standard_error is None else 1000 * found.standard_error)


def _estimate(real: ArrayLike, fake: ArrayLike, kernel: Kernel) -> Estimate:
    """MMD^2 with its standard error.

    The jackknife needs each kernel matrix's sums over pairs of groups only. Where the two laws are nearly the same the
    estimate's first-order term vanishes, and with it what a jackknife can see: the error is then that of the
    second-order term, 2 E[h^2] / (n (n - 1)), h being the kernel of the U-statistic (Gretton et al. 2012, lemma 6).
    """
    a, b = as_pair(real, fake)
    k_aa, k_bb, k_ab = kernel(a, a), kernel(b, b), kernel(a, b)
    np.fill_diagonal(k_aa, 0)
    np.fill_diagonal(k_bb, 0)
    groups_a, groups_b = group_of(len(a)), group_of(len(b))
    sums = (
        _block_sums(k_aa, groups_a, groups_a),
        _block_sums(k_bb, groups_b, groups_b),
        _block_sums(k_ab, groups_a, groups_b),
    )
    everything = np.ones(GROUPS, dtype=bool)
    value = _mmd_of_groups(sums, groups_a, groups_b, everything)
    if min(len(a), len(b)) < 2 * GROUPS:
        return Estimate(value)
    left_out = [_mmd_of_groups(sums, groups_a, groups_b, np.arange(GROUPS) != g) for g in range(GROUPS)]
    n = min(len(a), len(b))
    h = k_aa[:n, :n] + k_bb[:n, :n] - k_ab[:n, :n] - k_ab[:n, :n].T
    np.fill_diagonal(h, 0)
    second_order = float(np.sqrt(2 * np.square(h).sum()) / (n * (n - 1)))
    first_order = from_replicates(value, left_out).standard_error or 0.0
    return Estimate(value, max(first_order, second_order))


def _block_sums(matrix: Array, rows: np.ndarray, columns: np.ndarray) -> Array:
    """(GROUPS, GROUPS) sums of a matrix over the rows of one group and the columns of another."""
    return np.eye(GROUPS)[rows].T @ matrix @ np.eye(GROUPS)[columns]


def _mmd_of_groups(
    sums: tuple[Array, Array, Array], groups_a: np.ndarray, groups_b: np.ndarray, kept: np.ndarray
) -> float:
    n, m = int(kept[groups_a].sum()), int(kept[groups_b].sum())
    s_aa, s_bb, s_ab = (s[np.ix_(kept, kept)].sum() for s in sums)
    return float(s_aa / (n * (n - 1)) + s_bb / (m * (m - 1)) - 2 * s_ab / (n * m))
