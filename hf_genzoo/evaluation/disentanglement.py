"""Disentanglement: does each latent of a code stand for one known factor of the data, and each factor have one latent?

Codes are the means of the latents, (N, d), not samples; factors are indices, int64 (N, k), of data whose factors are
known. The metrics disagree with each other and between seeds of one model: report several, over several seeds.

Papers
- Higgins et al. 2017, "beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework".
- Kim & Mnih 2018, "Disentangling by Factorising": the FactorVAE score.
- Chen et al. 2018, "Isolating Sources of Disentanglement in Variational Autoencoders": MIG.
- Eastwood & Williams 2018, "A Framework for the Quantitative Evaluation of Disentangled Representations": DCI.
- Kumar et al. 2018, "Variational Inference of Disentangled Latent Concepts from Unlabeled Observations": SAP.
- Hsu et al. 2023, "Disentanglement via Latent Quantization": InfoMEC.
- Locatello et al. 2019, "Challenging Common Assumptions in the Unsupervised Learning of Disentangled
  Representations": the sizes, thresholds and estimators that most published numbers of the first five rest on.

What differs from the papers and why
- Sizes and thresholds are those of Locatello et al.: 64 pictures a batch, 10,000 points for training and 5,000 for
  testing, latents of standard deviation below 0.05 pruned from the FactorVAE score, MIG from 20 histogram bins of the
  means in place of the posterior's density, SAP with all factors categorical.
- The beta-VAE score's linear classifier sees standardised features: the paper's one has no penalty, and the little
  that keeps this one's optimum finite must not depend on the unit of the codes.
- DCI takes its importances from a random forest, one of the predictors of Eastwood & Williams, and not from the
  gradient boosting of Locatello et al., which grows a tree for each class in each of 100 rounds: 300 seconds on one
  core at 10,000 points of ten latents and factors of (3, 6, 40, 32, 32) values, where the forest takes 15. Its leaves
  hold at least 0.4 % of the points, by which it comes near to the boosting's values: disentanglement, completeness
  and informativeness are 0.08, 0.06, 0.42 instead of 0.08, 0.07, 0.44 for ten principal components of sprites, and
  0.63, 0.65, 0.46 instead of 0.59, 0.59, 0.44 for a noisy code with one latent for most factors. So
  a difference of 0.06 from a published DCI may be the forest's.
- InfoMEC takes 10 neighbours for the mutual information and prunes at a twentieth of the widest range, as its authors'
  code does. Unlike there, InfoE's logistic regression does not reweight classes and runs until it converges, since
  predictive information is defined by the smallest expected loss. So the best predictor that sees no code is the
  histogram of the factor, its loss is the factor's entropy, and no fit is needed for it.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm.auto import tqdm

from hf_genzoo.evaluation.distances import Array

Indices = NDArray[np.int64]
Represent = Callable[[Indices], ArrayLike]
"""From factor indices (n, k) to the means of the latents (n, d). The same factors must give the same codes."""

BATCH_SIZE = 64
NUM_BINS = 20
PRUNE_STD = 0.05
PRUNE_RANGE = 1 / 20
NEIGHBOURS = 10
NUM_TREES = 50
LEAF_SHARE = 0.004

ROWS_AT_ONCE = 1024
"""Rows in one call of a `Represent`: it may draw a picture for each."""

LARGEST_MEMORY = 2_000_000
"""Combinations of factors whose codes are remembered. All the sets in use fit: dSprites has 737,280."""


@dataclass(frozen=True, eq=False)
class DCI:
    """Eastwood & Williams 2018, each in [0, 1], higher is better.

    Attributes:
        disentanglement: 1 - the entropy, in base k, of which factors a latent matters for; latents weighted by
            importance.
        completeness: 1 - the entropy, in base d, of which latents a factor needs; factors weighted likewise.
        informativeness: Mean over the factors of the accuracy of their prediction on samples not trained on.
        importances: (d, k), of each latent for each factor; a column sums to 1, or to 0 where no latent helps.
    """

    disentanglement: float
    completeness: float
    informativeness: float
    importances: Array


@dataclass(frozen=True, eq=False)
class InfoMEC:
    """Hsu et al. 2023, each in [0, 1], higher is better.

    Modularity and compactness are ratios: for latents that know nothing they are ratios of the estimate's noise, far
    from 0. They mean something only where explicitness, or `information`, shows that there is something to tell.

    Attributes:
        modularity: InfoM: the mean over active latents of the largest share that one factor has in their information.
        explicitness: InfoE: the mean part of a factor's entropy that logistic regression on all latents saves.
        compactness: InfoC: the mean over factors of the largest share that one active latent has in theirs.
        information: (d, k), mutual information of latent and factor over the factor's entropy.
        active: (d,) bool, the latents that the modularity and the compactness count.
    """

    modularity: float
    explicitness: float
    compactness: float
    information: Array
    active: NDArray[np.bool_]


def _as_codes(values: ArrayLike) -> Array:
    codes = np.asarray(values, dtype=np.float64)
    if codes.ndim != 2:
        raise ValueError(f"codes have shape {codes.shape}: they must be (samples, latents)")
    if codes.shape[1] < 2:
        raise ValueError(f"codes have {codes.shape[1]} latents: these metrics compare latents, of which they need two")
    if bad := int((~np.isfinite(codes)).any(axis=1).sum()):
        raise ValueError(f"{bad} of {len(codes)} codes are NaN or infinite: check the encoder")
    return codes


def _as_labels(factors: ArrayLike) -> Indices:
    """Factors with each one's values renumbered 0, 1, ...; those that metrics cannot use are refused."""
    values = np.asarray(factors)
    if values.ndim != 2 or values.dtype.kind not in "iu":
        raise ValueError(
            f"factors have shape {values.shape} and type {values.dtype}: they must be integers, (samples, factors)"
        )
    if values.shape[1] < 2:
        raise ValueError(f"there are {values.shape[1]} factors: these metrics compare factors, of which they need two")
    labels = np.empty(values.shape, np.int64)
    for number, column in enumerate(values.T):
        present, labels[:, number] = np.unique(column, return_inverse=True)
        if len(present) < 2:
            raise ValueError(
                f"factor {number} takes one value in all {len(values)} samples: leave its column out, or draw more"
            )
    return labels


