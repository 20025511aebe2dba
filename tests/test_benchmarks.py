"""The measuring code itself: the generator to beat, tables and their cells, figures, and the report of all of them."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from torch import nn

from benchmarks.latent_sampling import draws
from benchmarks.report import replace_block, table
from benchmarks.tables import restoration, t1, t2, t4, t6, t7, t9
from benchmarks.tables.cells import Cells, Row, spread
from benchmarks.vanishing_gradients import gradient_norm
from hf_genzoo.evaluation.baselines import pca_gaussian


def test_pca_gaussian_has_each_class_s_mean() -> None:
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(2), 500)
    images = (80 + 60 * labels[:, None, None] + 10 * rng.standard_normal((1000, 4, 4))).round().astype(np.uint8)
    drawn = pca_gaussian(images, labels, 400, components=8)
    assert drawn.shape == (400, 4, 4)
    assert drawn[:200].mean() == pytest.approx(images[:500].mean(), abs=0.5)
    assert drawn[200:].mean() == pytest.approx(images[500:].mean(), abs=0.5)


def test_report_replaces_only_its_block() -> None:
    text = "a\n<!-- begin one -->\nold\n<!-- end one -->\nb\n<!-- begin two -->\n<!-- end two -->\n"
    filled = replace_block(text, "one", table({"milliseconds": 1234.5, "share": 0.123, "name": "x"}))
    assert "old" not in filled
    assert "| `milliseconds` | 1,234 |\n| `share` | 0.12 |\n| `name` | x |" in filled
    assert filled.endswith("b\n<!-- begin two -->\n<!-- end two -->\n")
    with pytest.raises(ValueError, match="no block 'three'"):
        replace_block(text, "three", "")


def test_cells_are_measured_once_and_averaged_over_seeds(tmp_path: Path) -> None:
    cells, asked = Cells("t1", tmp_path), []

    def measure(row: Row, name: str, seed: int) -> dict:
        asked.append((row.key, name, seed))
        counted = {"modes": 6 + seed, "high_quality": 0.5, "reverse_kl": 0.25 * seed, "reverse_kl_floor": 0.001}
        return {**counted, "steps": 1000, "seconds": 30.0}

    cells.fill(t1.ROWS[:2], ["ring"], [0], measure)
    cells.fill(t1.ROWS[:2], ["ring"], range(3), measure)
    assert asked == [(row.key, "ring", seed) for seed in range(3) for row in t1.ROWS[:2]]
    assert [cell["seed"] for cell in cells.read("gan", "ring")] == [0, 1, 2]
    text = t1.table(cells)
    error = 1 / np.sqrt(3)
    assert f"| GAN | 7.0 ± {error:.1f} | 50.0 ± 0.0 | 0.2500 ± {0.25 * error:.4f} | 1,000 | 3 | 6.3" in text
    assert "WGAN-GP" not in text  # not measured, not shown
    assert "Floor of the reverse KL: 0.0048." in text  # 24 / 5000, as in the notes to the paper's protocol
    assert spread([2.0], 1) == "2.0"


def test_stacked_digits_show_two_digits_and_no_more() -> None:
    digits = np.arange(5, dtype=np.uint8)[:, None, None] * np.ones((5, 3, 3), np.uint8)
    pictures, rows = t2.stacked(digits, 200, seed=0)
    assert pictures.shape == (200, 3, 3, 3)
    assert (pictures[:, 0, 0, 0] == rows[:, 0]).all()
    assert (pictures[:, 2, 1, 1] == rows[:, 1]).all()
    assert (pictures[..., 2] == 0).all()
    assert len({tuple(row) for row in rows}) == 25
    sure = np.arange(5000) < 2000
    half = t2.score(np.arange(100).repeat(50), sure)  # those recognised are of the first 40 modes
    assert half == {
        "modes": 100,
        "recognised": 0.4,
        "kl": 0.0,
        "kl_floor": 99 / 10_000,
        "kl_recognised": pytest.approx(np.log(100 / 40)),
        "kl_recognised_floor": 99 / 4_000,
    }
    unreadable = t2.score(np.arange(10).repeat(500), sure & False)
    assert unreadable["kl"] == pytest.approx(np.log(10))
    assert "kl_recognised" not in unreadable


def test_the_table_of_stacked_digits_says_what_is_measured(tmp_path: Path) -> None:
    cells = Cells("t2", tmp_path)
    (tmp_path / "t2").mkdir()
    measured = {"modes": 90, "recognised": 0.5, "kl": 0.2, "kl_floor": 0.0099, "steps": 100}
    real = {**measured, "modes": 100, "kl_recognised": 0.0101, "kl_recognised_floor": 0.01}
    real |= {"dataset": "mnist", "classifier_accuracy": 0.99}
    (tmp_path / "t2" / "real.json").write_text(json.dumps(real))
    cells.fill([t2.ROWS[0]], [t2.COLUMN], range(2), lambda *_: measured)
    text = t2.table(cells)
    assert "| real pictures | 100.0 | 0.200 | 50 | 0.010 (0.010) |  | 1 |  |" in text
    assert "| DCGAN | 90.0 ± 0.0 | 0.200 ± 0.000 | 50 ± 0 |  | 100 | 2 | 487.7 / 2.24 |" in text
    assert "PacDCGAN2" not in text  # not measured, not shown


def test_gradient_norm_of_two_linear_networks() -> None:
    """G(z) = w z and D(x) = d x: the gradient for w is l'(d w z) d z."""
    G, D = nn.Linear(1, 1, bias=False), nn.Sequential(nn.Linear(1, 1, bias=False), nn.Flatten(0))
    w, d = G.weight.item(), D[0].weight.item()  # type: ignore[union-attr]
    z = torch.linspace(-1, 2, 7)
    logits = d * w * z
    expected = {"minimax": -torch.sigmoid(logits), "non_saturating": -torch.sigmoid(-logits)}
    for loss, slope in expected.items():
        found = gradient_norm(G, D, z[:, None], loss)  # type: ignore[arg-type]
        assert found == pytest.approx((slope * d * z).mean().abs().item(), rel=1e-5)


