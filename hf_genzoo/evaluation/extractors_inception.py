"""The Inception network of the published FID, through torch-fidelity.

Papers
- Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule": FID, in the features of this network.
- Salimans et al. 2016, "Improved Techniques for Training GANs": the Inception score, from its class probabilities.
- Obukhov & Krasnyanskiy 2020, torch-fidelity (https://github.com/toshas/torch-fidelity): its port to torch.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray

from hf_genzoo.data.fingerprint import digest
from hf_genzoo.evaluation.extractors import Extractor, Images, weights_hash
from hf_genzoo.evaluation.resize import with_channels

VERSION = 1
"""Part of the hash: raised when the same weights would give other features."""


class Inception(Extractor):
    """The features of the published FID and Inception score, from torch-fidelity's port of the TensorFlow network.

    Its own preprocessing belongs to the published numbers and is kept: bilinear without antialiasing to 299 pixels, as
    TensorFlow 1 does it.

    Args:
        weights_path: File of weights; by default torch-fidelity downloads them (91 MB), once.
        device: Where to compute.

    Raises:
        ValueError: if torch-fidelity is not installed.
        OSError: if the weights cannot be had.
    """

    name = "inception"
    dim = 2048
    batch_size = 32

    def __init__(self, weights_path: str | Path | None = None, device: torch.device | str = "cpu") -> None:
        module = _torch_fidelity()
        path = None if weights_path is None else str(weights_path)
        try:
            net = module.FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=path
            )
        except OSError as error:
            raise OSError(
                f"the Inception weights cannot be had ({error}): put {module.URL_INCEPTION_V3} into "
                f"{Path(torch.hub.get_dir()) / 'checkpoints'}, or choose another extractor"
            ) from error
        self._device = torch.device(device)
        self._net = net.to(self._device)
        self.hash = digest("inception", VERSION, weights_hash(net.state_dict()))

    def _extract(self, batch: Images) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        features, logits = self._net(torch.from_numpy(with_channels(batch, 3)).to(self._device))
        return features.cpu().numpy(), logits.softmax(dim=1).cpu().numpy()


def _torch_fidelity() -> ModuleType:
    """The module of torch-fidelity that holds the network.

    Importing the package imports torchvision, which may have been left out (pip install --no-deps), and which many CPU
    builds of torch cannot load (RuntimeError: operator torchvision::nms does not exist). The network itself needs only
    torch, so then its module is taken alone.
    """
    spec = find_spec("torch_fidelity")
    if spec is None or spec.submodule_search_locations is None:
        raise ValueError(
            "the extractor 'inception' needs a package: pip install torch-fidelity (with --no-deps beside a CPU build "
            "of torch, where the torchvision that it asks for breaks diffusers; the network needs torch alone); "
            "without it, choose 'classifier', 'random', 'pca' or a vision model's id"
        )
    name = "torch_fidelity.feature_extractor_inceptionv3"
    try:
        return import_module(name)
    except (ImportError, RuntimeError):
        package = ModuleType("torch_fidelity")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["torch_fidelity"] = package
        try:
            return import_module(name)
        finally:
            del sys.modules["torch_fidelity"]
