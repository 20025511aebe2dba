"""The flags that choose and shape training data. Imports neither torch nor datasets: `genzoo --help` reads it."""

from dataclasses import dataclass, field

IMAGE_SETS = ("digits", "scenes", "sprites")
"""Embedded image sets: names `--dataset_name` takes before it looks at folders and at the Hub."""

POINT_SETS = ("gaussians2d",)
"""Embedded sets of points in the plane, for `points_dataset`."""

INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")

INT_FLAGS_AT_LEAST = {"resolution": 1, "shuffle_buffer_size": 1, "max_corrupt_images": 0}


@dataclass
class DataArgs:
    """Flags of the data layer; names and meanings follow diffusers' training examples where those have the flag."""

    dataset_name: str | None = field(
        default=None,
        metadata={
            "help": "A dataset id on the Hugging Face Hub, a local folder or file (pictures, Parquet, arrow or "
            "save_to_disk), or an embedded set: digits, sprites, scenes, gaussians2d."
        },
    )
    dataset_config_name: str | None = field(
        default=None,
        metadata={
            "help": "Configuration of the dataset. gaussians2d: ring, grid, swiss_roll, moons; "
            "sprites: binary, antialiased; scenes: compositions (some colours and shapes never together in training)."
        },
    )
    dataset_revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of the dataset on the Hub. A commit pins the data."}
    )
    train_data_dir: str | None = field(
        default=None,
        metadata={
            "help": "A local folder of pictures (with metadata.jsonl or one folder a class), Parquet or arrow files, "
            "instead of --dataset_name."
        },
    )
    dataset_split: str = field(default="train", metadata={"help": "Split to train on."})
    image_column: str = field(default="image", metadata={"help": "Column that holds the pictures."})
    caption_column: str | None = field(
        default=None,
        metadata={"help": "Column of captions; of a list of captions one is drawn each time. Not read by default."},
    )
    class_column: str | None = field(
        default=None,
        metadata={"help": "Column of classes (ClassLabel, integers or strings). Not read by default."},
    )
    num_channels: int = field(
        default=3, metadata={"help": "Channels of the training pictures: 1 (grey) or 3 (RGB); pictures are converted."}
    )
    resolution: int = field(
        default=32, metadata={"help": "Height and width, in pixels, that every picture is resized and cropped to."}
    )
    center_crop: bool = field(
        default=False,
        metadata={
            "help": "Crop the centre of pictures that are not square. By default the place of the crop is random, "
            "drawn once for each picture (and so the same in every epoch)."
        },
    )
    random_flip: bool = field(
        default=False, metadata={"help": "Mirror each picture left to right with probability 1/2, anew every epoch."}
    )
    image_interpolation_mode: str = field(
        default="lanczos",
        metadata={"help": "Filter of the resize: " + ", ".join(INTERPOLATIONS) + ".", "choices": list(INTERPOLATIONS)},
    )
    max_train_samples: int | None = field(
        default=None,
        metadata={"help": "Train on this many samples only: a fixed random choice, or the first ones when streaming."},
    )
    streaming: bool = field(
        default=False,
        metadata={"help": "Read the data while training instead of preparing it first; memory stays constant."},
    )
    shuffle_buffer_size: int = field(
        default=1000, metadata={"help": "Undecoded samples that the shuffling buffer of a streamed set holds."}
    )
    data_cache_dir: str | None = field(
        default=None,
        metadata={"help": "Folder for prepared pictures. By default $HF_GENZOO_CACHE, else ~/.cache/hf_genzoo."},
    )
    max_corrupt_images: int = field(
        default=100,
        metadata={"help": "Unreadable pictures to skip (each is named in the log) before it is an error."},
    )


def check_args(args: DataArgs) -> None:
    """Refuse values that no dataset can satisfy.

    Raises:
        ValueError: names the flag, its value and what it takes.
    """
    if (args.dataset_name is None) == (args.train_data_dir is None):
        raise ValueError(
            f"give --dataset_name (now {args.dataset_name!r}) or --train_data_dir (now {args.train_data_dir!r})"
        )
    if args.num_channels not in (1, 3):
        raise ValueError(f"--num_channels must be 1 or 3, not {args.num_channels!r}")
    if args.image_interpolation_mode not in INTERPOLATIONS:
        raise ValueError(
            f"--image_interpolation_mode must be one of {', '.join(INTERPOLATIONS)}, "
            f"not {args.image_interpolation_mode!r}"
        )
    for name, least in INT_FLAGS_AT_LEAST.items():
        if getattr(args, name) < least:
            raise ValueError(f"--{name} must be at least {least}, not {getattr(args, name)!r}")
    if args.max_train_samples is not None and args.max_train_samples < 1:
        raise ValueError(f"--max_train_samples must be at least 1, not {args.max_train_samples!r}")
