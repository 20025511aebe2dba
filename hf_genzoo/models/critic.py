"""Critics of the Wasserstein families: image or point in, one unbounded number out.

Papers
- Arjovsky, Chintala & Bottou 2017, "Wasserstein GAN".
- Gulrajani et al. 2017, "Improved Training of Wasserstein GANs".

What differs from the papers and why
- No normalisation at all. BatchNorm is out because the gradient penalty is about one sample's gradient and BatchNorm
  ties the samples together (Gulrajani et al. 2017, section 4); the LayerNorm they put in its place makes the double
  backward dearer and is not needed at this depth.
- No bias in the last layer: it drops out of D(real) - D(fake), so its gradient is zero for ever.
"""

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn


class ConvCritic(ModelMixin, ConfigMixin):
    """Scores of images.

    Args:
        in_channels: Channels of the images.
        sample_size: Height and width of the images; at least 2 ** len(block_out_channels).
        block_out_channels: Width of each stage; each halves the resolution, rounding down.

    Raises:
        ValueError: If the stages would leave no pixel.
    """

    @register_to_config
    def __init__(
        self, in_channels: int = 1, sample_size: int = 28, block_out_channels: tuple[int, ...] = (32, 64, 128)
    ):
        super().__init__()
        layers, width = conv_features(in_channels, sample_size, block_out_channels)
        self.layers = nn.Sequential(*layers, nn.Linear(width, 1, bias=False))

    def forward(self, sample: Tensor) -> Tensor:
        """Scores (B,) of images (B, in_channels, sample_size, sample_size)."""
        return self.layers(sample).squeeze(1)


class MLPCritic(ModelMixin, ConfigMixin):
    """Scores of points.

    Args:
        in_features: Coordinates of a point.
        hidden_dim: Width of the hidden layers.
        num_hidden_layers: Number of hidden layers.
    """

    @register_to_config
    def __init__(self, in_features: int = 2, hidden_dim: int = 128, num_hidden_layers: int = 3):
        super().__init__()
        layers, width = mlp_features(in_features, hidden_dim, num_hidden_layers)
        self.layers = nn.Sequential(*layers, nn.Linear(width, 1, bias=False))

    def forward(self, sample: Tensor) -> Tensor:
        """Scores (B,) of points (B, in_features)."""
        return self.layers(sample).squeeze(1)


def conv_features(
    in_channels: int, sample_size: int, block_out_channels: tuple[int, ...]
) -> tuple[list[nn.Module], int]:
    """Layers from images to features (B, width), and that width; each stage halves the resolution, rounding down.

    Raises:
        ValueError: If the stages would leave no pixel.
    """
    size = sample_size // 2 ** len(block_out_channels)
    if size < 1:
        raise ValueError(
            f"{len(block_out_channels)} stages leave no pixel of sample_size {sample_size}; "
            "pass fewer block_out_channels"
        )
    layers: list[nn.Module] = []
    width = in_channels
    for width_out in block_out_channels:
        layers += [nn.Conv2d(width, width_out, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        width = width_out
    return [*layers, nn.Flatten()], width * size * size


def mlp_features(in_features: int, hidden_dim: int, num_hidden_layers: int) -> tuple[list[nn.Module], int]:
    """Layers from points to features (B, width), and that width."""
    layers: list[nn.Module] = []
    width = in_features
    for _ in range(num_hidden_layers):
        layers += [nn.Linear(width, hidden_dim), nn.ReLU()]
        width = hidden_dim
    return layers, width
