"""Can generated samples be told from real ones at this number of samples? Tests that answer with a p-value.

Papers
- Gretton et al. 2012, "A Kernel Two-Sample Test".
- Lopez-Paz & Oquab 2017, "Revisiting Classifier Two-Sample Tests".
- Phipson & Smyth 2010, "Permutation P-values Should Never Be Zero".

What differs from the papers and why: the kernel test takes its threshold from permutations, which is exact at any
number of samples, and not from an asymptotic law; the classifier is logistic regression on standardised features,
since the features come from a network already.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hf_genzoo.evaluation.distances import Array, as_features, squared_distances


@dataclass(frozen=True)
class Verdict:
    """What a two-sample test found.

    Attributes:
        test: Name of the test.
        statistic: What it measured: MMD^2, or the classifier's accuracy on samples it has not seen.
        p_value: Probability of a statistic at least as large if both samples came from one law.
        num_samples: Samples of each kind that were compared.
        interval: 95 % confidence interval of the statistic, where the test gives one.
    """

    test: str
    statistic: float
    p_value: float
    num_samples: int
    interval: tuple[float, float] | None = None

    @property
    def distinguishable(self) -> bool:
        """Whether the difference is shown at the 5 % level."""
        return self.p_value < 0.05

    def __str__(self) -> str:
        answer = "yes" if self.distinguishable else "not shown"
        return f"distinguishable at n = {self.num_samples} ({self.test}): {answer}, p = {self.p_value:.2g}"


def _equal_parts(real: ArrayLike, fake: ArrayLike, largest: int, rng: np.random.Generator) -> tuple[Array, Array]:
    a, b = as_features(real, "real features", 4), as_features(fake, "generated features", 4)
    size = min(len(a), len(b), largest)
    return a[rng.permutation(len(a))[:size]], b[rng.permutation(len(b))[:size]]


def kernel_test(
    real: ArrayLike, fake: ArrayLike, permutations: int = 1000, max_samples: int = 1000, seed: int = 0
) -> Verdict:
    """MMD of a Gaussian kernel whose bandwidth is the median distance, against random relabellings of the samples.

    Args:
        real: (N, D) features.
        fake: (M, D) features.
        permutations: Relabellings; the smallest p-value is 1 / (permutations + 1).
        max_samples: At most as many of each kind are compared, drawn at random: the kernel matrix has their square.
        seed: Seeds the draw and the relabellings.
    """
    rng = np.random.default_rng(seed)
    a, b = _equal_parts(real, fake, max_samples, rng)
    n = len(a)
    distances = squared_distances(pooled := np.concatenate([a, b]), pooled)
    upper = distances[np.triu_indices(2 * n, k=1)]
    kernel = np.exp(-distances / max(float(np.median(upper)), np.finfo(float).tiny))
    np.fill_diagonal(kernel, 0)  # the unbiased estimate leaves it out

    # Row 0 is the true labelling. With s the indicator of the first sample, all three sums follow from K s.
    first = np.zeros((permutations + 1, 2 * n))
    first[0, :n] = 1
    for row in first[1:]:
        row[rng.permutation(2 * n)[:n]] = 1
    within_first = ((first @ kernel) * first).sum(axis=1)
    touching_first = first @ kernel.sum(axis=1)
    between = touching_first - within_first
    within_second = kernel.sum() - 2 * touching_first + within_first
    mmd = (within_first + within_second) / (n * (n - 1)) - 2 * between / n**2
    as_large = int((mmd[1:] >= mmd[0] - 1e-12).sum())
    return Verdict("kernel test", float(mmd[0]), (as_large + 1) / (permutations + 1), n)


def classifier_test(real: ArrayLike, fake: ArrayLike, max_samples: int = 5000, seed: int = 0) -> Verdict:
    """Accuracy of a classifier of real against generated on the half of the samples it was not trained on.

    50 % is chance. The interval is Clopper and Pearson's, the p-value that of the binomial law.
    """
    from scipy.stats import binomtest
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(seed)
    a, b = _equal_parts(real, fake, max_samples, rng)
    half = len(a) // 2
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    classifier.fit(np.concatenate([a[:half], b[:half]]), np.repeat([0, 1], half))
    unseen = np.concatenate([a[half:], b[half:]])
    truth = np.repeat([0, 1], len(a) - half)
    right = int((classifier.predict(unseen) == truth).sum())
    outcome = binomtest(right, len(unseen), 0.5, alternative="greater")
    both_sides = binomtest(right, len(unseen), 0.5).proportion_ci(method="exact")
    interval = (float(both_sides.low), float(both_sides.high))
    return Verdict("classifier test", right / len(unseen), float(outcome.pvalue), len(a), interval)
