"""Feature extractors: the resizer, each kind of extractor, what their hashes promise, and what is kept on disk."""

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.ndimage import gaussian_filter
from sklearn.decomposition import PCA
from transformers import (
    AutoImageProcessor,
    AutoModel,
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    ConvNextConfig,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEModel,
)

from hf_genzoo.data import DataArgs, MapImages, image_dataset
from hf_genzoo.evaluation import extractors_inception, extractors_pretrained, extractors_trained
from hf_genzoo.evaluation.distances import frechet_distance
from hf_genzoo.evaluation.extractors import BUILT_IN, Extractor, Features, get_extractor
from hf_genzoo.evaluation.extractors_inception import Inception
from hf_genzoo.evaluation.extractors_pixels import PixelPCA, RandomConvolutions
from hf_genzoo.evaluation.extractors_pretrained import VisionModel
from hf_genzoo.evaluation.extractors_trained import ClassifierExtractor
from hf_genzoo.evaluation.feature_cache import cached_features
from hf_genzoo.evaluation.resize import resize, with_channels
from hf_genzoo.models.classifier import ConvClassifier

FIDELITY = find_spec("torch_fidelity") is not None


def pictures(count: int = 10, channels: int = 3, size: int = 20, seed: int = 0) -> np.ndarray:
    """Smooth random pictures, uint8 (count, channels, size, size), that use the whole range."""
    noise = np.random.default_rng(seed).standard_normal((count, channels, size, size))
    smooth = gaussian_filter(noise, (0, 0, 1.5, 1.5))
    return (127.5 + 127.5 * smooth / np.abs(smooth).max()).round().astype(np.uint8)


def digits() -> MapImages:
    data = image_dataset(DataArgs(dataset_name="digits", num_channels=1, resolution=28, class_column="label"))
    assert isinstance(data, MapImages)
    return data


def in_pillow(picture: np.ndarray) -> Image.Image:
    return Image.fromarray(picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0))


# The resizer --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "target"), [(64, 28), (28, 224), (33, 32), (8, 1), (20, 20)])
def test_resize_is_pillows(channels: int, size: int, target: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, channels, size, size), dtype=np.uint8)
    expected = [np.asarray(in_pillow(p).resize((target, target), Image.Resampling.BICUBIC)) for p in images]
    found = resize(images, target)
    assert found.dtype == np.uint8
    assert np.array_equal(found.transpose(0, 2, 3, 1).squeeze(), np.stack(expected).squeeze())


def test_channels_are_pillows() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 3, 64, 64), dtype=np.uint8)  # 204,800 colours
    images[0, :, 0, :8] = [[0, 255] * 4, [0, 0, 255, 255] * 2, [0] * 4 + [255] * 4]  # and the corners
    expected = np.stack([np.asarray(in_pillow(p).convert("L")) for p in images])
    assert np.array_equal(with_channels(images, 1)[:, 0], expected)
    grey = images[:, :1]
    assert np.array_equal(with_channels(grey, 3)[3].transpose(1, 2, 0), np.asarray(in_pillow(grey[3]).convert("RGB")))
    assert with_channels(images, 3) is images


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 1, 8, 9), np.uint8), "8 high and 9 wide: they must be square"),
        (np.zeros((2, 1, 0, 0), np.uint8), "0 high"),
        (np.zeros((2, 2, 8, 8), np.uint8), r"\(2, 2, 8, 8\).*1 or 3 channels"),
        (np.zeros((2, 8, 8), np.uint8), r"\(2, 8, 8\)"),
        (np.zeros((2, 1, 8, 8), np.float32), "float32"),
    ],
)
def test_what_is_no_picture_is_refused(images: np.ndarray, message: str) -> None:
    for use in (lambda: resize(images, 4), lambda: RandomConvolutions()(images)):
        with pytest.raises(ValueError, match=message):
            use()


def test_impossible_sizes_and_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="size is 0"):
        resize(pictures(), 0)
    with pytest.raises(ValueError, match="channels is 2"):
        with_channels(pictures(), 2)
    with pytest.raises(ValueError, match="no pictures"):
        RandomConvolutions()(pictures()[:0])


