"""A function of pictures, applied tile by tile without seams. A part of pipelines' files (see `hf_genzoo.hub.inline`).

Bar-Tal et al. 2023, "MultiDiffusion": where tiles overlap, what they predict is averaged at every step of the
sampling, so that all tiles belong to one picture. Weights that fall off towards a tile's edges, instead of equal ones,
leave no step where a tile ends.
"""

from collections.abc import Callable

import torch
from torch import Tensor

PIXELS_AT_ONCE = 2**19  # of one evaluation: bounds the memory, whatever the size of the picture


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles of one side begin: neighbours share `overlap` pixels or more, and the last ends with the picture."""
    if length <= tile:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]


def ramps(length: int, overlap: int, like: Tensor) -> Tensor:
    """Weights (length,) in (0, 1]: 1 in the middle, falling off over `overlap` pixels towards both ends."""
    place = torch.arange(length, device=like.device, dtype=like.dtype) + 0.5
    return (torch.minimum(place, length - place) / max(overlap, 1)).clamp(max=1.0)


def by_tiles(function: Callable[[Tensor], Tensor], x: Tensor, tile: int, overlap: int) -> Tensor:
    """A function of pictures, applied to overlapping tiles and blended; to the whole where it fits one tile.

    Args:
        function: (B, C, h, w) to (B, C', h, w), for any B and for h, w up to `tile`.
        x: (B, C, H, W).
        tile: Side of a tile, in pixels.
        overlap: Least overlap of neighbours, below `tile`.
    """
    height, width = x.shape[2:]
    high, wide = min(tile, height), min(tile, width)
    starts = [(y, z) for y in tile_starts(height, tile, overlap) for z in tile_starts(width, tile, overlap)]
    tiles = torch.cat([x[..., y : y + high, z : z + wide] for y, z in starts])
    outs = torch.cat([function(part) for part in tiles.split(max(1, PIXELS_AT_ONCE // (high * wide)))])
    if len(starts) == 1:
        return outs
    weight = ramps(high, overlap, outs)[:, None] * ramps(wide, overlap, outs)
    total, weights = outs.new_zeros(len(x), outs.shape[1], height, width), outs.new_zeros(height, width)
    for (y, z), out in zip(starts, outs.split(len(x)), strict=True):
        total[..., y : y + high, z : z + wide] += weight * out
        weights[y : y + high, z : z + wide] += weight
    return total / weights


def mirrored(x: Tensor, multiple: int) -> Tensor:
    """Pictures (B, C, H, W) continued as in a mirror, below and at the right, to sides that are multiples."""
    for dim in (2, 3):
        length = x.shape[dim]
        if length % multiple:
            place = torch.arange(length + -length % multiple, device=x.device) % (2 * length)
            x = x.index_select(dim, torch.minimum(place, 2 * length - 1 - place))
    return x
