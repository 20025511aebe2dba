"""What the papers make true of conditional GANs: how the class enters both networks, and what the pipeline draws."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from hf_genzoo.hub import load
from hf_genzoo.models.discriminator import ConvDiscriminator, MLPDiscriminator, with_class_maps
from hf_genzoo.models.generator import ConvGenerator, MLPGenerator
from hf_genzoo.pipelines.gan import GANPipeline
from hf_genzoo.training_scripts.train_cgan import TINY, Args, build, main


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def pipe() -> GANPipeline:
    torch.manual_seed(0)
    return GANPipeline(ConvGenerator(4, 1, 8, (8, 4), num_classes=3), id2label={0: "cat", 1: "dog", 2: "owl"})


# Discriminators


@pytest.mark.parametrize("name", ["pictures", "points"])
def test_projection_is_a_sum_of_two_terms(name: str) -> None:
    """psi(phi(x)) + <v_y, phi(x)>: Miyato & Koyama 2018, eq. 5."""
    torch.manual_seed(0)
    net = ConvDiscriminator(1, 8, (4, 6), 5) if name == "pictures" else MLPDiscriminator(2, 16, num_classes=5)
    x, y = torch.randn(7, *((1, 8, 8) if name == "pictures" else (2,))), torch.arange(7) % 5
    phi = net.features(x)
    assert net.embedding is not None
    classes = torch.einsum("bd,kd->bk", phi, net.embedding.weight)
    expected = phi @ net.head.weight[0] + net.head.bias + classes[torch.arange(7), y]
    torch.testing.assert_close(net(x, y), expected)
    # What the logit says about the class is softmax-linear in the features, whatever psi is.
    other = (y + 1) % 5
    torch.testing.assert_close(net(x, y) - net(x, other), ((net.embedding(y) - net.embedding(other)) * phi).sum(1))
    torch.nn.init.zeros_(net.embedding.weight)
    torch.testing.assert_close(net(x, y), net(x, other))


def test_the_best_projection_discriminator_of_gaussians_is_exact() -> None:
    """Data N(m_y, I) against samples N(0, I): log p(x | y) / q(x | y) = m_y x - |m_y|^2 / 2, equal-length m_y.

    With the coordinates (and their negatives, behind the ReLU) as features, <m_y, x> is the projection's own term.
    """
    angles = torch.arange(4) * torch.pi / 2
    means = 2 * torch.stack([angles.cos(), angles.sin()], 1)
    net = MLPDiscriminator(2, hidden_dim=4, num_hidden_layers=1, num_classes=4)
    assert net.embedding is not None
    with torch.no_grad():
        net.features[0].weight.copy_(torch.cat([torch.eye(2), -torch.eye(2)]))  # type: ignore[union-attr]
        net.features[0].bias.zero_()  # type: ignore[union-attr]
        net.embedding.weight.copy_(torch.cat([means, -means], 1))
        net.head.weight.zero_()
        net.head.bias.fill_(-2.0)
    x, y = torch.randn(50, 2), torch.randint(4, (50,))
    ratio = -0.5 * (x - means[y]).square().sum(1) + 0.5 * x.square().sum(1)
    torch.testing.assert_close(net(x, y), ratio)


def test_concatenated_classes_are_the_same_everywhere() -> None:
    x, y = torch.randn(4, 3, 5, 5), torch.tensor([2, 0, 1, 2])
    joined = with_class_maps(x, y, 3)
    assert torch.equal(joined[:, :3], x)
    assert torch.equal(joined[:, 3:], F.one_hot(y, 3).float()[:, :, None, None].expand(4, 3, 5, 5))
    assert torch.equal(with_class_maps(x[:, :, 0, 0], y, 3), torch.cat([x[:, :, 0, 0], F.one_hot(y, 3).float()], 1))


@pytest.mark.parametrize("conditioning", ["projection", "concat"])
@pytest.mark.parametrize("dataset_name", ["digits", "gaussians2d"])
def test_every_parameter_learns_and_the_class_matters(conditioning: str, dataset_name: str) -> None:
    torch.manual_seed(0)
    args = Args(**{**TINY, "dataset_name": dataset_name, "conditioning": conditioning})
    nets = build(args, 3, conditioning=args.conditioning)
    z, y = torch.randn(6, args.latent_dim), torch.arange(6) % 3
    fake = nets["net_g"](z, y)
    logits = nets["net_d"](fake, y)
    assert not torch.allclose(fake, nets["net_g"](z, y.flip(0)))
    assert not torch.allclose(logits, nets["net_d"](fake, y.flip(0)))
    logits.square().sum().backward()
    for net in nets.values():
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


# Generators


def test_the_class_is_a_bias_of_the_first_layer() -> None:
    """(z, one-hot y) through a linear layer: Wz + V_y + b."""
    net = MLPGenerator(3, hidden_dim=8, num_hidden_layers=0, num_classes=4)
    z = torch.randn(2, 3)
    a, b = (net(z, torch.full((2,), label)) for label in (1, 3))
    weight = net.layers[0].weight  # type: ignore[union-attr]
    torch.testing.assert_close(a - b, (weight[:, 3 + 1] - weight[:, 3 + 3]).expand(2, 2))


@pytest.mark.parametrize("net", [MLPGenerator, ConvGenerator, MLPDiscriminator, ConvDiscriminator])
def test_missing_and_unasked_labels_are_refused(net: type) -> None:
    for classes, labels in ((None, torch.zeros(1, dtype=torch.long)), (3, None)):
        with pytest.raises(ValueError, match=f"of {classes or 'no'} classes was called with"):
            net(num_classes=classes)(torch.zeros(1, 2), labels)
    if net in (MLPDiscriminator, ConvDiscriminator):
        with pytest.raises(ValueError, match="unknown conditioning 'film'; choose one of projection, concat"):
            net(num_classes=3, conditioning="film")


# Pipeline


def test_labels_by_index_name_and_tensor_agree(pipe: GANPipeline) -> None:
    z = torch.randn(3, 4)
    forms = ([0, 2, 1], ["cat", "owl", "dog"], torch.tensor([0, 2, 1]), (0, "owl", 1))
    first, *others = (pipe(class_labels=form, latents=z, output_type="np").images for form in forms)
    assert all((first == other).all() for other in others)
    one = pipe(class_labels="owl", latents=z, output_type="np").images
    assert (one[1] == first[1]).all()
    assert (one[0] != first[0]).any()
    assert len(pipe(class_labels=[0, 1, 2, 0], generator=seeded(0)).images) == 4


def test_without_labels_every_class_is_drawn(pipe: GANPipeline) -> None:
    z = torch.randn(1, 4).expand(30, 4)
    each = [pipe(class_labels=label, latents=z[:1], output_type="pt").images[0] for label in range(3)]
    drawn = pipe(latents=z, generator=seeded(0), output_type="pt").images
    found = [next(label for label in range(3) if torch.allclose(x, each[label], atol=1e-6)) for x in drawn]
    assert {found.count(label) > 3 for label in range(3)} == {True}


def test_interpolation_keeps_the_class(pipe: GANPipeline) -> None:
    a, b = torch.randn(2, 4)
    between = pipe.interpolate(a, b, steps=4, class_labels="dog", output_type="pt").images
    ends = pipe(class_labels="dog", latents=torch.stack([a, b]), output_type="pt").images
    torch.testing.assert_close(between[[0, -1]], ends)


BAD = {
    "name": ({"class_labels": "cow"}, "unknown class label 'cow'; known names: cat, dog, owl"),
    "index": ({"class_labels": 3}, "class label 3 is not one of 0 to 2"),
    "kind": ({"class_labels": 1.5}, "1.5 is not a label"),
    "none": ({"class_labels": []}, "got 0 class_labels for 1 samples"),
    "count": ({"class_labels": [0, 1], "batch_size": 3}, "got 2 class_labels for 3 samples"),
    "latents": ({"class_labels": [0, 1], "latents": torch.zeros(1, 4)}, "got 2 class_labels for 1 latents"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_labels_are_named(pipe: GANPipeline, case: str) -> None:
    arguments, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        pipe(**arguments)


def test_an_unconditional_generator_takes_no_labels() -> None:
    with pytest.raises(ValueError, match="class_labels 1 for an unconditional generator; leave them out"):
        GANPipeline(ConvGenerator(4, 1, 8, (8, 4)))(class_labels=1)


# Script


def test_class_names_are_kept(tmp_path: Path) -> None:
    main(Args(**{**TINY, "output_dir": str(tmp_path), "max_train_steps": 2}))
    pipe = load(tmp_path)
    assert pipe.num_classes == 10
    assert pipe.config["id2label"] == {str(label): str(label) for label in range(10)}
    by_name = pipe(class_labels="7", generator=seeded(0), output_type="np").images
    assert (by_name == pipe(class_labels=7, generator=seeded(0), output_type="np").images).all()


def test_data_without_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="digits has no classes to learn: name their column with --class_column"):
        main(Args(**{**TINY, "output_dir": str(tmp_path), "class_column": None}))