# Vision models ------------------------------------------------------------------------------------------------------

SMALL = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {**SMALL, "vocab_size": 50, "max_position_embeddings": 16}
VISION = {**SMALL, "image_size": 32, "patch_size": 8}


def mean_and_std(mean: float, std: float) -> dict[str, Any]:
    return {"image_mean": [mean, mean + 0.1, mean], "image_std": [std, std, std + 0.1]}


def save(model: Any, folder: Path, **settings: Any) -> Path:
    """Save a model with a preprocessor_config.json as published ones have it."""
    model.save_pretrained(folder)
    common = {"do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps({**common, **mean_and_std(0.4, 0.3), **settings}))
    return folder


def clip(folder: Path) -> Path:
    config = CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=16)
    crop = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True}
    return save(CLIPModel(config), folder, image_processor_type="CLIPImageProcessor", **crop)


def siglip(folder: Path) -> Path:
    config = SiglipConfig(text_config=TEXT, vision_config=VISION)
    size = {"size": {"height": 32, "width": 32}}
    return save(SiglipModel(config), folder, image_processor_type="SiglipImageProcessor", **size)


def dinov2(folder: Path) -> Path:
    crop = {"size": {"shortest_edge": 40}, "crop_size": {"height": 28, "width": 28}, "do_center_crop": True}
    return save(Dinov2Model(Dinov2Config(**{**VISION, "image_size": 28, "patch_size": 7})), folder, **crop)


def vit(folder: Path) -> Path:
    """As published: with a head, and so without the pooler that AutoModel adds."""
    model = ViTForImageClassification(ViTConfig(**VISION, num_labels=3))
    return save(model, folder, size=32, resample=2)


def mae(folder: Path) -> Path:
    return save(ViTMAEModel(ViTMAEConfig(**VISION)), folder, size={"height": 32, "width": 32})


def convnext(folder: Path) -> Path:
    model = ConvNextModel(ConvNextConfig(hidden_sizes=[8, 16, 16, 24], depths=[1, 1, 1, 1], image_size=32))
    return save(model, folder, size={"shortest_edge": 32}, crop_pct=0.875)


def prepared(images: np.ndarray, size: int) -> torch.Tensor:
    """Pictures as these models get them, by Pillow and numpy alone."""
    settings, tensors = mean_and_std(0.4, 0.3), []
    for picture in images:
        small = np.asarray(in_pillow(picture).convert("RGB").resize((size, size), Image.Resampling.BICUBIC)) / 255
        small = (small - settings["image_mean"]) / settings["image_std"]
        tensors.append(torch.tensor(small.transpose(2, 0, 1), dtype=torch.float32))
    return torch.stack(tensors)


