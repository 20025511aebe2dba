// A generative adversarial network in the plane, small enough to be trained in the page while one watches.
//
// Papers: Goodfellow et al. 2014 (minimax and non-saturating losses, k discriminator steps); Mao et al. 2017 (least
// squares); Lim & Ye 2017 (hinge); Arjovsky et al. 2017 (Wasserstein with clipped weights); Mescheder et al. 2018 (R1).
//
// The losses are those of hf_genzoo/losses.py; a test compares losses and gradients with torch's, number by number.
// No dependency: plain typed arrays, reverse-mode derivatives by hand. Batches are row-major, (n, width).
"use strict";

// ------------------------------------------------------------------------------------------------ random numbers

/** Uniform and normal draws from a 32-bit seed (mulberry32, Box-Muller): the same seed, the same film. */
class Random {
  constructor(seed) {
    this.state = seed >>> 0;
    this.spare = null;
  }

  uniform() {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let t = this.state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }

  normal() {
    if (this.spare !== null) {
      const value = this.spare;
      this.spare = null;
      return value;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    const angle = 2 * Math.PI * this.uniform();
    this.spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }

  normals(count) {
    return Float64Array.from({ length: count }, () => this.normal());
  }
}

// ------------------------------------------------------------------------------------------------ distributions

/** Name -> a draw (x, y); `modes` are the centres where it has any, `sd` their width. */
const DISTRIBUTIONS = {
  ring: mixture(
    Array.from({ length: 8 }, (_, i) => [1.5 * Math.cos((i * Math.PI) / 4), 1.5 * Math.sin((i * Math.PI) / 4)]),
    0.06,
  ),
  grid: mixture(
    Array.from({ length: 25 }, (_, i) => [(i % 5) * 0.75 - 1.5, Math.floor(i / 5) * 0.75 - 1.5]),
    0.05,
  ),
  one_gaussian: mixture([[0.8, 0.6]], 0.3),
  two_moons: {
    modes: [],
    sd: 0,
    draw(random) {
      const angle = Math.PI * random.uniform();
      const upper = random.uniform() < 0.5;
      const x = upper ? Math.cos(angle) - 0.5 : 0.5 - Math.cos(angle);
      const y = upper ? Math.sin(angle) - 0.25 : 0.25 - Math.sin(angle);
      return [1.1 * x + 0.06 * random.normal(), 1.1 * y + 0.06 * random.normal()];
    },
  },
  spiral: {
    modes: [],
    sd: 0,
    draw(random) {
      const angle = 1.5 * Math.PI * (1 + 2 * random.uniform());
      const radius = (1.7 * angle) / (4.5 * Math.PI);
      return [radius * Math.cos(angle) + 0.04 * random.normal(), radius * Math.sin(angle) + 0.04 * random.normal()];
    },
  },
};

function mixture(modes, sd) {
  return {
    modes,
    sd,
    draw(random) {
      const [x, y] = modes[Math.floor(random.uniform() * modes.length)];
      return [x + sd * random.normal(), y + sd * random.normal()];
    },
  };
}

function drawPoints(name, count, random) {
  const points = new Float64Array(2 * count);
  for (let i = 0; i < count; i++) {
    const [x, y] = DISTRIBUTIONS[name].draw(random);
    points[2 * i] = x;
    points[2 * i + 1] = y;
  }
  return points;
}

// ------------------------------------------------------------------------------------------------ the networks

/** A fully connected network with leaky ReLUs between its layers. */
class Net {
  /**
   * @param {number[]} sizes width of the input, of each hidden layer, and of the output
   * @param {number} slope of the activation below 0 (0 is a ReLU)
   * @param {Random} random
   */
  constructor(sizes, slope, random) {
    this.slope = slope;
    this.layers = [];
    for (let l = 0; l + 1 < sizes.length; l++) {
      const [input, output] = [sizes[l], sizes[l + 1]];
      const scale = Math.sqrt(2 / input); // He et al. 2015: keeps the size of the signal from layer to layer
      this.layers.push({
        input,
        output,
        weight: random.normals(input * output).map((w) => w * scale), // (output, input)
        bias: new Float64Array(output),
        weightGrad: new Float64Array(input * output),
        biasGrad: new Float64Array(output),
      });
    }
  }