def _as_pair(codes: ArrayLike, factors: ArrayLike) -> tuple[Array, Indices]:
    latents, labels = _as_codes(codes), np.asarray(factors)
    if len(latents) != len(labels):
        raise ValueError(
            f"{len(latents)} codes against {len(labels)} rows of factors: they must be of the same samples"
        )
    return latents, _as_labels(labels)


def _split(codes: Array, labels: Indices, num_test: int | None, seed: int) -> tuple[Array, Indices, Array, Indices]:
    """Codes and labels to train on, and others to test on: a random third unless their number is given.

    Raises:
        ValueError: if nothing is left to train or to test on, or a factor does not vary in what is left.
    """
    if num_test is None:
        num_test = len(codes) // 3
    if not 0 < num_test < len(codes):
        raise ValueError(f"{num_test} of {len(codes)} samples to test on: both parts need some")
    order = np.random.default_rng(seed).permutation(len(codes))
    test, train = order[:num_test], order[num_test:]
    for number, column in enumerate(labels[train].T):
        if (column == column[0]).all():
            raise ValueError(f"factor {number} takes one value in all {len(train)} samples to train on: draw more")
    return codes[train], labels[train], codes[test], labels[test]


def _entropy(weights: Array) -> float:
    """In nats, of a distribution in proportion to weights of any shape."""
    p = weights[weights > 0] / weights.sum()
    return float(-(p * np.log(p)).sum())


def _entropies(labels: Indices) -> Array:
    """(k,) entropies of the factors in nats."""
    return np.array([_entropy(np.bincount(column).astype(np.float64)) for column in labels.T])


def _top_two_gap(scores: Array) -> Array:
    """(k,) difference between the best and the second best latent, from (d, k)."""
    ordered = np.sort(scores, axis=0)
    return ordered[-1] - ordered[-2]