def class_token(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    return model(pixel_values=pixels).last_hidden_state[:, 0]


def embedding(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    found = model.get_image_features(pixel_values=pixels)
    return getattr(found, "pooler_output", found)


def pooled(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    return model(pixel_values=pixels).pooler_output


Direct = Callable[[Any, torch.Tensor], torch.Tensor]
MODELS = [(clip, 32, 16, embedding), (siglip, 32, 24, embedding), (dinov2, 28, 24, class_token)]
MODELS += [(vit, 32, 24, class_token), (convnext, 32, 24, pooled)]


@pytest.mark.parametrize(("build", "size", "dim", "direct"), MODELS, ids=lambda v: getattr(v, "__name__", None))
def test_vision_model_gives_what_transformers_gives(
    build: Callable[[Path], Path], size: int, dim: int, direct: Direct, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    folder = build(tmp_path / "model")
    extractor, images = VisionModel(str(folder)), pictures()
    found = extractor(images)
    with torch.inference_mode():
        expected = direct(AutoModel.from_pretrained(folder).eval(), prepared(images, size)).numpy()
    assert found.values.dtype == np.float32
    assert found.probabilities is None
    assert found.values.shape == (10, dim) == (10, extractor.dim)
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    assert found.values.std(axis=0).min() > 1e-4  # the pictures do differ in every feature
    assert extractor.name == "model"


@pytest.mark.parametrize("build", [clip, siglip])
def test_preprocessing_is_the_models_own_where_it_crops_nothing(build: Callable[[Path], Path], tmp_path: Path) -> None:
    folder, images = build(tmp_path), pictures()
    own = AutoImageProcessor.from_pretrained(folder)([in_pillow(p) for p in images], return_tensors="pt")
    found = VisionModel(str(folder))._prepare(images, torch.device("cpu"))
    np.testing.assert_allclose(found, own["pixel_values"], atol=1e-5)


def test_a_masked_autoencoder_sees_the_whole_picture(tmp_path: Path) -> None:
    """By default it hides three quarters of the patches at random."""
    torch.manual_seed(0)
    extractor, images = VisionModel(str(mae(tmp_path))), pictures()
    np.testing.assert_allclose(extractor(images).values, extractor(images).values, atol=1e-5)
    changed = images.copy()
    changed[:, :, :5, :5] = 255 - changed[:, :, :5, :5]
    assert np.abs(extractor(changed).values - extractor(images).values).max(axis=1).min() > 1e-3


def test_hash_is_of_weights_and_preprocessing_not_of_the_place(tmp_path: Path) -> None:
    torch.manual_seed(0)
    folder = vit(tmp_path / "one")
    first = VisionModel(str(folder))
    moved = VisionModel(str(shutil.copytree(folder, tmp_path / "two")))
    # The weights of the pooler are drawn anew at each loading: they must not count.
    assert (first.hash, first.name) == (VisionModel(str(folder)).hash, "one")
    assert (moved.hash, moved.name) == (first.hash, "two")

    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("cls_token"))
    weights[name][0, 0, 0] += 1e-3
    save_file(weights, tmp_path / "two" / "model.safetensors", metadata={"format": "pt"})
    assert VisionModel(str(tmp_path / "two")).hash != first.hash

    path = folder / "preprocessor_config.json"
    path.write_text(path.read_text().replace("0.5", "0.6"))
    assert VisionModel(str(folder)).hash != first.hash


def test_settings_of_a_whole_processor_are_found(tmp_path: Path) -> None:
    folder = clip(tmp_path)
    expected = VisionModel(str(folder)).hash
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    assert VisionModel(str(folder)).hash == expected


def change_settings(folder: Path, **settings: Any) -> None:
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def drop_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop(next(name for name in weights if "layer.0" in name))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "preprocessor_config.json").unlink(), "no preprocessor_config.json.*save_pretrained"),
        (lambda f: change_settings(f, size={"height": 32, "width": 16}), "no square size.*16"),
        (lambda f: change_settings(f, size=None), "no square size"),
        (lambda f: change_settings(f, image_mean=None), "no image_mean"),
        (drop_a_weight, r"lacks weights of its ViTModel: .*layers?\.0"),
        (lambda f: (f / "config.json").write_text('{"model_type": "nonesuch"}'), "no model that this transformers"),
    ],
)
def test_unusable_vision_models_are_refused(spoil: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    folder = vit(tmp_path)
    spoil(folder)
    with pytest.raises(ValueError, match=message):
        VisionModel(str(folder))


def test_a_text_model_is_refused(tmp_path: Path) -> None:
    BertModel(BertConfig(**TEXT)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"'bert' model, which takes no pictures.*dinov2"):
        VisionModel(str(tmp_path))


def test_a_model_that_is_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"somebody/nothing@main: .*the Hub does not give it"):
        get_extractor("somebody/nothing@main")
    with pytest.raises(ValueError, match=r"has no config\.json"):
        get_extractor(str(tmp_path))


# Fixed extractors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "channels", "size"), [(200, 1, 12), (40, 3, 12), (60, 1, 40)])
def test_pixel_pca_is_sklearns(count: int, channels: int, size: int) -> None:
    train, other = pictures(count, channels, size), pictures(5, channels, size, seed=1)
    found = PixelPCA.fit(train, components=7)
    small = [resize(p, min(size, 32)).reshape(len(p), -1) / 255 for p in (train, other)]
    expected = PCA(7, svd_solver="full").fit(small[0])
    signs = np.sign((found.components * expected.components_).sum(axis=1))
    np.testing.assert_allclose(found.components * signs[:, None], expected.components_, atol=1e-8)
    np.testing.assert_allclose(found(other).values * signs, expected.transform(small[1]), atol=1e-5)
    assert found.dim == 7