  /** Outputs (n, width of the last layer) of inputs x; what `backward` needs is kept. */
  forward(x) {
    this.inputs = [];
    let values = x;
    this.layers.forEach((layer, l) => {
      this.inputs.push(values);
      values = affine(layer, values);
      if (l + 1 < this.layers.length) {
        for (let i = 0; i < values.length; i++) if (values[i] < 0) values[i] *= this.slope;
      }
    });
    return values;
  }

  /** Adds the gradients of the weights, given that of the outputs; returns that of the inputs. */
  backward(outputGrad, keepSignals = false) {
    let signal = outputGrad;
    const signals = [];
    for (let l = this.layers.length - 1; l >= 0; l--) {
      if (l + 1 < this.layers.length) signal = this.masked(signal, this.inputs[l + 1]);
      signals[l] = signal;
      if (!keepSignals) accumulate(this.layers[l], this.inputs[l], signal, true);
      signal = transposed(this.layers[l], signal);
    }
    this.signals = signals;
    return signal;
  }

  /**
   * Adds the gradient of weight / 2 * mean |grad_x D(x)|^2 (Mescheder et al. 2018, eq. 9); returns the value.
   *
   * A network of leaky ReLUs is linear around x: g = grad_x D. With v = g held fixed, d(|g|^2 / 2) = d(g . v), and g . v is
   * what the linearised network (same masks, no biases) makes of v, so one more forward pass has all that is needed.
   */
  penalise(x, weight) {
    const count = x.length / this.layers[0].input;
    this.forward(x);
    const gradient = this.backward(new Float64Array(count).fill(1), true);
    let tangent = gradient;
    this.layers.forEach((layer, l) => {
      const scaled = this.signals[l].map((s) => (s * weight) / count);
      accumulate(layer, tangent, scaled, false);
      tangent = affine({ ...layer, bias: null }, tangent);
      if (l + 1 < this.layers.length) tangent = this.masked(tangent, this.inputs[l + 1]);
    });
    return (weight / 2) * (sumOfSquares(gradient) / count);
  }

  masked(signal, activations) {
    const out = new Float64Array(signal.length);
    for (let i = 0; i < out.length; i++) out[i] = activations[i] > 0 ? signal[i] : this.slope * signal[i];
    return out;
  }

  zeroGrad() {
    for (const layer of this.layers) {
      layer.weightGrad.fill(0);
      layer.biasGrad.fill(0);
    }
  }

  clip(size) {
    for (const { weight, bias } of this.layers) {
      for (const values of [weight, bias]) {
        for (let i = 0; i < values.length; i++) values[i] = Math.max(-size, Math.min(size, values[i]));
      }
    }
  }

  parameters() {
    return this.layers.flatMap((l) => [
      [l.weight, l.weightGrad],
      [l.bias, l.biasGrad],
    ]);
  }
}

function affine({ input, output, weight, bias }, x) {
  const count = x.length / input;
  const out = new Float64Array(count * output);
  for (let n = 0; n < count; n++) {
    for (let o = 0; o < output; o++) {
      let sum = bias ? bias[o] : 0;
      for (let i = 0; i < input; i++) sum += weight[o * input + i] * x[n * input + i];
      out[n * output + o] = sum;
    }
  }
  return out;
}

function transposed({ input, output, weight }, signal) {
  const count = signal.length / output;
  const out = new Float64Array(count * input);
  for (let n = 0; n < count; n++) {
    for (let o = 0; o < output; o++) {
      const s = signal[n * output + o];
      if (s !== 0) for (let i = 0; i < input; i++) out[n * input + i] += weight[o * input + i] * s;
    }
  }
  return out;
}

function accumulate({ input, output, weightGrad, biasGrad }, x, signal, withBias) {
  const count = signal.length / output;
  for (let n = 0; n < count; n++) {
    for (let o = 0; o < output; o++) {
      const s = signal[n * output + o];
      if (s === 0) continue;
      if (withBias) biasGrad[o] += s;
      for (let i = 0; i < input; i++) weightGrad[o * input + i] += s * x[n * input + i];
    }
  }
}

/** Adam (Kingma & Ba 2015) without momentum, as adversarial training likes it. */
class Adam {
  constructor(net, beta1 = 0, beta2 = 0.99) {
    Object.assign(this, { net, beta1, beta2, steps: 0 });
    this.moments = net.parameters().map(([p]) => [new Float64Array(p.length), new Float64Array(p.length)]);
  }

