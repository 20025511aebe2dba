"""Train a classifier of pictures: a judge of generated ones, and a space in which to measure distances.

A small convolutional network learns the classes of real pictures. What it is for: its penultimate activations are
features for Frechet distances, coverage and the like (`get_extractor` takes its folder), and its answers say whether a
class-conditional generator draws what it is asked for. It is trained on real pictures only, so it favours no
generator; distances of two different classifiers cannot be compared.

Recipe: AdamW with a one-cycle learning rate (Smith & Topin 2019, https://arxiv.org/abs/1708.07120), small random
rotations, scales and shifts.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from transformers import HfArgumentParser

import hf_genzoo
from hf_genzoo.data import DataArgs, MapImages, image_dataset
from hf_genzoo.evaluation.classifier import accuracy, train_classifier
from hf_genzoo.flags import HelpFormatter
from hf_genzoo.training.args import flag

RECORD = "classifier.json"
MOST_HELD_OUT = 10_000  # an accuracy of 99 % is then known to 0.2 points
EXAMPLES = """examples:
  python -m hf_genzoo.training_scripts.train_classifier --dataset_name digits --resolution 28 --num_channels 1 \\
      --validation_split validation --output_dir outputs/digit-classifier
      # about a minute; then: a classifier that reads 98 % of unseen digits, and classifier.json that says so
  python -m hf_genzoo.training_scripts.train_classifier --train_data_dir my_pictures/ --resolution 64
      # one folder a class; a tenth of the pictures is held out to measure the accuracy
"""


@dataclass
class Args(DataArgs):
    """Flags of the classifier; those of the data come from `DataArgs`.

    Raises:
        ValueError: on construction, when a value is out of range; the message names the flag and the fix.
    """

    class_column: str | None = flag("label", "Column of classes (ClassLabel, integers or strings).")
    validation_split: str | None = flag(
        None, "Split that the accuracy is measured on. By default a tenth of the training split is held out for it."
    )
    output_dir: str = flag("outputs/classifier", "Folder for the classifier and classifier.json.")
    num_train_epochs: int | None = flag(
        None, "Passes over the data. By default 20, or as many as show 400,000 pictures: more helps neither set."
    )
    train_batch_size: int = flag(128, "Pictures of one step.")
    learning_rate: float = flag(4e-3, "Peak of the one-cycle learning rate.")
    seed: int = flag(0, "Seed of weights, order, augmentation and of what is held out.")

    def __post_init__(self) -> None:
        for name, least in (("num_train_epochs", 1), ("train_batch_size", 2), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"--{name} is {value!r}: it must be at least {least}")
        if self.learning_rate <= 0:
            raise ValueError(f"--learning_rate is {self.learning_rate!r}: it must be above 0")
        if self.class_column is None:
            raise ValueError("--class_column: a classifier needs the column of the classes")
        if self.validation_split == self.dataset_split:
            raise ValueError(f"--validation_split {self.validation_split!r} is what is trained on: name another split")
        if self.streaming:
            raise ValueError("--streaming: the classifier looks at every picture several times; leave it out")


def main(args: Args) -> Path:
    """Train, measure and save.

    Returns:
        The folder with the classifier and classifier.json.

    Raises:
        ValueError: if a flag, the data or their classes are not as they should be.
        FloatingPointError: if the training diverges.
        OSError: if the data cannot be had, or the folder cannot be written.
    """
    accelerator, folder = Accelerator(), Path(args.output_dir)
    if not accelerator.is_main_process:
        return folder  # one process trains: the network is too small to share
    data = _pictures(args, args.dataset_split)
    if args.validation_split is None:
        rows, chosen = hold_out(data.num_samples, args.seed)
        unseen, answers = data.pixels[chosen], data.labels[chosen]  # pyright: ignore[reportOptionalSubscript]
    else:
        held_out = _pictures(args, args.validation_split)
        rows, unseen, answers = None, held_out.pixels, held_out.labels
    net = train_classifier(
        data.pixels,
        data.labels,  # pyright: ignore[reportArgumentType]
        data.class_names or [],
        rows=rows,
        epochs=args.num_train_epochs,
        seed=args.seed,
        batch_size=args.train_batch_size,
        learning_rate=args.learning_rate,
        random_flip=args.random_flip,
        device=accelerator.device,
    )
    found = accuracy(net, unseen, answers)  # pyright: ignore[reportArgumentType]
    net.save_pretrained(folder)
    record = {
        "accuracy": asdict(found),
        "data": {"name": data.name, "fingerprint": data.fingerprint, "num_samples": data.num_samples},
        "classes": net.class_names,
        "epochs": args.num_train_epochs or "automatic",
        "args": asdict(args),
        "versions": {"hf_genzoo": hf_genzoo.__version__, "torch": torch.__version__, "numpy": np.__version__},
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n")
    print(f"held-out accuracy: {found}\nwritten to {folder}")
    return folder


def _pictures(args: Args, split: str) -> MapImages:
    data = image_dataset(args, split=split)
    assert isinstance(data, MapImages), "--streaming was refused"
    return data


def hold_out(count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers of the samples to learn from and of those to keep apart: a random tenth, at most 10,000.

    Raises:
        ValueError: if there are too few to keep any apart.
    """
    if count < 10:
        raise ValueError(f"{count} pictures are too few to hold a tenth out; name a --validation_split")
    order = np.random.default_rng(seed).permutation(count)
    apart = min(count // 10, MOST_HELD_OUT)
    return np.sort(order[apart:]), np.sort(order[:apart])


def run(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, run `main`, and turn bad input into one line without a stack trace.

    Returns:
        0 when the classifier was trained, 1 when it could not be.
    """
    parser = HfArgumentParser(
        Args,  # pyright: ignore[reportArgumentType]
        description=__doc__,
        epilog=EXAMPLES,
        allow_abbrev=False,
        formatter_class=HelpFormatter,
    )
    namespace = vars(parser.parse_args(argv))
    try:
        main(Args(**namespace))
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"classifier: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run())
