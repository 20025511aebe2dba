"""The GAN playground's arithmetic, which runs in the page, against torch's: losses, gradients, penalty, optimiser."""

import json
import shutil
import subprocess
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from contract import ROOT
from torch import Tensor, nn

SCRIPT = ROOT / "hf_genzoo" / "demo" / "playground" / "gan2d.js"

# Everything that torch is asked as well: two networks, one batch, and for each loss the values and gradients.
PROGRAM = """
const { Random, Net, Adam, Training, LOSSES, meanLoss, coverage, DISTRIBUTIONS } = require(process.argv[1]);
const random = new Random(7);
const D = new Net([2, 6, 5, 1], 0.2, random);
const real = random.normals(2 * 9), fake = random.normals(2 * 9);
const weights = D.layers.map((l) => ({ weight: [...l.weight], bias: [...l.bias], input: l.input, output: l.output }));
const gradients = () => D.parameters().map(([, g]) => [...g]);
const out = { weights, real: [...real], fake: [...fake], losses: {} };
for (const name of Object.keys(LOSSES)) {
  D.zeroGrad();
  const [lossReal, gradReal] = meanLoss(LOSSES[name].real, D.forward(real));
  D.backward(gradReal);
  const [lossFake, gradFake] = meanLoss(LOSSES[name].fake, D.forward(fake));
  D.backward(gradFake);
  const discriminator = { loss: lossReal + lossFake, gradients: gradients() };
  const [loss, grad] = meanLoss(LOSSES[name].generator, D.forward(fake));
  out.losses[name] = { discriminator, generator: { loss, pull: [...D.backward(grad, true)] } };
}
D.zeroGrad();
out.penalty = { value: D.penalise(real, 0.7), gradients: gradients() };
new Adam(D, 0.5, 0.9).step(0.01);
out.stepped = D.parameters().map(([p]) => [...p]);
const train = (settings, steps) => {
  const training = new Training(settings);
  const latents = training.latents(500);
  for (let i = 0; i < steps; i++) training.step();
  return { ...training.losses, ...coverage(training.samples(latents).points, DISTRIBUTIONS.ring) };
};
out.trained = train({ hidden: 32 }, 1500);
out.again = [train({ seed: 3 }, 5), train({ seed: 3 }, 5), train({ seed: 4 }, 5)];
const perfect = { k: 10, r1: 0, learningRateG: 1e-9, hidden: 32 }; // G stands still, D grows sure
out.vanishing = train({ ...perfect, loss: "minimax" }, 60);
out.alive = train({ ...perfect, loss: "non_saturating" }, 60);
console.log(JSON.stringify(out));
"""


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node to run the page's script")
    done = subprocess.run([node, "-e", PROGRAM, str(SCRIPT)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def discriminator(page: dict[str, Any]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for layer in page["weights"]:
        linear = nn.Linear(layer["input"], layer["output"]).double()
        linear.weight.data = torch.tensor(layer["weight"], dtype=torch.float64).view(layer["output"], layer["input"])
        linear.bias.data = torch.tensor(layer["bias"], dtype=torch.float64)
        layers += [linear, nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1])


def points(page: dict[str, Any], name: str) -> Tensor:
    return torch.tensor(page[name], dtype=torch.float64).view(-1, 2)


def close(theirs: list[list[float]], net: nn.Module) -> bool:
    ours = [p.grad.flatten() for p in net.parameters() if p.grad is not None]
    return all(
        torch.allclose(torch.tensor(t, dtype=torch.float64), o, atol=1e-12) for t, o in zip(theirs, ours, strict=True)
    )


TORCH = {  # of real logits, of generated ones, and what the generator minimises
    "non_saturating": (lambda r: F.softplus(-r), lambda f: F.softplus(f), lambda f: F.softplus(-f)),
    "minimax": (lambda r: F.softplus(-r), lambda f: F.softplus(f), lambda f: -F.softplus(f)),
    "least_squares": (lambda r: 0.5 * (r - 1) ** 2, lambda f: 0.5 * f**2, lambda f: 0.5 * (f - 1) ** 2),
    "hinge": (lambda r: F.relu(1 - r), lambda f: F.relu(1 + f), lambda f: -f),
    "wasserstein": (lambda r: -r, lambda f: f, lambda f: -f),
}


@pytest.mark.parametrize("loss", TORCH)
def test_losses_and_their_gradients(page: dict[str, Any], loss: str) -> None:
    assert set(page["losses"]) == set(TORCH)
    net, real, fake = discriminator(page), points(page, "real"), points(page, "fake").requires_grad_()
    of_real, of_fake, of_generator = TORCH[loss]
    total = of_real(net(real)).mean() + of_fake(net(fake.detach())).mean()
    total.backward()
    shown = page["losses"][loss]
    assert shown["discriminator"]["loss"] == pytest.approx(total.item(), abs=1e-12)
    assert close(shown["discriminator"]["gradients"], net)
    value = of_generator(net(fake)).mean()
    (pull,) = torch.autograd.grad(value, fake)
    assert shown["generator"]["loss"] == pytest.approx(value.item(), abs=1e-12)
    assert torch.allclose(torch.tensor(shown["generator"]["pull"], dtype=torch.float64).view(-1, 2), pull, atol=1e-12)


def test_r1_penalty_and_adam(page: dict[str, Any]) -> None:
    """Mescheder et al. 2018, eq. 9, by double backward there and by one more forward pass here."""
    net, real = discriminator(page), points(page, "real").requires_grad_()
    (gradient,) = torch.autograd.grad(net(real).sum(), real, create_graph=True)
    penalty = 0.35 * gradient.square().sum(1).mean()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01, betas=(0.5, 0.9))
    penalty.backward()
    assert page["penalty"]["value"] == pytest.approx(penalty.item(), abs=1e-12)
    for parameter in net.parameters():  # the last bias is in no input gradient: torch says None, the page 0
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    assert close(page["penalty"]["gradients"], net)
    optimiser.step()
    for theirs, ours in zip(page["stepped"], net.parameters(), strict=True):
        assert torch.allclose(torch.tensor(theirs, dtype=torch.float64), ours.data.flatten(), atol=1e-9)


def test_it_learns_the_ring_and_shows_vanishing_gradients(page: dict[str, Any]) -> None:
    assert page["trained"]["covered"] >= 7
    assert page["trained"]["near"] > 0.4
    assert page["again"][0] == page["again"][1] != page["again"][2], "the same seed, the same film"
    # Arjovsky & Bottou 2017, section 2: with a discriminator far ahead the minimax loss has nothing left to say.
    # Both have the same D: per point the two gradients are D(x) and 1 - D(x) times its slope.
    assert page["vanishing"]["gradient"] < 0.3 * page["alive"]["gradient"]
