"""Training the classifier in whose features the measurements compare pictures, and what it gets right.

It learns from real training pictures only, so no downloaded weights decide which generator wins. Distances in its
features are comparable with each other within one classifier, not across two of them.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from hf_genzoo.evaluation.resize import check_square, resize, with_channels
from hf_genzoo.models.classifier import ConvClassifier

MOST_EPOCHS = 20
"""Passes after which more of them help no set: 4,000 digits reach their plateau."""

MOST_SEEN = 400_000
"""Pictures that pass in all when nobody says how often: about 100 s on two cores at 28 x 28."""

RISE, START = 0.2, 0.04  # of the learning rate: share of the steps, share of the peak
ROTATION, SCALE, SHIFT = math.radians(10), 0.1, 2 / 28  # at most; the shift as a share of the picture
_NORMAL_97_5 = 1.959964


@dataclass(frozen=True)
class Accuracy:
    """Share of pictures whose class was recognised.

    Attributes:
        value: The share.
        low: Lower end of its 95 % interval (Wilson 1927), which stays within [0, 1] and holds for shares near 1.
        high: Upper end.
        num_samples: Pictures it was measured on.
    """

    value: float
    low: float
    high: float
    num_samples: int

    @classmethod
    def of(cls, correct: int, count: int) -> "Accuracy":
        """From the number of correct answers.

        Raises:
            ValueError: if there were no questions, or more correct answers than questions.
        """
        if not 0 <= correct <= count or count == 0:
            raise ValueError(f"{correct} of {count} correct answers: there must be at least one picture")
        share, weight = correct / count, _NORMAL_97_5**2 / count
        middle = (share + weight / 2) / (1 + weight)
        reach = math.sqrt(weight * share * (1 - share) + weight**2 / 4) / (1 + weight)
        return cls(share, max(0.0, middle - reach), min(1.0, middle + reach), count)

    def __str__(self) -> str:
        return f"{self.value:.2%} (95 % interval {self.low:.2%} to {self.high:.2%}, n = {self.num_samples:,})"


def to_pixels(images: NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """uint8 (B, C, H, W) to float32 in [-1, 1] on the device."""
    return torch.tensor(images, device=device).float().div_(127.5).sub_(1)


def augment(pixels: Tensor) -> Tensor:
    """A random rotation (up to 10 degrees), scale (10 %) and shift (2 of 28 pixels) of every picture (B, C, H, W).

    What comes from outside has the colour of the nearest border pixel.
    """
    count = len(pixels)
    angle, scale = _spread(count) * ROTATION, 1 + _spread(count) * SCALE
    shift = 2 * SHIFT * _spread(count, 2)  # the picture is 2 wide in the coordinates of the grid
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    rows = torch.stack([cosine, -sine, shift[:, 0], sine, cosine, shift[:, 1]], dim=1).view(count, 2, 3)
    grid = F.affine_grid(rows.to(pixels.device), list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def _spread(*shape: int) -> Tensor:
    return torch.rand(shape) * 2 - 1


def train_classifier(
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    *,
    rows: NDArray[np.int64] | None = None,
    epochs: int | None = None,
    seed: int = 0,
    batch_size: int = 128,
    learning_rate: float = 4e-3,
    random_flip: bool = False,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> ConvClassifier:
    """Train with AdamW and a one-cycle learning rate (Smith & Topin 2019, "Super-Convergence").

    The same seed gives the same weights on one machine's CPU with one number of threads. The state of torch's random
    numbers is left as it was.

    Args:
        pixels: uint8 (N, C, H, W), square, 8 to 256 pixels high; a memory map is read one batch at a time.
        labels: int64 (N,), 0 to len(class_names) - 1.
        class_names: Name of each class, at least two.
        rows: Numbers of the pictures to learn from; all of them by default.
        epochs: Passes over the data. By default 20, or as many as show 400,000 pictures; of a larger set that many
            pictures are drawn at random.
        seed: Seeds weights, order and augmentation.
        batch_size: Pictures of a step; the incomplete batch at the end of a pass is left out.
        learning_rate: Peak of the learning rate.
        random_flip: Mirror pictures left to right with probability 1/2.
        device: Where to train; the classifier stays there.
        progress: Show a bar on a terminal.

    Raises:
        ValueError: if pictures, labels and names do not fit together, or a number is out of range.
        FloatingPointError: if the training diverges.
    """
    check_square(pixels)
    labels = np.asarray(labels)
    rows = np.arange(len(pixels)) if rows is None else rows
    _check_data(len(pixels), rows, labels, len(class_names))
    _check_settings(epochs, batch_size, learning_rate)
    count, device = len(rows), torch.device(device)
    batch_size = min(batch_size, count)
    steps = epochs * (count // batch_size) if epochs else max(1, min(MOST_EPOCHS * count, MOST_SEEN) // batch_size)

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        net = ConvClassifier(
            sample_size=pixels.shape[2],
            in_channels=pixels.shape[1],
            num_classes=len(class_names),
            id2label=dict(enumerate(class_names)),
        )
        net.to(device=device, memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
        optimizer = torch.optim.AdamW(net.parameters(), learning_rate, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(step, steps))
        loss = torch.zeros(())
        with tqdm(total=steps, desc="classifier", unit="step", disable=None if progress else True) as bar:
            for step, chosen in enumerate(islice(_batches(rows, batch_size), steps)):
                batch = augment(to_pixels(pixels[chosen], device))
                if random_flip:
                    batch = torch.where(_spread(batch_size, 1, 1, 1).to(device) < 0, batch.flip(-1), batch)
                batch = batch.contiguous(memory_format=torch.channels_last)
                loss = F.cross_entropy(net(batch), torch.tensor(labels[chosen], dtype=torch.long, device=device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                if step % 50 == 0:  # reading the loss waits for the device
                    bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
                bar.update()
    if not math.isfinite(loss.item()):
        raise FloatingPointError(f"the classifier's loss is {loss.item()}: lower the learning rate {learning_rate:g}")
    return net.to(memory_format=torch.contiguous_format).eval()  # pyright: ignore[reportCallIssue]


def _batches(rows: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Batches of `rows` in random order, pass after pass without end; the rest of a pass is left out."""
    while True:
        order = torch.randperm(len(rows)).numpy()
        for start in range(0, len(rows) - batch_size + 1, batch_size):
            yield rows[order[start : start + batch_size]]


