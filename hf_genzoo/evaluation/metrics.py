"""What each metric is called, which way it is better, and what it says: one table for results, cards and comparisons.

Nothing heavy is imported here.
"""

import math
from dataclasses import dataclass
from typing import Literal

HEADLINE = COVERAGE = "coverage"
"""The one number of a model: in the features of a classifier or of random convolutions it stays the same as samples
are added, and puts known generators into their order (benchmarks/README.md, "Which metric to trust")."""

QUALITY = "frechet_ratio"
"""The axis of quality where models are compared, which is at equal numbers of samples only: it orders them nearly as
well, and tells apart what coverage has no room for."""
MIXTURE = "PCA + mixture"
"""Name of the calibration row that every trained model has to beat."""


@dataclass(frozen=True)
class Quantity:
    """What a number is, for a reader who has not read the paper.

    Attributes:
        title: Name in tables and on axes.
        unit: Unit, empty where there is none.
        better: Which way is better; "ideal" where both too little and too much are wrong.
        ideal: What samples of the data's own law score; None where that depends on the data or the sample's size.
        explanation: One sentence.
        least: What it cannot be below, None where there is no such bound.
        most: What it cannot be above.
        log: Whether it is drawn on a logarithmic axis, as long as all of it is positive.
    """

    title: str
    unit: str
    better: Literal["lower", "higher", "ideal"]
    ideal: float | None
    explanation: str
    log: bool = False
    least: float | None = None
    most: float | None = None

    @property
    def direction(self) -> str:
        """In words: "lower is better, ideal 1"."""
        if self.better == "ideal":
            return f"best at {self.ideal:g}"
        return f"{self.better} is better" + ("" if self.ideal is None else f", ideal {self.ideal:.2g}")