def test_pixel_pca_keeps_what_there_is_and_is_known_by_its_training_pictures() -> None:
    train = pictures(6)
    found = PixelPCA.fit(train)
    assert found.dim == 5  # of six pictures
    assert PixelPCA.fit(train.copy()).hash == found.hash
    changed = train.copy()
    changed[3, 0, 0, 0] ^= 1
    assert PixelPCA.fit(changed).hash != found.hash
    assert PixelPCA.fit(train, components=4).hash != found.hash
    with pytest.raises(ValueError, match="64 components of 1 pictures"):
        PixelPCA.fit(train[:1])


def test_pixel_pca_of_many_pictures_uses_a_choice_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_genzoo.evaluation.extractors_pixels.MOST_FITTED", 50)
    train = np.concatenate([pictures(60), 255 - pictures(60)])
    whole = PixelPCA.fit(train, components=3)
    assert PixelPCA.fit(train, components=3).hash == whole.hash
    assert whole.hash != PixelPCA.fit(train[:50], components=3).hash  # spread over the set, not its beginning


def test_random_convolutions_are_the_same_in_every_process() -> None:
    code = """
import numpy as np
from hf_genzoo.evaluation.extractors_pixels import RandomConvolutions
extractor = RandomConvolutions()
images = np.arange(2 * 3 * 32 * 32).reshape(2, 3, 32, 32).astype(np.uint8)
print(extractor.hash, extractor(images).values.astype(float).sum())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    torch.manual_seed(99)
    extractor = RandomConvolutions()
    images = np.arange(2 * 3 * 32 * 32).reshape(2, 3, 32, 32).astype(np.uint8)
    key, total = done.stdout.split()
    assert key == extractor.hash
    assert float(total) == pytest.approx(extractor(images).values.astype(float).sum(), abs=1e-3)
    assert RandomConvolutions(seed=1).hash != extractor.hash
    assert extractor.dim == extractor(images).values.shape[1] <= 256


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "blurred": lambda x: gaussian_filter(x, (0, 0, 0.7, 0.7)),
    "noisy": lambda x: np.clip(x + np.random.default_rng(0).normal(0, 12, x.shape), 0, 255).astype(np.uint8),
    "darker": lambda x: (x * 0.9).astype(np.uint8),
    "mirrored": lambda x: np.ascontiguousarray(x[..., ::-1]),
    "halves exchanged": lambda x: np.roll(x, 14, axis=-1),
    "one picture": lambda x: np.repeat(x[:1], len(x), axis=0),
}


def test_random_convolutions_notice_planted_changes() -> None:
    pixels = digits().pixels
    order = np.random.default_rng(0).permutation(len(pixels))
    a, b = pixels[order[:600]], pixels[order[600:1200]]
    extractor = RandomConvolutions()
    real = extractor(a).values
    floor = frechet_distance(real, extractor(b).values)
    found = {name: frechet_distance(real, extractor(change(b)).values) / floor for name, change in CHANGES.items()}
    print("\n" + ", ".join(f"{name} {ratio:.1f}" for name, ratio in found.items()))
    assert min(found.values()) > 2
    assert found["halves exchanged"] > 50


def test_random_convolutions_tell_colours_apart() -> None:
    images = pictures(300)
    images[:, 0] //= 2
    extractor = RandomConvolutions()
    same = frechet_distance(extractor(images[:150]).values, extractor(images[150:]).values)
    swapped = frechet_distance(extractor(images[:150]).values, extractor(images[150:, ::-1].copy()).values)
    assert swapped > 2 * same


# The classifier -----------------------------------------------------------------------------------------------------


def classifier(channels: int = 1, size: int = 16) -> ConvClassifier:
    torch.manual_seed(0)
    return ConvClassifier(size, channels, num_classes=3, id2label={0: "cat", 1: "dog", 2: "owl"}).eval()


def test_classifier_gives_features_and_probabilities() -> None:
    net, images = classifier(), pictures(channels=1, size=16)
    extractor = ClassifierExtractor(net)
    found = extractor(images)
    with torch.inference_mode():
        pixels = torch.tensor(images).float() / 127.5 - 1
        np.testing.assert_allclose(found.values, net.features(pixels).numpy(), atol=1e-5)
        np.testing.assert_allclose(found.probabilities, net(pixels).softmax(1).numpy(), atol=1e-5)
    assert (extractor.name, extractor.dim, extractor.class_names) == ("classifier", 128, ["cat", "dog", "owl"])


def test_hash_of_a_classifier_is_that_of_its_weights(tmp_path: Path) -> None:
    net = classifier()
    first = ClassifierExtractor(net).hash
    for name in ("one", "two"):
        net.save_pretrained(tmp_path / name)
    found = [get_extractor(str(tmp_path / name)) for name in ("one", "two")]
    assert [extractor.hash for extractor in found] == [first, first]
    assert isinstance(found[0], ClassifierExtractor)
    with torch.no_grad():
        net.head.bias[0] += 1e-3
    assert ClassifierExtractor(net).hash != first


def training_set() -> dict[str, Any]:
    data = digits()
    kept = slice(None, None, 40)
    return {
        "train_images": data.pixels[kept],
        "train_labels": np.asarray(data.labels)[kept],
        "class_names": data.class_names,
        "data_fingerprint": data.fingerprint,
    }


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one at each training, which takes one pass only."""
    done: list[int] = []
    train = extractors_trained.train_classifier

    def counted(*args: Any, **settings: Any) -> ConvClassifier:
        done.append(1)
        return train(*args, **settings, epochs=1)

    monkeypatch.setattr(extractors_trained, "train_classifier", counted)
    return done