def mutual_information_gap(codes: ArrayLike, factors: ArrayLike) -> float:
    """MIG: how much more the best latent knows of a factor than the second best does (Chen et al. 2018, section 4).

    Information is counted on 20 equally wide bins of each latent, as a part of the factor's entropy. So a factor with
    more than 20 values cannot reach 1, even in a perfect code: 32 evenly spaced ones reach 0.85, 40 reach 0.81.

    Args:
        codes: (N, d) means of the latents, d >= 2.
        factors: (N, k) integers, k >= 2.

    Returns:
        The mean over the factors, in [0, 1].

    Raises:
        ValueError: codes that are not finite, shapes that do not fit, a factor that does not vary.
    """
    latents, labels = _as_pair(codes, factors)
    sizes = labels.max(axis=0) + 1
    entropies = _entropies(labels)
    information = np.empty((latents.shape[1], labels.shape[1]))
    for i, latent in enumerate(latents.T):
        bins = np.digitize(latent, np.histogram_bin_edges(latent, NUM_BINS)[1:-1])
        for j, size in enumerate(sizes):
            joint = np.bincount(bins * size + labels[:, j], minlength=NUM_BINS * size).reshape(NUM_BINS, size)
            joint = joint.astype(np.float64)
            information[i, j] = _entropy(joint.sum(axis=1)) + entropies[j] - _entropy(joint)
    return float((_top_two_gap(information) / entropies).mean())


def _concentrations(importances: Array) -> Array:
    """1 - the entropy of each row over that of the uniform law; a row of zeros, which has no weight either, gets 0."""
    uniform = math.log(importances.shape[1])
    return np.array([1 - _entropy(row) / uniform if row.any() else 0.0 for row in importances])


def dci(codes: ArrayLike, factors: ArrayLike, num_test: int | None = None, seed: int = 0) -> DCI:
    """Disentanglement, completeness and informativeness (Eastwood & Williams 2018, section 2).

    Args:
        codes: (N, d) means of the latents, d >= 2.
        factors: (N, k) integers, k >= 2.
        num_test: Samples, drawn at random, that are held out for the informativeness; a third if not given.
        seed: Seeds the draw and the forests.

    Raises:
        ValueError: codes that are not finite, shapes that do not fit, a factor that does not vary.
    """
    from sklearn.ensemble import RandomForestClassifier

    train, train_labels, test, test_labels = _split(*_as_pair(codes, factors), num_test, seed)
    importances = np.empty((train.shape[1], train_labels.shape[1]))
    accuracies = []
    for number, (values, true) in enumerate(zip(train_labels.T, test_labels.T, strict=True)):
        # All latents compete in each split: among a random few, one that says nothing wins where the right one is not
        # drawn, and even a perfect code would share out its importances. Small leaves do the same by fitting noise.
        forest = RandomForestClassifier(
            NUM_TREES,
            max_features=None,  # pyright: ignore[reportArgumentType]
            min_samples_leaf=math.ceil(LEAF_SHARE * len(train)),
            random_state=seed,
        )
        forest.fit(train, values)
        importances[:, number] = forest.feature_importances_
        accuracies.append(float((forest.predict(test) == true).mean()))
    total = max(float(importances.sum()), np.finfo(float).tiny)  # a code that never varies matters for nothing
    return DCI(
        disentanglement=float(_concentrations(importances) @ importances.sum(axis=1) / total),
        completeness=float(_concentrations(importances.T) @ importances.sum(axis=0) / total),
        informativeness=float(np.mean(accuracies)),
        importances=importances,
    )


def sap(codes: ArrayLike, factors: ArrayLike, num_test: int | None = None, seed: int = 0) -> float:
    """Separated attribute predictability: how much better the best latent alone tells a factor than the second best.

    Kumar et al. 2018, section 3, for categorical factors: the score of a latent is the accuracy of a linear SVM. It
    sees the latent as it is, in its own unit, and tells a value from the others by thresholds, so a factor of many
    values stays far from 1 even in a perfect code, and one of two equally likely values at 0.5.

    Args:
        codes: (N, d) means of the latents, d >= 2.
        factors: (N, k) integers, k >= 2.
        num_test: Samples, drawn at random, whose accuracy counts; a third if not given.
        seed: Seeds the draw.

    Returns:
        The mean over the factors, in [0, 1].

    Raises:
        ValueError: codes that are not finite, shapes that do not fit, a factor that does not vary.
    """
    from sklearn.svm import LinearSVC

    train, train_labels, test, test_labels = _split(*_as_pair(codes, factors), num_test, seed)
    accuracies = np.empty((train.shape[1], train_labels.shape[1]))
    for i in range(train.shape[1]):
        for j in range(train_labels.shape[1]):
            # "auto" is the primal problem here: the solution of the dual one, which the papers' code ran, but exact.
            machine = LinearSVC(C=0.01, class_weight="balanced", dual="auto").fit(train[:, [i]], train_labels[:, j])
            accuracies[i, j] = np.mean(machine.predict(test[:, [i]]) == test_labels[:, j])
    return float(_top_two_gap(accuracies).mean())