METRICS: dict[str, Quantity] = {
    "frechet_ratio": Quantity(
        "Frechet ratio",
        "",
        "lower",
        1.0,
        "Frechet distance of the samples over that of as many real training pictures, both to the same held-out"
        " pictures: 1 means that this distance cannot tell them apart at this number of samples. It grows with the"
        " number, so compare it at equal numbers only.",
        log=True,
        least=0.0,
    ),
    "frechet_distance": Quantity(
        "Frechet distance",
        "",
        "lower",
        None,
        "Distance of two Gaussians fitted to the features of real and of generated pictures (FID with another feature"
        " extractor); it grows as samples get fewer, so compare it at equal numbers only.",
        log=True,
        least=0.0,
    ),
    "frechet_distance_infinity": Quantity(
        "Frechet distance at infinite N",
        "",
        "lower",
        0.0,
        "The Frechet distance extrapolated to infinitely many samples; it may come out slightly negative.",
        log=True,
    ),
    "kernel_distance": Quantity(
        "Kernel distance",
        "",
        "lower",
        0.0,
        "Squared distance of the two samples under a cubic kernel (KID): zero on average, and so sometimes negative,"
        " for samples of the data's own law.",
        log=True,
    ),
    "cmmd": Quantity(
        "CMMD",
        "",
        "lower",
        0.0,
        "Squared distance of the two samples under a Gaussian kernel, times 1000; zero on average for samples of the"
        " data's own law.",
        log=True,
    ),
    "precision": Quantity(
        "Precision",
        "",
        "higher",
        None,
        "Share of generated pictures that lie near a real one: do the samples look real? What real pictures score"
        " is in their row.",
        least=0.0,
        most=1.0,
    ),
    "recall": Quantity(
        "Recall",
        "",
        "higher",
        None,
        "Share of real pictures that lie near a generated one, where a lone outlier counts as near to much: is"
        " everything in the data also generated?",
        least=0.0,
        most=1.0,
    ),
    "density": Quantity(
        "Density",
        "",
        "ideal",
        1.0,
        "How many real neighbourhoods a generated picture lies in, relative to what real pictures do: below 1 off the"
        " data, above 1 crowded where the data are densest.",
        least=0.0,
    ),
    "coverage": Quantity(
        "Coverage",
        "",
        "higher",
        1 - 2**-5,
        "Share of real pictures with a generated one nearer than their fifth nearest real one: is everything in the"
        " data also generated? Real pictures score about 0.97.",
        least=0.0,
        most=1.0,
    ),
    "sliced_wasserstein": Quantity(
        "Sliced Wasserstein distance",
        "",
        "lower",
        None,
        "How far features have to be moved to turn one sample into the other, averaged over random directions; above"
        " zero at any finite number of samples.",
        log=True,
        least=0.0,
    ),
    "inception_score": Quantity(
        "Inception score",
        "",
        "higher",
        None,
        "How sure a classifier is of each sample while all classes occur; it never looks at the real pictures.",
        least=1.0,
    ),
    "nearest_ratio": Quantity(
        "Distance to training data",
        "",
        "ideal",
        1.0,
        "Median distance of a sample to the nearest training picture, over that of held-out pictures: near 0 for"
        " copies, above 1 for samples off the data.",
    ),
    "class_balance_kl": Quantity(
        "Class imbalance",
        "nats",
        "lower",
        None,
        "How far the classes of the samples are from being equally frequent; a perfect sampler scores a little"
        " above zero.",
        log=True,
        least=0.0,
    ),
    "kernel_test_p": Quantity(
        "Kernel test, p-value",
        "",
        "higher",
        None,
        "Probability of a kernel distance as large as this one if samples and data were of one law.",
    ),
    "classifier_test_accuracy": Quantity(
        "Classifier test, accuracy",
        "",
        "lower",
        0.5,
        "How often a classifier tells samples from real pictures that it has not seen: 0.5 is chance.",
    ),
    "conditional_accuracy": Quantity(
        "Conditional accuracy",
        "",
        "higher",
        1.0,
        "Share of samples that a classifier of real pictures puts in the class that was asked for.",
    ),
    "conditional_accuracy_real": Quantity(
        "The same of real pictures",
        "",
        "higher",
        1.0,
        "Accuracy of that classifier on held-out pictures: no more can be expected of samples.",
    ),
    "reconstruction_mse": Quantity(
        "Reconstruction error (MSE)",
        "",
        "lower",
        0.0,
        "Mean squared error of held-out pictures that were encoded and decoded, pixels in [0, 1].",
        log=True,
    ),
    "reconstruction_psnr": Quantity(
        "Reconstruction PSNR",
        "dB",
        "higher",
        None,
        "Peak signal-to-noise ratio of held-out pictures that were encoded and decoded.",
    ),
    "reconstruction_ssim": Quantity(
        "Reconstruction SSIM",
        "",
        "higher",
        1.0,
        "Structural similarity of held-out pictures and what comes back of them.",
    ),
    "super_resolution_psnr": Quantity(
        "Super-resolution PSNR",
        "dB",
        "higher",
        None,
        "Peak signal-to-noise ratio of held-out pictures that were made small and enlarged by the model. One answer"
        " drawn from all that fit loses up to 3 dB against their mean, which is soft.",
    ),
    "super_resolution_ssim": Quantity(
        "Super-resolution SSIM",
        "",
        "higher",
        1.0,
        "Structural similarity of these answers and the pictures as they were.",
    ),
    "low_resolution_consistency": Quantity(
        "Error of the answer made small again",
        "",
        "lower",
        0.0,
        "Mean squared error between what was given and the answer made small again, pixels in [0, 1].",
        log=True,
        least=0.0,
    ),
    "super_resolution_psnr_of_mean": Quantity(
        "PSNR of the mean of answers",
        "dB",
        "higher",
        None,
        "Peak signal-to-noise ratio of the mean of eight answers to each of a few held-out pictures.",
    ),
    "super_resolution_gain_of_mean": Quantity(
        "What the mean gains",
        "dB",
        "ideal",
        10 * math.log10(2 / (1 + 1 / 8)),
        "That PSNR less the mean one of the eight answers. Draws from the true law of all that fits gain 2.5 dB, a"
        " model that always gives the same answer nothing.",
    ),
    "text_count": Quantity(
        "Right number of objects", "", "higher", 1.0, "Share of pictures with as many objects as the caption has."
    ),
    "text_size": Quantity("Right size", "", "higher", 1.0, "Share of the captions' objects whose size is right."),
    "text_colour": Quantity(
        "Right colour", "", "higher", 1.0, "Share of the captions' objects whose colour is right."
    ),
    "text_shape": Quantity("Right shape", "", "higher", 1.0, "Share of the captions' objects whose shape is right."),
    "text_relation": Quantity(
        "Right relation", "", "higher", 1.0, "Share of captions with two objects whose relation holds in the picture."
    ),
    "text_slots": Quantity(
        "Text alignment by slot", "", "higher", 1.0, "Share of a caption's facts that its picture shows."
    ),
    "text_slots_shuffled": Quantity(
        "The same, captions exchanged", "", "lower", None, "The control: what chance gives."
    ),
    "text_all_correct": Quantity(
        "Text alignment, all correct", "", "higher", 1.0, "Share of pictures that show every fact of their caption."
    ),
    "text_all_correct_one": Quantity(
        "The same, one object", "", "higher", 1.0, "Of captions with one object of a kind that training has shown."
    ),
    "text_all_correct_two": Quantity(
        "The same, two objects", "", "higher", 1.0, "Of captions with two objects of kinds that training has shown."
    ),
    "text_all_correct_one_held_out": Quantity(
        "The same, one object, new",
        "",
        "higher",
        1.0,
        "Of captions with one object whose colour and shape training has not shown together.",
    ),
    "text_all_correct_two_held_out": Quantity(
        "The same, two objects, new",
        "",
        "higher",
        1.0,
        "Of captions with two objects, one of which at least has such a colour and shape.",
    ),
    "text_all_correct_shuffled": Quantity(
        "The same, captions exchanged (all)",
        "",
        "lower",
        None,
        "The control: how often another picture's caption fits by chance.",
    ),
    "modes": Quantity(
        "Modes covered",
        "",
        "higher",
        None,
        "Modes of the true density with a sample within three standard deviations.",
    ),
    "high_quality": Quantity(
        "High-quality share", "", "higher", None, "Share of samples within three standard deviations of a mode."
    ),
    "reverse_kl": Quantity(
        "Reverse KL over modes",
        "nats",
        "lower",
        None,
        "How far the modes of the high-quality samples are from being equally frequent.",
        log=True,
        least=0.0,
    ),
    "reverse_kl_floor": Quantity(
        "Its floor",
        "nats",
        "lower",
        None,
        "What as many samples of the true density score on average: (modes - 1) / (2 N).",
        log=True,
    ),
    "wasserstein_2": Quantity(
        "Wasserstein-2 distance",
        "",
        "lower",
        None,
        "Exact transport distance to as many real points; above zero at any finite number.",
        log=True,
    ),
    "negative_log_likelihood": Quantity(
        "Negative log-likelihood",
        "nats",
        "lower",
        None,
        "Mean under the true density; below that of real points, samples huddle at the modes.",
    ),
    "bits_per_dimension": Quantity(
        "Bits per dimension",
        "bits",
        "lower",
        None,
        "Negative log-likelihood of held-out 8-bit pictures under the model, over the number of pixels and channels;"
        " no knowledge at all is 8.",
    ),
    "beta_vae_score": Quantity(
        "beta-VAE score", "", "higher", 1.0, "Accuracy of telling from two codes which factor they share."
    ),
    "factor_vae_score": Quantity(
        "FactorVAE score", "", "higher", 1.0, "Likewise, from the latent that varies least, by majority vote."
    ),
    "mig": Quantity(
        "Mutual information gap",
        "",
        "higher",
        1.0,
        "How far the best latent of each factor is ahead of the second, as a share of the factor's entropy.",
    ),
    "dci_disentanglement": Quantity(
        "DCI disentanglement", "", "higher", 1.0, "Whether each latent serves one factor."
    ),
    "dci_completeness": Quantity("DCI completeness", "", "higher", 1.0, "Whether each factor is held by one latent."),
    "dci_informativeness": Quantity(
        "DCI informativeness", "", "higher", 1.0, "Accuracy of predicting the factors from the code."
    ),
    "sap": Quantity("SAP", "", "higher", 1.0, "Gap of the two latents that predict a factor best alone."),
    "info_m": Quantity("InfoM", "", "higher", 1.0, "Modularity by mutual information: each latent serves one factor."),
    "info_e": Quantity(
        "InfoE", "", "higher", 1.0, "Explicitness: how well a linear model reads the factors from the code."
    ),
    "info_c": Quantity(
        "InfoC", "", "higher", 1.0, "Compactness by mutual information: each factor is held by one latent."
    ),
}