  step(learningRate) {
    this.steps += 1;
    const [c1, c2] = [1 - this.beta1 ** this.steps, 1 - this.beta2 ** this.steps];
    this.net.parameters().forEach(([p, g], which) => {
      const [m, v] = this.moments[which];
      for (let i = 0; i < p.length; i++) {
        m[i] = this.beta1 * m[i] + (1 - this.beta1) * g[i];
        v[i] = this.beta2 * v[i] + (1 - this.beta2) * g[i] * g[i];
        p[i] -= (learningRate * (m[i] / c1)) / (Math.sqrt(v[i] / c2) + 1e-8);
      }
    });
  }
}

// ------------------------------------------------------------------------------------------------ the objectives

const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const sumOfSquares = (values) => values.reduce((sum, v) => sum + v * v, 0);

/** Pairs (value, derivative) of one logit: of a real point and a generated one for D, of a generated one for G. */
const SATURATING = {
  real: [(r) => softplus(-r), (r) => -sigmoid(-r)],
  fake: [(f) => softplus(f), (f) => sigmoid(f)],
  generator: [(f) => -softplus(f), (f) => -sigmoid(f)],
};
const WASSERSTEIN = {
  real: [(r) => -r, () => -1],
  fake: [(f) => f, () => 1],
  generator: [(f) => -f, () => -1],
};
const LOSSES = {
  non_saturating: { ...SATURATING, generator: [(f) => softplus(-f), (f) => -sigmoid(-f)] },
  minimax: SATURATING,
  least_squares: {
    real: [(r) => 0.5 * (r - 1) ** 2, (r) => r - 1],
    fake: [(f) => 0.5 * f ** 2, (f) => f],
    generator: [(f) => 0.5 * (f - 1) ** 2, (f) => f - 1],
  },
  hinge: {
    ...WASSERSTEIN,
    real: [(r) => Math.max(0, 1 - r), (r) => (r < 1 ? -1 : 0)],
    fake: [(f) => Math.max(0, 1 + f), (f) => (f > -1 ? 1 : 0)],
  },
  wasserstein: WASSERSTEIN,
};

/** Mean of a loss over a batch of logits, and its gradient. */
function meanLoss([value, derivative], logits) {
  let loss = 0;
  const grad = new Float64Array(logits.length);
  for (let i = 0; i < logits.length; i++) {
    loss += value(logits[i]) / logits.length;
    grad[i] = derivative(logits[i]) / logits.length;
  }
  return [loss, grad];
}

// ------------------------------------------------------------------------------------------------ the algorithm

const DEFAULTS = {
  distribution: "ring",
  loss: "non_saturating",
  k: 1,
  learningRateD: 0.005,
  learningRateG: 0.002,
  r1: 0.1,
  clip: 0.1,
  batch: 128,
  latentDim: 4,
  hidden: 48,
  seed: 1,
};

/** Algorithm 1 of Goodfellow et al. 2014: k steps of the discriminator, one of the generator, over and over. */
class Training {
  constructor(settings = {}) {
    this.settings = { ...DEFAULTS, ...settings };
    const { latentDim, hidden, seed } = this.settings;
    this.random = new Random(seed);
    this.G = new Net([latentDim, hidden, hidden, 2], 0, this.random);
    this.D = new Net([2, hidden, hidden, 1], 0.2, this.random);
    this.optimiserG = new Adam(this.G);
    this.optimiserD = new Adam(this.D);
    this.steps = 0;
    this.losses = { discriminator: 0, generator: 0, gradient: 0 };
  }

