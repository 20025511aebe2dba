"""A classifier of small pictures whose penultimate activations serve as features.

Plain convolutions with batch normalisation (Ioffe & Szegedy 2015), after the networks that reach 99.5 % on MNIST in
minutes. The activations in front of the last layer are the space in which the measurements compare pictures.
"""

from collections.abc import Mapping

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

SMALLEST, LARGEST = 8, 256


class ConvClassifier(ModelMixin, ConfigMixin):
    """Classes of square pictures.

    Each stage holds two convolutions, the first of which halves the picture, until at most 8 pixels are left (an 8 x 8
    picture is not halved). The last stage has 64 channels up to 32 pixels, 128 above, and each one before it half as
    many: large pictures cost about fifteen times the arithmetic of 28 x 28 ones, not a hundred times.

    Args:
        sample_size: Height and width of the pictures, 8 to 256.
        in_channels: Channels of the pictures, 1 or 3.
        num_classes: Number of classes.
        feature_dim: Length of the features.
        dropout: Share of the activations that are dropped in front of the features while training.
        id2label: Name of each class by its number; the numbers themselves by default.

    Raises:
        ValueError: if a size is out of range, or `id2label` does not name every class.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 28,
        in_channels: int = 1,
        num_classes: int = 10,
        feature_dim: int = 128,
        dropout: float = 0.25,
        id2label: Mapping[int, str] | None = None,
    ):
        super().__init__()
        if not SMALLEST <= sample_size <= LARGEST:
            raise ValueError(
                f"sample_size is {sample_size}: it must be from {SMALLEST} to {LARGEST}; resize the pictures"
            )
        if in_channels not in (1, 3):
            raise ValueError(f"in_channels is {in_channels}: it must be 1 (grey) or 3 (RGB)")
        if num_classes < 2:
            raise ValueError(f"num_classes is {num_classes}: a classifier needs at least 2")
        self.class_names = _names(id2label, num_classes)

        halvings = max(0, (sample_size - 1).bit_length() - 3)
        stages = max(2, halvings)
        last = 32 << (min(stages, 3) - 1)
        layers: list[nn.Module] = []
        width, size = in_channels, sample_size
        for stage in range(stages):
            width_out = last >> (stages - 1 - stage)
            stride = 2 if stage >= stages - halvings else 1
            layers += _block(width, width_out, kernel_size=5 if stage == 0 else 3, stride=stride)
            layers += _block(width_out, width_out)
            width, size = width_out, -(-size // stride)
        self.body = nn.Sequential(
            *layers,
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(width * (size // 2) ** 2, feature_dim),
            nn.ReLU(),
        )
        self.head = nn.Linear(feature_dim, num_classes)

    def features(self, pixels: Tensor) -> Tensor:
        """Penultimate activations (B, feature_dim), not negative, of pictures (B, C, H, W) in [-1, 1]."""
        return self.body(pixels)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (B, num_classes) of pictures (B, C, H, W) in [-1, 1]."""
        return self.head(self.features(pixels))


def _block(inputs: int, outputs: int, kernel_size: int = 3, stride: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, kernel_size, stride, padding=kernel_size // 2, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()


def _names(id2label: Mapping[int, str] | None, num_classes: int) -> list[str]:
    if id2label is None:
        return [str(number) for number in range(num_classes)]
    named = {int(number): name for number, name in id2label.items()}  # a config read from JSON has texts as keys
    if named.keys() != set(range(num_classes)):
        raise ValueError(f"id2label names the classes {sorted(named)}: it must name 0 to {num_classes - 1}")
    return [named[number] for number in range(num_classes)]
