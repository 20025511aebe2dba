"""The classifier of pictures: its network, how it is trained, and the script."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from contract import ROOT
from scipy.stats import binomtest

from hf_genzoo.data import DataArgs, MapImages, image_dataset
from hf_genzoo.evaluation import classifier as training
from hf_genzoo.evaluation.classifier import Accuracy, accuracy, augment, classify, one_cycle, train_classifier
from hf_genzoo.evaluation.extractors import weights_hash
from hf_genzoo.models.classifier import ConvClassifier
from hf_genzoo.training_scripts import train_classifier as script

NAMES = [str(digit) for digit in range(10)]


def digits(split: str = "train", resolution: int = 28) -> MapImages:
    args = DataArgs(dataset_name="digits", num_channels=1, resolution=resolution, class_column="label")
    data = image_dataset(args, split=split)
    assert isinstance(data, MapImages)
    return data


def sides(count: int, size: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Noisy pictures (count, 1, size, size) that are bright on the left (class 0) or on the right (class 1)."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 60, (count, 1, size, size), dtype=np.uint8), rng.integers(0, 2, count)
    images[labels == 0, :, :, : size // 2] += 150
    images[labels == 1, :, :, size // 2 :] += 150
    return images, labels


# Network ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "channels"), [(8, 1), (9, 3), (16, 1), (28, 1), (33, 3), (64, 3), (200, 1), (256, 3)]
)
def test_every_size_has_features_and_logits(size: int, channels: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = ConvClassifier(size, channels, num_classes=3, id2label={0: "cat", 1: "dog", 2: "owl"}).eval()
    pixels = torch.rand(2, channels, size, size) * 2 - 1
    with torch.no_grad():
        features, logits = net.features(pixels), net(pixels)
    assert features.shape == (2, 128)
    assert (features >= 0).all()
    assert logits.shape == (2, 3)
    assert not torch.allclose(logits[0], logits[1])
    net.save_pretrained(tmp_path)
    assert (tmp_path / "diffusion_pytorch_model.safetensors").is_file()
    again = ConvClassifier.from_pretrained(tmp_path)
    assert again.class_names == ["cat", "dog", "owl"]  # type: ignore[attr-defined]
    with torch.no_grad():
        assert torch.equal(again(pixels), logits)  # type: ignore[operator]


def test_large_pictures_are_affordable() -> None:
    """Multiplications of a 256 x 256 RGB picture against those of a 28 x 28 grey one."""

    def multiplications(size: int, channels: int) -> int:
        total = 0

        def count(module: torch.nn.Module, _: object, output: torch.Tensor) -> None:
            nonlocal total
            total += output[0].numel() * module.weight[0].numel()  # type: ignore[operator, index]

        net = ConvClassifier(size, channels).eval()
        for module in net.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                module.register_forward_hook(count)
        with torch.no_grad():
            net(torch.zeros(1, channels, size, size))
        return total

    small, large = multiplications(28, 1), multiplications(256, 3)
    assert large < 20 * small
    assert ConvClassifier().num_parameters() < 150_000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sample_size": 7}, "sample_size is 7.*8 to 256"),
        ({"sample_size": 257}, "sample_size is 257"),
        ({"in_channels": 4}, "in_channels is 4.*1 .grey. or 3"),
        ({"num_classes": 1}, "num_classes is 1"),
        ({"num_classes": 3, "id2label": {0: "a", 1: "b"}}, r"\[0, 1\].*0 to 2"),
    ],
)
def test_impossible_networks_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConvClassifier(**settings)


# Training -----------------------------------------------------------------------------------------------------------


def test_learns_the_embedded_digits() -> None:
    """4 of the 20 passes that it would choose, for the sake of time."""
    train, held_out = digits(), digits("validation")
    net = train_classifier(train.pixels, train.labels, train.class_names, epochs=4)  # type: ignore[arg-type]
    found = accuracy(net, held_out.pixels, held_out.labels)  # type: ignore[arg-type]
    print(f"\ndigits: {found}")
    assert found.value >= 0.97
    assert found.low < found.value < found.high
    assert net.class_names == train.class_names
    assert not net.training


def test_same_seed_same_weights_and_the_callers_random_numbers_stay() -> None:
    data = digits(resolution=8)
    images, labels = data.pixels[::16], np.asarray(data.labels)[::16]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = train_classifier(images, labels, NAMES, epochs=2, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert weights_hash(train_classifier(images, labels, NAMES, epochs=2, seed=5).state_dict()) == weights_hash(
        first.state_dict()
    )
    other = train_classifier(images, labels, NAMES, epochs=2, seed=6)
    assert weights_hash(other.state_dict()) != weights_hash(first.state_dict())


def test_learns_from_the_chosen_rows_only() -> None:
    images, labels = sides(300)
    rows = np.arange(0, 300, 2)
    first = train_classifier(images, labels, ["left", "right"], rows=rows, epochs=1)
    spoilt, wrong = images.copy(), labels.copy()
    spoilt[1::2], wrong[1::2] = 0, 1 - labels[1::2]
    second = train_classifier(spoilt, wrong, ["left", "right"], rows=rows, epochs=1)
    assert weights_hash(first.state_dict()) == weights_hash(second.state_dict())


def test_mirroring_makes_left_and_right_the_same() -> None:
    images, labels = sides(600)
    straight = train_classifier(images, labels, ["left", "right"], epochs=3)
    mirrored = train_classifier(images, labels, ["left", "right"], epochs=3, random_flip=True)
    assert accuracy(straight, images, labels).value > 0.98
    # A mirrored net may still lean to one class, but must answer a picture and its mirror image alike.
    probabilities = classify(mirrored, images)[1]
    assert abs(probabilities[labels == 0, 0].mean() - probabilities[labels == 1, 0].mean()) < 0.3


@pytest.mark.parametrize(("most_seen", "steps"), [(10_000, 21), (50, 5), (1, 1)])
def test_number_of_steps_is_chosen_by_the_size_of_the_set(
    monkeypatch: pytest.MonkeyPatch, most_seen: int, steps: int
) -> None:
    images, labels = sides(105)  # ten batches of 10, and a rest
    done = []
    monkeypatch.setattr(training, "MOST_EPOCHS", 2)
    monkeypatch.setattr(training, "MOST_SEEN", most_seen)
    monkeypatch.setattr(training, "augment", lambda pixels: done.append(len(pixels)) or augment(pixels))
    train_classifier(images, labels, ["left", "right"], batch_size=10)
    assert done == [10] * steps
    done.clear()
    train_classifier(images, labels, ["left", "right"], batch_size=10, epochs=3)
    assert done == [10] * 30


def test_augmentation_moves_a_little_and_repeats_the_border() -> None:
    torch.manual_seed(0)
    white = torch.ones(50, 3, 28, 28)
    assert torch.allclose(augment(white), white)  # no black comes in from outside
    spot = torch.full((200, 1, 28, 28), -1.0)
    spot[:, :, 13:15, 20:22] = 1.0
    weight = (augment(spot) + 1).squeeze(1)
    columns = (weight.sum(1) * torch.arange(28)).sum(1) / weight.sum((1, 2))
    assert columns.min() > 16  # never mirrored, which would put it to column 7
    assert columns.max() < 25
    assert columns.std() > 0.8


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 1000])
def test_learning_rate_rises_and_falls(steps: int) -> None:
    rates = [one_cycle(step, steps) for step in range(steps)]
    assert rates[0] == pytest.approx(0.04)
    assert max(rates) <= 1
    if steps > 2:
        assert max(rates) == 1
    if steps == 1000:
        assert rates.index(1.0) == 200
        assert rates[-1] < 1e-4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.zeros(9, dtype=np.int64)}, r"\(9,\).*one for each picture"),
        ({"labels": np.linspace(0, 1, 10)}, "float64.*integers"),
        ({"labels": np.arange(10)}, "0 to 9, but there are 2 class names"),
        ({"labels": np.arange(10) % 2 - 1}, "-1 to 0"),
        ({"labels": np.ones(10, dtype=np.int64)}, "all 10 pictures have class 1"),
        ({"pixels": np.zeros((10, 1, 8, 9), dtype=np.uint8)}, "8 high and 9 wide"),
        ({"pixels": np.zeros((10, 1, 8, 8))}, "float64"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 1}, "batch_size is 1"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"rows": np.array([3])}, "at least 2 pictures, there are 1"),
    ],
)
def test_impossible_trainings_are_refused(changes: dict, message: str) -> None:
    settings = {"pixels": np.zeros((10, 1, 8, 8), dtype=np.uint8), "labels": np.arange(10) % 2, **changes}
    with pytest.raises(ValueError, match=message):
        train_classifier(class_names=["a", "b"], **settings)


def test_divergence_is_an_error() -> None:
    images, labels = sides(40)
    with pytest.raises(FloatingPointError, match="lower the learning rate 1e\\+30"):
        train_classifier(images, labels, ["left", "right"], epochs=5, learning_rate=1e30)


@pytest.mark.parametrize(("correct", "count"), [(0, 7), (7, 7), (489, 500), (1, 3)])
def test_interval_is_wilsons(correct: int, count: int) -> None:
    found, expected = Accuracy.of(correct, count), binomtest(correct, count).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-6)
    assert found.value == correct / count


def test_accuracy_needs_pictures() -> None:
    with pytest.raises(ValueError, match="0 of 0"):
        Accuracy.of(0, 0)


# Script -------------------------------------------------------------------------------------------------------------


def test_script_trains_measures_and_saves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"dataset_name": "digits", "num_channels": 1, "resolution": 8, "max_train_samples": 1500}
    settings |= {"num_train_epochs": 2, "validation_split": "validation", "output_dir": str(tmp_path / "out")}
    folder = script.main(script.Args(**settings))
    assert folder == tmp_path / "out"
    record = json.loads((folder / "classifier.json").read_text())
    net = ConvClassifier.from_pretrained(folder)
    held_out = digits("validation", resolution=8)
    again = accuracy(net, held_out.pixels, held_out.labels)  # type: ignore[arg-type]
    assert record["accuracy"]["value"] == again.value > 0.3
    assert record["accuracy"]["low"] < again.value < record["accuracy"]["high"]
    assert record["accuracy"]["num_samples"] == 500
    assert record["data"]["num_samples"] == 1500
    assert record["data"]["fingerprint"]
    assert record["epochs"] == 2
    assert record["args"]["seed"] == 0
    assert record["versions"]["torch"] == torch.__version__
    assert f"held-out accuracy: {again.value:.2%}" in capsys.readouterr().out


def test_script_holds_a_tenth_out(tmp_path: Path) -> None:
    args = script.Args(
        dataset_name="digits",
        num_channels=1,
        resolution=8,
        max_train_samples=400,
        num_train_epochs=1,
        output_dir=str(tmp_path),
    )
    record = json.loads((script.main(args) / "classifier.json").read_text())
    assert record["accuracy"]["num_samples"] == 40
    kept, apart = script.hold_out(400, seed=0)
    assert sorted([*kept, *apart]) == list(range(400))
    assert apart.max() > 360  # drawn from the whole set, which may be sorted by class
    with pytest.raises(ValueError, match="9 pictures are too few"):
        script.hold_out(9, seed=0)


def test_script_runs_as_a_file_and_teaches(tmp_path: Path) -> None:
    path = ROOT / "training_scripts" / "train_classifier.py"
    words = ["--dataset_name", "digits", "--num_channels", "1", "--resolution", "8", "--max_train_samples", "100"]
    words += ["--num_train_epochs", "1", "--output_dir", str(tmp_path)]
    done = subprocess.run([sys.executable, str(path), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "held-out accuracy:" in done.stdout
    assert (tmp_path / "config.json").is_file()


def test_script_helps(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        script.run(["--help"])
    text = capsys.readouterr().out
    assert "train_classifier --dataset_name digits" in text
    assert all(field.metadata.get("help") for field in script.Args.__dataclass_fields__.values())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset_name", "digits", "--num_train_epochs", "0"], "--num_train_epochs is 0: it must be at least 1"),
        (["--dataset_name", "digits", "--learning_rate", "0"], "--learning_rate is 0.0"),
        (["--dataset_name", "digits", "--streaming"], "--streaming"),
        (["--dataset_name", "digits", "--validation_split", "train"], "'train' is what is trained on"),
        (["--dataset_name", "digits", "--class_column", "kind"], "kind"),
        ([], "--dataset_name"),
    ],
)
def test_script_refuses_in_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.run(words) == 1
    complaint = capsys.readouterr().err
    assert message in complaint
    assert complaint.startswith("classifier: ")
    assert "Traceback" not in complaint
