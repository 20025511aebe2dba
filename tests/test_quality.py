"""Quality bars: real trainings of the presets, some minutes each (`make quality`)."""

import json
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from hf_genzoo.data import Gaussians2D, image_dataset
from hf_genzoo.evaluation.classifier import classify, train_classifier
from hf_genzoo.evaluation.distances import class_balance
from hf_genzoo.evaluation.extractors import Features
from hf_genzoo.evaluation.points import mode_report, wasserstein
from hf_genzoo.evaluation.scores import distribution_metrics, two_sample_tests
from hf_genzoo.hub import load
from hf_genzoo.training.run import Run
from hf_genzoo.training_scripts import train_cgan, train_ddpm, train_gan, train_score_sde, train_vae, train_wgan_gp

pytestmark = pytest.mark.slow


def test_wgan_gp_covers_the_ring_and_its_loss_follows_the_exact_distance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protocol of PacGAN (Lin et al. 2018): 2,500 samples, a mode counts with a sample within three deviations."""
    ring, every = Gaussians2D("ring"), 50
    real = ring.sample(1000, seed=1)[0]
    exact: dict[int, float] = {}
    between = Run._between_steps

    def watched(run: Run, bar) -> None:
        between(run, bar)
        if run.step % every == 0:
            z = torch.randn(1000, run.args.latent_dim, generator=torch.Generator().manual_seed(run.step))
            with torch.no_grad():
                exact[run.step] = wasserstein(run.nets["net_g"](z).numpy(), real)

    monkeypatch.setattr(Run, "_between_steps", watched)
    started = time.monotonic()
    settings = {**train_wgan_gp.RING, "output_dir": str(tmp_path / "ring"), "logging_steps": every}
    folder = train_wgan_gp.main(train_wgan_gp.Args(**settings))
    minutes = (time.monotonic() - started) / 60

    points = load(folder)(batch_size=2500, generator=torch.Generator().manual_seed(0), output_type="np").images
    report = mode_report(points, ring)
    log = [json.loads(line) for line in (folder / "logs" / "metrics.jsonl").read_text().splitlines()]
    estimated = {entry["step"]: entry["critic/wasserstein"] for entry in log}
    correlation = spearmanr([estimated[step] for step in exact], list(exact.values())).statistic
    print(f"\nring: {report}, {minutes:.1f} min")
    print(f"critic against exact W1: Spearman {correlation:.2f} over {len(exact)} points")
    assert report.modes == 8
    assert report.high_quality >= 0.90
    assert correlation >= 0.7
    assert minutes <= 5


def test_vae_reconstructs_and_bounds_held_out_digits(tmp_path: Path) -> None:
    """SMALL, against the simplest density: an independent Gaussian a pixel."""
    args = train_vae.Args(**{**train_vae.SMALL, "output_dir": str(tmp_path / "vae")})
    pipeline = load(train_vae.main(args))
    train = image_dataset(args).pixels / 255  # type: ignore[attr-defined]
    test = image_dataset(args, split="validation").pixels[:200] / 255  # type: ignore[attr-defined]
    pictures = torch.from_numpy(np.ascontiguousarray(test)).float()
    back = pipeline.reconstruct(pictures, output_type="pt").images
    error = (back - pictures).square().mean().item()
    trivial = float(np.square(test - train.mean(0)).mean())
    bound = (
        pipeline.log_likelihood(pictures, num_samples=100, generator=torch.Generator().manual_seed(0)).mean().item()
    )
    print(f"\nvae: reconstruction MSE {error:.4f} (mean picture {trivial:.4f}), bound {bound:.1f} nats a picture")
    assert error < 0.2 * trivial


def test_ddpm_small_draws_the_digits_it_is_asked_for(tmp_path: Path) -> None:
    """`make demo`'s preset, judged by a classifier of the same digits. The full comparison is a benchmark."""
    args = train_ddpm.Args(**{**train_ddpm.SMALL, "output_dir": str(tmp_path / "ddpm")})
    started = time.monotonic()
    pipeline, options = train_ddpm.sampling(load(train_ddpm.main(args)), args, args.sampler)
    minutes = (time.monotonic() - started) / 60
    asked = [i % 10 for i in range(500)]
    generator = torch.Generator().manual_seed(0)
    drawn = pipeline(class_labels=asked, generator=generator, output_type="np", **options).images[..., 0]
    real = image_dataset(args)
    classifier = train_classifier(real.pixels, real.labels, real.class_names)  # type: ignore[attr-defined]
    judged = classify(classifier, (drawn * 255).round().astype(np.uint8)[:, None])[1].argmax(axis=1)
    recognised = (judged == asked).mean()
    ink = float(real.pixels.mean()) / 255  # type: ignore[attr-defined]
    print(f"\nddpm: {minutes:.1f} min, {recognised:.1%} recognised, ink {drawn.mean():.3f} against {ink:.3f}")
    assert recognised >= 0.8
    assert drawn.mean() == pytest.approx(ink, rel=0.15)
    assert minutes <= 8