def _largest_share(information: Array) -> float:
    """The mean over rows of (largest entry / sum of the row), moved from [1 / columns, 1] to [0, 1].

    A row of zeros prefers no column. With one column there is nothing to share.
    """
    columns = information.shape[1]
    if columns == 1:
        return 1.0
    totals = information.sum(axis=1)
    shares = np.divide(information.max(axis=1), totals, out=np.full(len(totals), 1 / columns), where=totals > 0)
    return float((shares.mean() - 1 / columns) / (1 - 1 / columns))


def _explicitness(codes: Array, labels: Indices, entropies: Array) -> float:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.preprocessing import StandardScaler

    standardised = StandardScaler().fit_transform(codes)
    saved = []
    for values, entropy in zip(labels.T, entropies, strict=True):
        classifier = LogisticRegression(C=np.inf, max_iter=1000)
        with warnings.catch_warnings():
            # Classes that can be told apart have their smallest loss, 0, at infinity: it is approached, not reached.
            warnings.simplefilter("ignore", ConvergenceWarning)
            classifier.fit(standardised, values)
        saved.append(1 - log_loss(values, classifier.predict_proba(standardised)) / entropy)
    return float(np.mean(saved))


def info_mec(codes: ArrayLike, factors: ArrayLike, seed: int = 0) -> InfoMEC:
    """Modularity, explicitness and compactness in terms of information (Hsu et al. 2023).

    Mutual information of a continuous latent and a discrete factor is estimated from the 10 nearest neighbours. A
    latent is inactive if its range is at most a twentieth of the widest one's: that supposes one unit for all latents,
    as a common prior gives them. Inactive ones still count for the explicitness. Without an active latent modularity
    and compactness are 0; with a single one the compactness is 1.

    Args:
        codes: (N, d) means of the latents, d >= 2.
        factors: (N, k) integers, k >= 2.
        seed: Seeds the noise, of relative size 1e-10, that separates equal codes for the nearest neighbours.

    Raises:
        ValueError: codes that are not finite, shapes that do not fit, a factor that does not vary.
    """
    from sklearn.feature_selection import mutual_info_classif

    latents, labels = _as_pair(codes, factors)
    ranges = np.ptp(latents, axis=0)
    active = ranges > ranges.max() * PRUNE_RANGE
    entropies = _entropies(labels)
    information = np.stack(
        [
            mutual_info_classif(
                latents - latents.mean(axis=0),  # the noise is relative to the size, which an offset must not set
                values,
                n_neighbors=NEIGHBOURS,
                random_state=seed,
            )
            for values in labels.T
        ],
        axis=1,
    )
    information /= entropies
    return InfoMEC(
        modularity=_largest_share(information[active]) if active.any() else 0.0,
        explicitness=_explicitness(latents, labels, entropies),
        compactness=_largest_share(information[active].T) if active.any() else 0.0,
        information=information,
        active=active,
    )