def test_classifier_is_trained_once(trainings: list[int], tmp_path: Path) -> None:
    settings = training_set()
    with ThreadPoolExecutor(2) as pool:  # as two processes would: file locks do not know threads
        ask = [pool.submit(get_extractor, "classifier", cache_dir=tmp_path, **settings) for _ in range(2)]
        first, second = (task.result() for task in ask)
    assert first.hash == second.hash == get_extractor("classifier", cache_dir=tmp_path, **settings).hash
    assert len(trainings) == 1
    assert not list(tmp_path.rglob("*.partial"))
    for name, value in (
        ("data_fingerprint", "other"),
        ("train_images", 255 - settings["train_images"]),
        ("train_labels", settings["train_labels"][::-1]),
        ("class_names", [f"digit {i}" for i in range(10)]),
    ):
        before = len(trainings)
        get_extractor("classifier", cache_dir=tmp_path, **{**settings, name: value})
        assert len(trainings) == before + 1, name


@pytest.mark.parametrize("damage", ["shorter", "other weights", "no note"])
def test_damaged_classifier_is_trained_again(
    damage: str, trainings: list[int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = training_set()
    first = get_extractor("classifier", cache_dir=tmp_path, **settings)
    path = next(tmp_path.rglob("*.safetensors"))
    content = bytearray(path.read_bytes())
    if damage == "shorter":
        path.write_bytes(content[:1000])
    elif damage == "other weights":
        content[-100] ^= 1
        path.write_bytes(content)
    else:
        (path.parent / "weights.json").unlink()
    with caplog.at_level(logging.WARNING):
        assert get_extractor("classifier", cache_dir=tmp_path, **settings).hash == first.hash
    assert "is damaged" in caplog.text
    assert len(trainings) == 2
    get_extractor("classifier", cache_dir=tmp_path, **settings)
    assert len(trainings) == 2


# The lookup ---------------------------------------------------------------------------------------------------------


def test_lookup_of_extractors(tmp_path: Path) -> None:
    random = get_extractor("random")
    assert (random.name, random.hash) == ("random", RandomConvolutions().hash)
    train = pictures(20)
    assert get_extractor("pca", train_images=train).hash == PixelPCA.fit(train).hash
    found = get_extractor(str(dinov2(tmp_path / "dino")))
    assert isinstance(found, VisionModel)
    assert found.name == "dino"


def test_revision_is_split_off_an_id(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(extractors_pretrained, "VisionModel", lambda name, **settings: asked.append((name, settings)))
    get_extractor("facebook/dinov2-small@abc")
    get_extractor("facebook/dinov2-small")
    assert [(name, s["revision"]) for name, s in asked] == [
        ("facebook/dinov2-small", "abc"),
        ("facebook/dinov2-small", None),
    ]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("dino", "no extractor 'dino'.*classifier, random, pca, inception.*Hub"),
        ("classifier", "--class_column.*'random'"),
        ("pca", "no.*training pictures|training pictures, and there are none"),
    ],
)
def test_what_cannot_be_had_is_said(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_extractor(spec)
    assert set(BUILT_IN) == {"classifier", "random", "pca", "inception"}


def test_classifier_needs_a_fingerprint() -> None:
    with pytest.raises(ValueError, match="data_fingerprint"):
        get_extractor("classifier", **{**training_set(), "data_fingerprint": None})


# Inception ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(FIDELITY, reason="torch-fidelity is installed")
def test_inception_without_its_package_names_it() -> None:
    with pytest.raises(ValueError, match=r"pip install torch-fidelity.*'random'"):
        get_extractor("inception")


@pytest.mark.skipif(not FIDELITY, reason="needs torch-fidelity")
def test_inception_of_torch_fidelity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Random weights: those of the paper would be a download."""
    module = extractors_inception._torch_fidelity()
    network = module.FeatureExtractorInceptionV3
    with monkeypatch.context() as patched:
        patched.setattr(module, "load_state_dict_from_url", lambda *a, **k: None)
        patched.setattr(network, "load_state_dict", lambda self, state: None)
        net = network("inception-v3-compat", ["2048", "logits_unbiased"])
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    extractor, images = Inception(tmp_path / "weights.pth"), pictures(4)
    found = extractor(images)
    features, logits = net(torch.from_numpy(images))
    np.testing.assert_allclose(found.values, features, atol=1e-5)
    np.testing.assert_allclose(found.probabilities, logits.softmax(1), atol=1e-5)
    assert found.values.shape == (4, extractor.dim)


STAND_IN = """
import torch
URL_INCEPTION_V3 = "https://example.com/weights.pth"

class FeatureExtractorInceptionV3(torch.nn.Module):
    def __init__(self, name, features_list, feature_extractor_weights_path=None):
        super().__init__()
        assert features_list == ["2048", "logits_unbiased"]
        if feature_extractor_weights_path is None:
            raise OSError("no network")
        self.weight = torch.nn.Parameter(torch.load(feature_extractor_weights_path), requires_grad=False)

    def forward(self, x):
        assert x.dtype == torch.uint8 and x.shape[1] == 3
        features = x.float().flatten(1)[:, :2048]
        return features, features @ self.weight
"""


@pytest.mark.skipif(FIDELITY, reason="torch-fidelity is installed")
def test_inception_runs_where_the_package_cannot_be_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """torch-fidelity imports torchvision, which fails beside many CPU builds; its network does without."""
    package = tmp_path / "torch_fidelity"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    (package / "feature_extractor_inceptionv3.py").write_text(STAND_IN)
    weight = torch.randn(2048, 5) * 1e-3
    torch.save(weight, tmp_path / "weights.pth")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        extractor, images = Inception(tmp_path / "weights.pth"), pictures(4, channels=1, size=32)
        found = extractor(images)
        expected = np.repeat(images, 3, axis=1).reshape(4, -1)[:, :2048].astype(np.float32)
        np.testing.assert_array_equal(found.values, expected)
        np.testing.assert_allclose(found.probabilities, torch.softmax(torch.tensor(expected) @ weight, 1), atol=1e-5)
        with pytest.raises(OSError, match=r"no network.*https://example.com/weights.pth.*checkpoints"):
            Inception()
        assert "torch_fidelity" not in sys.modules  # no half package is left for others to find
    finally:
        sys.modules.pop("torch_fidelity.feature_extractor_inceptionv3", None)


# All extractors -----------------------------------------------------------------------------------------------------

ALL: dict[str, Callable[[Path], Extractor]] = {
    "classifier": lambda _: ClassifierExtractor(classifier(channels=1)),
    "colour classifier": lambda _: ClassifierExtractor(classifier(channels=3)),
    "random": lambda _: RandomConvolutions(),
    "pca": lambda _: PixelPCA.fit(pictures(30)),
    "grey pca": lambda _: PixelPCA.fit(pictures(30, channels=1)),
    "clip": lambda folder: VisionModel(str(clip(folder))),
    "dinov2": lambda folder: VisionModel(str(dinov2(folder))),
}


@pytest.mark.parametrize("build", ALL.values(), ids=ALL.keys())
def test_features_do_not_depend_on_batches_order_or_channels(
    build: Callable[[Path], Extractor], tmp_path: Path
) -> None:
    extractor, grey = build(tmp_path), pictures(11, channels=1, size=40)
    whole = extractor(grey, progress=False)
    assert whole.values.shape == (11, extractor.dim)
    assert whole.values.dtype == np.float32
    assert not np.allclose(whole.values[0], whole.values[1])
    extractor.batch_size = 3
    parts = extractor(grey[::-1])
    np.testing.assert_allclose(parts.values[::-1], whole.values, atol=1e-5)
    if whole.probabilities is not None:
        assert parts.probabilities is not None
        np.testing.assert_allclose(parts.probabilities[::-1], whole.probabilities, atol=1e-5)
        np.testing.assert_allclose(whole.probabilities.sum(axis=1), 1, atol=1e-5)
    # Grey pictures stored as RGB are the same pictures: ITU-R 601 weights add up to one.
    np.testing.assert_allclose(extractor(np.repeat(grey, 3, axis=1)).values, whole.values, atol=1e-5)


# Features on disk ---------------------------------------------------------------------------------------------------


class Counting(Extractor):
    """The brightness of pictures, and how often it was asked for."""

    name, dim = "brightness", 2

    def __init__(self, hash: str = "a", classes: bool = True) -> None:
        self.hash, self.classes, self.calls = hash, classes, 0

    def _extract(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        self.calls += 1
        mean = batch.mean(axis=(1, 2, 3), dtype=np.float32)
        values = np.stack([mean, -mean], axis=1)
        return values, (np.full_like(values, 0.5) if self.classes else None)


def same(a: Features, b: Features) -> bool:
    if (a.probabilities is None) != (b.probabilities is None) or not np.array_equal(a.values, b.values):
        return False
    return a.probabilities is None or b.probabilities is None or np.array_equal(a.probabilities, b.probabilities)


@pytest.mark.parametrize("classes", [True, False])
def test_features_are_taken_once(classes: bool, tmp_path: Path) -> None:
    images, extractor = pictures(), Counting(classes=classes)
    first = cached_features(extractor, images, "data", tmp_path)
    assert same(first, extractor(images))
    again = cached_features(extractor, images, "data", tmp_path)
    assert same(first, again)
    assert extractor.calls == 2
    assert again.values.dtype == np.float32
    for other in (
        lambda: cached_features(extractor, images, "other data", tmp_path),
        lambda: cached_features(extractor, images[:5], "data", tmp_path),
        lambda: cached_features(extractor, images[:, :1], "data", tmp_path),
    ):
        before = extractor.calls
        other()
        assert extractor.calls == before + 1
    unlike = Counting(hash="b")
    cached_features(unlike, images, "data", tmp_path)
    assert unlike.calls == 1
    assert {path.suffix for path in (tmp_path / "features").iterdir()} == {".npz"}


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit,
        lambda path: path.write_bytes(path.read_bytes()[:100]),
        lambda path: path.write_bytes(b""),
        lambda path: np.savez(path, values=np.zeros((3, 2), np.float32)),
        lambda path: np.savez(path, nothing=np.zeros(3)),
    ],
)
def test_damaged_features_are_taken_again(
    damage: Callable[[Path], Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images, extractor = pictures(), Counting()
    first = cached_features(extractor, images, "data", tmp_path)
    damage(next((tmp_path / "features").iterdir()))
    with caplog.at_level(logging.WARNING):
        assert same(cached_features(extractor, images, "data", tmp_path), first)
    assert "are damaged" in caplog.text
    assert extractor.calls == 2
    cached_features(extractor, images, "data", tmp_path)
    assert extractor.calls == 2