def one_cycle(step: int, steps: int) -> float:
    """Share of the peak learning rate: a cosine up from 0.04 over a fifth of the steps, and a cosine down to 0."""
    rise = max(1, round(RISE * steps))
    if step < rise:
        return START + (1 - START) * (1 - math.cos(math.pi * step / rise)) / 2
    return (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise))) / 2


def _check_data(count: int, rows: NDArray[np.int64], labels: np.ndarray, num_classes: int) -> None:
    if len(rows) < 2:
        raise ValueError(f"a classifier needs at least 2 pictures, there are {len(rows)}")
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise ValueError(f"labels are {labels.dtype} {labels.shape}: they must be integers, one for each picture")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"labels go from {labels.min()} to {labels.max()}, but there are {num_classes} class names")
    if len(np.unique(labels[rows])) < 2:
        raise ValueError(f"all {len(rows)} pictures have class {labels[rows[0]]}: a classifier needs two classes")


def _check_settings(epochs: int | None, batch_size: int, learning_rate: float) -> None:
    if epochs is not None and epochs < 1:
        raise ValueError(f"epochs is {epochs}: it must be at least 1, or None")
    if batch_size < 2:
        raise ValueError(f"batch_size is {batch_size}: it must be at least 2, for the batch normalisation")
    if learning_rate <= 0:
        raise ValueError(f"learning_rate is {learning_rate}: it must be above 0")


@torch.inference_mode()
def classify(
    net: ConvClassifier, images: NDArray[np.uint8], batch_size: int = 500
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features (N, feature_dim) and class probabilities (N, num_classes) of square pictures (N, C, H, W).

    Pictures are resized and converted to the size and the channels that the classifier was trained on.

    Raises:
        ValueError: if the pictures are no square 8-bit ones.
    """
    check_square(images)
    config, features, probabilities = net.config, [], []
    for start in range(0, len(images), batch_size):
        part = resize(with_channels(images[start : start + batch_size], config["in_channels"]), config["sample_size"])
        found = net.features(to_pixels(part, net.device))
        features.append(found.cpu().numpy())
        probabilities.append(net.head(found).softmax(dim=1).cpu().numpy())
    return np.concatenate(features), np.concatenate(probabilities)


def accuracy(net: ConvClassifier, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Accuracy:
    """How often the classifier recognises pictures (N, C, H, W) whose classes (N,) are known."""
    predicted = classify(net, images)[1].argmax(axis=1)
    return Accuracy.of(int((predicted == labels).sum()), len(labels))