class _Encoder:
    """A `Represent` that is asked for each combination of factors once, and for a limited number of rows at a time.

    The two metrics that fix a factor draw 64 or 128 samples for each of 15,000 points, 2.9 million in all, from sets
    with fewer combinations than that.
    """

    def __init__(self, represent: Represent, factor_sizes: Sequence[int]) -> None:
        sizes = [int(size) for size in factor_sizes]
        if min(sizes, default=0) < 1 or sum(size > 1 for size in sizes) < 2:
            raise ValueError(f"factor sizes {sizes}: all must be positive, and at least two factors must vary")
        self.sizes = np.array(sizes)
        self.varying = np.flatnonzero(self.sizes > 1)
        self._represent = represent
        self._remembers = math.prod(sizes) <= LARGEST_MEMORY
        self._known = np.zeros(math.prod(sizes) if self._remembers else 0, bool)
        self._codes: Array | None = None

    def draw(self, rng: np.random.Generator, *shape: int) -> Indices:
        """Independent, uniform factors, (*shape, k)."""
        return rng.integers(0, self.sizes, (*shape, len(self.sizes)))

    def __call__(self, factors: Indices) -> Array:
        """Codes (..., d) of factors (..., k)."""
        rows = factors.reshape(-1, factors.shape[-1])
        if not self._remembers:
            codes = self._encode(rows)
        else:
            numbers = np.asarray(np.ravel_multi_index(tuple(rows.T), tuple(self.sizes)))
            new = np.unique(numbers[~self._known[numbers]])
            if len(new):
                codes = self._encode(np.stack(np.unravel_index(new, tuple(self.sizes)), axis=1).astype(np.int64))
                if self._codes is None:
                    self._codes = np.empty((len(self._known), codes.shape[1]))
                self._codes[new] = codes
                self._known[new] = True
            assert self._codes is not None
            codes = self._codes[numbers]
        return codes.reshape(*factors.shape[:-1], -1)

    def _encode(self, rows: Indices) -> Array:
        parts = []
        for start in range(0, len(rows), ROWS_AT_ONCE):
            part = rows[start : start + ROWS_AT_ONCE]
            parts.append(_as_codes(self._represent(part)))
            if len(parts[-1]) != len(part):
                raise ValueError(
                    f"represent gave {len(parts[-1])} codes for {len(part)} rows of factors: one for each"
                )
        return np.concatenate(parts)


def _encoder_of(represent: Represent, factor_sizes: Sequence[int]) -> _Encoder:
    return represent if isinstance(represent, _Encoder) else _Encoder(represent, factor_sizes)


def _fixed_factors(encoder: _Encoder, count: int, rng: np.random.Generator) -> Iterator[Indices]:
    """Which factor is fixed at each of `count` points, some hundreds at a time: each needs a batch of codes."""
    for start in range(0, count, 250):
        yield rng.choice(encoder.varying, min(250, count - start))