def test_trivial_answers_know_no_more_than_they_are_given() -> None:
    x = 2 * torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)) - 1
    mask = torch.zeros(3, 1, 8, 8)
    mask[:, :, 2:5, 1:4] = 1
    filled = restoration.trivial("completion", x * (1 - mask), mask, x, x)
    known = (mask == 0).expand_as(x)
    assert torch.equal(filled[known], x[known])
    assert filled[1, 2, 3, 2].item() == pytest.approx(x[1, 2][mask[1, 0] == 0].mean().item(), abs=1e-6)
    flat = torch.randn(40, 4, generator=torch.Generator().manual_seed(1)) @ torch.randn(4, 64)
    pictures = flat.view(40, 1, 8, 8)
    kept = restoration.trivial("reconstruct", pictures, pictures, pictures, pictures)
    torch.testing.assert_close(kept, pictures, rtol=0, atol=1e-3)  # of rank 4, in 16 numbers
    grey = torch.zeros(1, 3, 2, 2)
    assert restoration.trivial("denoise", grey, grey, x, x) is grey


def test_restoration_table_shows_what_is_measured(tmp_path: Path) -> None:
    cells = Cells("restoration", tmp_path)
    found = {"psnr": 25.0, "trivial_psnr": 20.0, "better_on": 0.9, "pictures": 10, "steps": 1000, "seconds": 5.0}
    cells.fill(restoration.ROWS[:1], ["photos"], [0], lambda *_: found)
    text = restoration.table(cells)
    assert "| denoise: the noisy picture | 20.00 | 25.00 | 90 | 1,000 | 5 | 1 |" in text
    assert "digits" not in text
    assert not restoration.applies("colorization", "digits")
    assert restoration.applies("reconstruct", "digits")


def test_principal_components_are_the_best_codes_of_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    flat = rng.random((60, t4.CODE)) @ rng.random((t4.CODE, t4.SIZE**2)) / t4.CODE
    monkeypatch.setattr(t4, "pictures", lambda split: (255 * flat).reshape(60, 1, t4.SIZE, t4.SIZE))
    encode, decode = t4.pca()
    x = torch.from_numpy(flat).float().view(60, 1, t4.SIZE, t4.SIZE)
    assert encode(x).shape == (60, t4.CODE)
    torch.testing.assert_close(decode(encode(x)), x, rtol=0, atol=1e-3)
    assert t4.quality(encode, decode)["squared_error"] < 1e-3