@pytest.mark.parametrize("script", [train_gan, train_cgan])
def test_gans_draw_all_ten_digits(script: ModuleType, tmp_path: Path) -> None:
    """SMALL, judged by a classifier of the same digits: no class is lost, and `cgan` draws what it is asked for."""
    args = script.Args(**{**script.SMALL, "class_column": "label", "output_dir": str(tmp_path / "gan")})
    started = time.monotonic()
    pipeline = load(script.main(args))
    minutes = (time.monotonic() - started) / 60
    asked = np.arange(1000) % 10
    told = {} if pipeline.num_classes is None else {"class_labels": asked.tolist()}
    drawn = pipeline(1000, generator=torch.Generator().manual_seed(0), output_type="np", **told).images[..., 0]
    real = image_dataset(args)
    classifier = train_classifier(real.pixels, real.labels, real.class_names)  # type: ignore[attr-defined]
    judged = classify(classifier, (drawn * 255).round().astype(np.uint8)[:, None])[1].argmax(axis=1)
    imbalance, floor = class_balance(judged, 10)
    recognised = (judged == asked).mean()
    print(
        f"\n{args.family}: {minutes:.1f} min, class KL {imbalance:.4f} (floor {floor:.4f}), as asked {recognised:.1%}"
    )
    assert imbalance < 0.05
    assert minutes <= 10
    if told:
        assert recognised > 0.95


def test_score_sde_knows_digits_and_is_led_to_classes(tmp_path: Path) -> None:
    """SMALL, against the best law of independent pixels; then a classifier of noisy digits leads its samples."""
    args = train_score_sde.Args(**{**train_score_sde.SMALL, "output_dir": str(tmp_path / "score")})
    started = time.monotonic()
    score = train_score_sde.main(args)
    minutes = (time.monotonic() - started) / 60
    train = image_dataset(args).pixels  # type: ignore[attr-defined]
    held_out = image_dataset(args, split="validation").pixels[:50]  # type: ignore[attr-defined]
    counts = np.apply_along_axis(np.bincount, 0, train.reshape(len(train), -1), minlength=256) + 1 / 256
    seen = np.take_along_axis(np.log2(counts / counts.sum(0)).T, held_out.reshape(len(held_out), -1).T, axis=1)
    pictures = torch.from_numpy(np.ascontiguousarray(held_out)).float() / 255
    bits = load(score).bits_per_dimension(pictures, generator=torch.Generator().manual_seed(0)).mean().item()

    second = {"stage": "classifier", "score_model": str(score), "class_column": "label"}
    second |= {"output_dir": str(tmp_path / "led")}
    led = load(train_score_sde.main(train_score_sde.Args(**{**vars(args), **second})))
    asked = np.arange(200) % 10
    how = {"num_inference_steps": 25, "guidance_scale": 3.0, "output_type": "np"}
    drawn = led(generator=torch.Generator().manual_seed(0), class_labels=asked.tolist(), **how).images[..., 0]
    real = image_dataset(train_ddpm.Args(**train_ddpm.SMALL))
    classifier = train_classifier(real.pixels, real.labels, real.class_names)  # type: ignore[attr-defined]
    judged = classify(classifier, (drawn * 255).round().astype(np.uint8)[:, None])[1].argmax(axis=1)
    print(
        f"\nscore_sde: {minutes:.1f} min, {bits:.2f} bits per dimension (independent pixels {-seen.mean():.2f}), "
        f"as asked {(judged == asked).mean():.1%}"
    )
    assert bits < -seen.mean()
    assert (judged == asked).mean() > 0.5
    assert minutes <= 10


def test_all_metrics_of_5000_against_5000_pictures_take_less_than_90_seconds() -> None:
    """Once features exist, by one extractor of 128 dimensions, on two cores."""
    rng = np.random.default_rng(0)

    def features() -> Features:
        return Features(rng.standard_normal((5000, 128)).astype(np.float32), rng.dirichlet(np.ones(10), 5000))

    real, fake, *train = (features() for _ in range(7))
    started = time.monotonic()
    found = distribution_metrics(fake, real, train)
    verdicts = two_sample_tests(fake, real)
    seconds = time.monotonic() - started
    print(f"\n{len(found)} metrics with intervals and {len(verdicts)} tests of 5,000 against 5,000: {seconds:.1f} s")
    assert len(found) == 12
    assert all(m.interval is not None for m in found)
    assert seconds < 90