  latents(count) {
    return this.random.normals(count * this.settings.latentDim);
  }

  step() {
    for (let i = 0; i < this.settings.k; i++) this.stepDiscriminator();
    this.stepGenerator();
    this.steps += 1;
  }

  stepDiscriminator() {
    const { distribution, batch, loss, r1, clip, learningRateD } = this.settings;
    const real = drawPoints(distribution, batch, this.random);
    const fake = this.G.forward(this.latents(batch));
    this.D.zeroGrad();
    const [lossReal, gradReal] = meanLoss(LOSSES[loss].real, this.D.forward(real));
    this.D.backward(gradReal);
    const [lossFake, gradFake] = meanLoss(LOSSES[loss].fake, this.D.forward(fake));
    this.D.backward(gradFake);
    if (r1 > 0) this.D.penalise(real, r1);
    this.optimiserD.step(learningRateD);
    if (loss === "wasserstein") this.D.clip(clip);
    this.losses.discriminator = lossReal + lossFake;
  }

  stepGenerator() {
    const { batch, loss, learningRateG } = this.settings;
    this.G.zeroGrad();
    const fake = this.G.forward(this.latents(batch));
    const [value, grad] = meanLoss(LOSSES[loss].generator, this.D.forward(fake));
    const pull = this.D.backward(grad); // what each sample is told: where to go
    this.G.backward(pull);
    this.optimiserG.step(learningRateG);
    this.losses.generator = value;
    // Size of the signal a sample gets: it dies with the minimax loss as soon as D is sure (Arjovsky & Bottou 2017).
    this.losses.gradient = Math.sqrt(sumOfSquares(pull) * batch);
  }

  /** `count` samples (count, 2) with the direction (count, 2) in which the generator's loss falls, from fixed latents. */
  samples(latents) {
    const points = this.G.forward(latents);
    const [, grad] = meanLoss(LOSSES[this.settings.loss].generator, this.D.forward(points));
    const count = points.length / 2;
    return { points, pull: this.D.backward(grad, true).map((g) => -g * count) };
  }

  /** D's logits on a grid of size x size over [-limit, limit]^2, row by row from the top. */
  field(size, limit) {
    const places = new Float64Array(2 * size * size);
    for (let row = 0; row < size; row++) {
      for (let column = 0; column < size; column++) {
        places[2 * (row * size + column)] = ((column + 0.5) / size) * 2 * limit - limit;
        places[2 * (row * size + column) + 1] = limit - ((row + 0.5) / size) * 2 * limit;
      }
    }
    return this.D.forward(places);
  }
}

/** How many modes hold at least a fifth of their share of the samples, and how many samples lie within 3 sd of one. */
function coverage(points, { modes, sd }) {
  if (modes.length === 0) return null;
  const counts = new Array(modes.length).fill(0);
  const total = points.length / 2;
  for (let i = 0; i < total; i++) {
    const near = modes.findIndex(([x, y]) => Math.hypot(points[2 * i] - x, points[2 * i + 1] - y) < 3 * sd);
    if (near >= 0) counts[near] += 1;
  }
  const covered = counts.filter((count) => count >= (0.2 * total) / modes.length).length;
  return { covered, modes: modes.length, near: counts.reduce((a, b) => a + b, 0) / total };
}

if (typeof module !== "undefined") {
  module.exports = { Random, Net, Adam, Training, LOSSES, DISTRIBUTIONS, drawPoints, meanLoss, coverage, sigmoid };
}