def beta_vae_score(
    represent: Represent, factor_sizes: Sequence[int], num_train: int = 10_000, num_test: int = 5_000, seed: int = 0
) -> float:
    """Accuracy of telling which factor two batches of samples share from how far apart their codes are.

    Higgins et al. 2017, section 3: a point is the mean |z1 - z2| over 64 pairs whose samples agree in one factor, and
    differ at random in all others; a linear classifier names the factor.

    Args:
        represent: From factor indices (n, k) to codes (n, d), d >= 2; deterministic.
        factor_sizes: (k,) numbers of values. Factors with a single one are drawn, but never the shared one.
        num_train: Points to train on.
        num_test: Points to test on.
        seed: Seeds the draws.

    Returns:
        In [0, 1]; chance is 1 / (number of factors that vary).

    Raises:
        ValueError: if less than two factors vary, or codes are not finite or misshapen.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    encoder, rng = _encoder_of(represent, factor_sizes), np.random.default_rng(seed)

    def points(count: int) -> tuple[Array, Indices]:
        distances, shared = [], []
        for fixed in _fixed_factors(encoder, count, rng):
            first, second = encoder.draw(rng, len(fixed), BATCH_SIZE), encoder.draw(rng, len(fixed), BATCH_SIZE)
            each = np.arange(len(fixed))
            second[each, :, fixed] = first[each, :, fixed]
            distances.append(np.abs(encoder(first) - encoder(second)).mean(axis=1))
            shared.append(fixed)
        return np.concatenate(distances), np.concatenate(shared)

    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(*points(num_train))
    unseen, shared = points(num_test)
    return float((classifier.predict(unseen) == shared).mean())


def factor_vae_score(
    represent: Represent, factor_sizes: Sequence[int], num_train: int = 10_000, num_test: int = 5_000, seed: int = 0
) -> float:
    """Accuracy of telling which factor a batch of samples shares from the latent that varies least in it.

    Kim & Mnih 2018, section 4: the variances over a batch of 64 are divided by those over `num_train` free samples,
    and each latent stands for the factor it was the least varying for most often. Latents of a standard deviation
    below 0.05, the unit being the prior's, are left out: noise alone would decide whether they vary least.

    Args:
        represent: From factor indices (n, k) to codes (n, d), d >= 2; deterministic.
        factor_sizes: (k,) numbers of values. Factors with a single one are drawn, but never the shared one.
        num_train: Batches that vote for what a latent stands for.
        num_test: Batches to test on.
        seed: Seeds the draws.

    Returns:
        In [0, 1]; chance is 1 / (number of factors that vary), and 0 stands for a code whose latents are all pruned.

    Raises:
        ValueError: if less than two factors vary, or codes are not finite or misshapen.
    """
    encoder, rng = _encoder_of(represent, factor_sizes), np.random.default_rng(seed)
    variances = encoder(encoder.draw(rng, num_train)).var(axis=0, ddof=1)
    active = np.sqrt(variances) >= PRUNE_STD
    if not active.any():
        return 0.0

    def votes(count: int) -> Indices:
        """(active latents, k): how often each latent varied least while each factor was fixed."""
        cast = np.zeros((int(active.sum()), len(encoder.sizes)), np.int64)
        for fixed in _fixed_factors(encoder, count, rng):
            factors = encoder.draw(rng, len(fixed), BATCH_SIZE)
            each = np.arange(len(fixed))
            factors[each, :, fixed] = factors[each, 0, fixed][:, None]
            local = encoder(factors).var(axis=1, ddof=1)[:, active]
            np.add.at(cast, (np.argmin(local / variances[active], axis=1), fixed), 1)
        return cast

    stands_for = votes(num_train).argmax(axis=1)
    unseen = votes(num_test)
    return float(unseen[np.arange(len(unseen)), stands_for].sum() / num_test)


def report(
    represent: Represent,
    factor_sizes: Sequence[int],
    num_train: int = 10_000,
    num_test: int = 5_000,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, float]:
    """All metrics of one representation.

    Where the factors have at most two million combinations, each is represented once at most.

    Args:
        represent: From factor indices (n, k) to codes (n, d), d >= 2; deterministic.
        factor_sizes: (k,) numbers of values; factors are independent and uniform. One with a single value is passed
            to `represent`, but not scored.
        num_train: Samples, or batches with a fixed factor, that each metric is fitted on.
        num_test: Further ones that the predictions are tested on.
        seed: Seeds everything.
        progress: Whether to show a bar over the metrics, on a terminal.

    Returns:
        The names of the metrics and their values, each in [0, 1] and better if higher.

    Raises:
        ValueError: if less than two factors vary, samples are so few that one does not vary in them, or codes are not
            finite or misshapen.
    """
    encoder = _encoder_of(represent, factor_sizes)
    factors = encoder.draw(np.random.default_rng(seed), num_train + num_test)
    codes = encoder(factors)
    factors = factors[:, encoder.varying]

    def metrics() -> Iterator[dict[str, float]]:
        yield {"mig": mutual_information_gap(codes[:num_train], factors[:num_train])}
        found = dci(codes, factors, num_test, seed)
        yield {
            "dci_disentanglement": found.disentanglement,
            "dci_completeness": found.completeness,
            "dci_informativeness": found.informativeness,
        }
        yield {"sap": sap(codes, factors, num_test, seed)}
        found = info_mec(codes[:num_train], factors[:num_train], seed)
        yield {"info_m": found.modularity, "info_e": found.explicitness, "info_c": found.compactness}
        yield {"beta_vae_score": beta_vae_score(encoder, factor_sizes, num_train, num_test, seed)}
        yield {"factor_vae_score": factor_vae_score(encoder, factor_sizes, num_train, num_test, seed)}

    scores: dict[str, float] = {}
    for found in tqdm(metrics(), desc="disentanglement", total=6, unit="metric", disable=None if progress else True):
        scores |= found
    return scores