def test_drawn_codes_have_the_moments_of_the_trained_ones() -> None:
    codes = (
        torch.randn(5000, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor([[2.0, 1.0], [0.0, 0.5]]) + 3
    )
    drawn = draws(codes, 50_000, seed=1)
    one, each = drawn["autoencoder, one normal law"], drawn["autoencoder, each number's normal law"]
    torch.testing.assert_close(torch.cov(one.T), torch.cov(codes.T), rtol=0.03, atol=0.03)
    torch.testing.assert_close(one.mean(0), codes.mean(0), rtol=0.02, atol=0)
    torch.testing.assert_close(torch.cov(each.T), torch.cov(codes.T).diagonal().diag(), rtol=0.03, atol=0.05)
    assert drawn["autoencoder, N(0, I)"].mean().abs() < 0.02


def test_super_resolution_table_says_what_its_cells_say(tmp_path: Path) -> None:
    cells = Cells("t9", tmp_path)
    shared = {"ssim": 0.9, "consistency": 1e-5, "coverage": 0.5, "steps": 100, "seconds": 5.0}
    numbers = {
        "bicubic": (18.0, 9.0),
        "regression": (23.0, 4.0),
        "sr3-10": (20.0, 2.0),
        "mean-16": (22.7, 3.0),
    }

    def measure(row: Row, column: str, seed: int) -> dict:
        high, law = numbers[row.key]
        return {**shared, "psnr": high, "frechet_ratio": law}

    cells.fill([row for row in t9.ROWS if row.key in numbers], ["photos"], [0], measure)
    text = t9.table(cells)
    assert "| regression | 23.00 | 0.900 | 1.0 | 4.00 | 50 |  | 100 | 5 | 1 | 23.96 / 0.69 / 2.71 |" in text
    assert "SR3, 10 steps: regression has the higher PSNR: yes." in text
    assert "SR3, 10 steps: regression has the higher SSIM: no." in text  # they are equal
    assert "SR3, 10 steps: the draws have the lower Frechet ratio: yes." in text
    assert "The mean of 16 closes 90 % of the gap in PSNR." in text
    assert "mean of 4" not in text


def test_quarters_are_the_pictures_corners() -> None:
    pictures = np.arange(2 * 3 * 4 * 6, dtype=np.uint8).reshape(2, 3, 4, 6)
    cut = t9.quarters(pictures)
    assert cut.shape == (8, 3, 2, 3)
    assert (cut[4] == pictures[1, :, :2, :3]).all()
    assert (cut[6] == pictures[1, :, 2:, :3]).all()


def test_answers_are_drawn_once(tmp_path: Path) -> None:
    asked = []

    def answer(small: torch.Tensor, seed: int) -> torch.Tensor:
        asked.append((len(small), seed))
        return small.repeat_interleave(2, 2).repeat_interleave(2, 3)

    small = torch.rand(t9.AT_ONCE + 3, 1, 2, 2)
    first, again = (t9.drawn(answer, small, tmp_path, "10-steps-2") for _ in range(2))
    assert asked == [(t9.AT_ONCE, 2000), (3, 2001)]
    assert (first == again).all()
    assert (first[:, :, ::2, 1::2] == (255 * small).round().byte().numpy()).all()


def test_steps_against_noise_are_told_with_what_holds_of_the_paper(tmp_path: Path) -> None:
    cells = Cells("t6", tmp_path)
    noise = {row.key: number for number, row in enumerate(t6.ROWS)}

    class Known:
        def sampled(self, row: Row, grid: str, steps: int, seed: int) -> dict:
            catastrophe = 50 if row.key == "sigma_hat" and grid == "uniform" else 0
            ratio = 2 + (1 + noise[row.key] + catastrophe) / steps
            ratios = {"classifier": 3.0, "random": ratio, "pca": ratio, "mean": ratio}  # the classifier is blind
            return {"frechet_ratio": ratios, "samples": 1000, "steps": 4000, "seconds": 400.0}

        def reconstructed(self, grid: str, steps: int, seed: int) -> dict:
            return {"squared_error": 0.1 / steps if steps < 500 else 0.01}

    made: list[Known] = []
    for _ in range(2):
        t6.fill(cells, t6.ROWS, [0], lambda: made.append(Known()) or made[-1])  # type: ignore[arg-type, return-value]
    assert len(made) == 1  # nothing was missing the second time
    text = t6.table(cells)
    assert "| eta 0 (DDIM) | 3.00 / 2.20 / 2.20 | 3.00 / 2.10 / 2.10 |" in text
    assert "| 3.00 / 2.01 / 2.01 | 13.36 | 6.84 | 4.67 | 4.16 |" in text
    assert "| sigma-hat | 3.00 / 13.00 / 13.00 | 3.00 / 7.50 / 7.50 |" in text
    assert "| uniform | 0.01000 | 0.00500 | 0.00200 | 0.00100 | 0.00050 | 0.01000 |" in text
    verdict = "classifier 0 of 20, random 20 of 20, pca 20 of 20, mean 20 of 20 comparisons"
    assert f"uniform: sigma-hat is the worst row at every number of steps: {verdict}" in text
    assert "eta 0 to 1: classifier 0 of 18, random 18 of 18," in text
    assert "on both grids: 8 of 10 comparisons" in text  # 500 steps are made worse above


def test_learned_variance_is_told_with_what_holds_of_the_paper(tmp_path: Path) -> None:
    cells = Cells("t7", tmp_path)

    def measured(row: Row, column: str, seed: int) -> dict:
        bits = {"beta": 4.0, "btilde": 6.0, "learned": 3.0 if column != "50" else 5.0}
        ratios = {
            name: {"classifier": ratio, "random": 2.0, "pca": 3.0 - ratio, "mean": ratio}
            for name, ratio in (("beta", 2.0), ("btilde", 1.5), ("learned", 1.0 if column == "25" else 1.75))
        }
        known = {name: value for name, value in bits.items() if row.family == "iddpm" or name != "learned"}
        found = {"bits": known, "frechet_ratio": {name: ratios[name] for name in known if column != "1000"}}
        error = {"learned": 0.1 + 0.1 * seed, "untrained": 0.4}
        return {**found, "variance_error": error, "pictures": 64, "samples": 500, "steps": 12000}

    cells.fill(t7.ROWS, [str(steps) for steps in t7.STEPS], [0, 1], measured)
    text = t7.table(cells)
    assert "| L_simple: learned" not in text
    assert "| hybrid: learned | 3.00 ± 0.00 | 3.00 ± 0.00 | 5.00 ± 0.00 |" in text
    assert "| 0.15 ± 0.05 of 0.40 ± 0.00 |" in text
    assert "bound is at most both fixed ones': 4 of 5 numbers of steps." in text
    assert "fixed ones', classifier: 10 steps no, 25 steps yes." in text
    assert "fixed ones', random: 10 steps yes, 25 steps yes." in text  # as good is enough
    assert "fixed ones', pca: 10 steps no, 25 steps no." in text


def test_error_of_the_variance_is_zero_where_it_is_best() -> None:
    """A network that sees nothing: x_0 = +- c remains, whose best share is c^2 / (1 - abar)."""
    scheduler = DDPMScheduler(100, beta_schedule="squaredcos_cap_v2", prediction_type="sample")
    x_0 = 0.3 * torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(0)).sign()

    def pipeline(shift: float) -> SimpleNamespace:
        def unet(x_t: torch.Tensor, t: torch.Tensor, class_labels: torch.Tensor) -> SimpleNamespace:
            share = 0.09 / (1 - scheduler.alphas_cumprod[t]) + shift
            return SimpleNamespace(sample=torch.cat([torch.zeros_like(x_t), (2 * share - 1).expand_as(x_t)], dim=1))

        return SimpleNamespace(unet=unet, scheduler=scheduler)

    labels = torch.zeros(8, dtype=torch.int64)
    assert t7.variance_error(pipeline(0.0), x_0, labels)["learned"] < 1e-5
    found = t7.variance_error(pipeline(-0.2), x_0, labels)
    assert found["learned"] == pytest.approx(0.2, rel=1e-4)
    best = 0.09 / (1 - scheduler.alphas_cumprod[torch.linspace(0, 99, 11).long()[1:]])
    assert found["untrained"] == pytest.approx((0.5 - best).square().mean().sqrt().item(), rel=1e-4)
