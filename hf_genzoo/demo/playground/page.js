// The page around the training: controls, drawing, and a clock that gives training what drawing leaves of each frame.
"use strict";

const LIMIT = 2.2; // half the side of the plane that is shown
const FIELD = 40; // cells a side of the discriminator's field
const SHOWN = 400; // points drawn of each kind
const ARROWS = 60;
const FRAME_MS = 45; // of which training takes what it can: 20 frames a second on one core
const LIVE = ["k", "r1", "learningRateD", "learningRateG", "loss"]; // may change while training; others start anew

const byId = (id) => document.getElementById(id);
const form = byId("settings");
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

let training, latents, data, running = true, history = [], frames = [];

function readSettings() {
  const settings = {};
  for (const field of form.querySelectorAll("[name]")) {
    const isWord = field.tagName === "SELECT";
    settings[field.name] = isWord ? field.value : "log" in field.dataset ? 10 ** Number(field.value) : Number(field.value);
  }
  if (!Number.isInteger(settings.seed) || settings.seed < 0 || settings.seed > 4294967295) {
    byId("message").textContent = `Seed ${form.seed.value || "(empty)"}: give a whole number from 0 to 4294967295.`;
    return null;
  }
  byId("message").textContent = "";
  return settings;
}

function writeSettings(settings) {
  for (const field of form.querySelectorAll("[name]")) {
    if (!(field.name in settings)) continue;
    field.value = "log" in field.dataset ? Math.log10(settings[field.name]) : settings[field.name];
  }
  showValues();
}

function showValues() {
  for (const field of form.querySelectorAll('input[type="range"]')) {
    const value = Number(field.value);
    field.parentElement.querySelector("output").textContent = "log" in field.dataset ? (10 ** value).toPrecision(2) : value;
  }
}

/** Settings out of the address, as far as they are some of ours: a link shares an experiment. */
function settingsOfLink() {
  const settings = { ...DEFAULTS };
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
    if (name === "distribution" && value in DISTRIBUTIONS) settings[name] = value;
    else if (name === "loss" && value in LOSSES) settings[name] = value;
    else if (typeof DEFAULTS[name] === "number" && Number.isFinite(Number(value))) settings[name] = Number(value);
  }
  return settings;
}

function reset() {
  const settings = readSettings();
  if (!settings) return;
  training = new Training(settings);
  const random = new Random(settings.seed + 1); // what is drawn must not move what is learnt
  latents = random.normals(SHOWN * training.settings.latentDim);
  data = drawPoints(settings.distribution, SHOWN, random);
  history = [];
  draw();
}

function setRunning(value) {
  running = value;
  byId("play").textContent = running ? "Pause" : "Play";
}

function trainFor(milliseconds) {
  const end = performance.now() + milliseconds;
  do {
    training.step();
    history.push(training.losses.gradient);
  } while (performance.now() < end);
  if (history.length > 4000) history = history.filter((_, i) => i % 2);
  if (!Number.isFinite(training.losses.generator + training.losses.discriminator)) {
    setRunning(false);
    byId("message").textContent = "The losses are no longer finite: lower a learning rate, then reset.";
  }
}

function frame(now) {
  frames = [...frames.filter((t) => now - t < 1000), now];
  if (running) {
    const start = performance.now();
    draw();
    trainFor(Math.max(5, FRAME_MS - (performance.now() - start)));
  }
  requestAnimationFrame(frame);
}

// ------------------------------------------------------------------------------------------------ drawing

function fitted(canvas) {
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [Math.round(canvas.clientWidth * scale), Math.round(canvas.clientHeight * scale)];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  return [context, canvas.clientWidth, canvas.clientHeight];
}

function draw() {
  const [context, side] = fitted(byId("plane"));
  const place = (x, y) => [((x + LIMIT) / (2 * LIMIT)) * side, ((LIMIT - y) / (2 * LIMIT)) * side];
  context.fillStyle = colour("--paper");
  context.fillRect(0, 0, side, side);
  if (byId("showField").checked) drawField(context, side);
  if (byId("showData").checked) drawPointsOf(context, data, colour("--real"), place);
  const { points, pull } = training.samples(latents);
  if (byId("showPull").checked) drawArrows(context, points, pull, place);
  drawPointsOf(context, points, colour("--fake"), place);
  drawCurve();
  showFacts(points);
}

function drawField(context, side) {
  const logits = training.field(FIELD, LIMIT);
  const isProbability = !["wasserstein", "hinge", "least_squares"].includes(training.settings.loss);
  const centre = isProbability ? 0 : logits.reduce((a, b) => a + b, 0) / logits.length;
  const spread = isProbability ? 1 : Math.sqrt(logits.reduce((a, b) => a + (b - centre) ** 2, 0) / logits.length) || 1;
  const pixels = new ImageData(FIELD, FIELD);
  logits.forEach((logit, i) => {
    const sure = 2 * sigmoid((logit - centre) / spread) - 1; // -1 generated, 1 data
    pixels.data.set([...(sure > 0 ? [27, 108, 168] : [209, 73, 91]), 115 * Math.abs(sure)], 4 * i);
  });
  const small = new OffscreenCanvas(FIELD, FIELD);
  small.getContext("2d").putImageData(pixels, 0, 0);
  context.drawImage(small, 0, 0, side, side); // smoothed by the browser
}

function drawPointsOf(context, points, fill, place) {
  context.fillStyle = fill;
  for (let i = 0; i < points.length; i += 2) {
    const [x, y] = place(points[i], points[i + 1]);
    context.fillRect(x - 1.5, y - 1.5, 3, 3);
  }
}

function drawArrows(context, points, pull, place) {
  context.strokeStyle = colour("--pull");
  context.lineWidth = 1.3;
  context.beginPath();
  for (let i = 0; i < 2 * ARROWS; i += 2) {
    const size = Math.hypot(pull[i], pull[i + 1]);
    const length = size > 0 ? Math.min(0.5, 0.35 * size) / size : 0;
    const [x0, y0] = place(points[i], points[i + 1]);
    const [x1, y1] = place(points[i] + length * pull[i], points[i + 1] + length * pull[i + 1]);
    const angle = Math.atan2(y1 - y0, x1 - x0);
    context.moveTo(x0, y0);
    context.lineTo(x1, y1);
    if (Math.hypot(x1 - x0, y1 - y0) < 4) continue;
    for (const turn of [2.6, -2.6]) {
      context.moveTo(x1, y1);
      context.lineTo(x1 + 5 * Math.cos(angle + turn), y1 + 5 * Math.sin(angle + turn));
    }
  }
  context.stroke();
}

function drawCurve() {
  const [context, width, height] = fitted(byId("curves"));
  context.fillStyle = colour("--paper");
  context.fillRect(0, 0, width, height);
  const [low, high] = [-5, 1.5]; // powers of ten
  const y = (value) => height - ((Math.log10(Math.max(value, 1e-9)) - low) / (high - low)) * height;
  context.strokeStyle = colour("--line");
  context.fillStyle = colour("--ink");
  context.font = "11px system-ui, sans-serif";
  context.lineWidth = 1;
  for (const power of [-4, -2, 0]) {
    context.beginPath();
    context.moveTo(34, y(10 ** power));
    context.lineTo(width, y(10 ** power));
    context.stroke();
    context.fillText(`1e${power}`, 4, y(10 ** power) + 4);
  }
  context.strokeStyle = colour("--pull");
  context.beginPath();
  history.forEach((value, i) => context.lineTo(34 + (i / Math.max(1, history.length - 1)) * (width - 34), y(value)));
  context.stroke();
}

function showFacts(points) {
  const { discriminator, generator, gradient } = training.losses;
  const found = coverage(points, DISTRIBUTIONS[training.settings.distribution]);
  const facts = {
    "steps of G": training.steps.toLocaleString("en"),
    "loss of D": discriminator.toFixed(3),
    "loss of G": generator.toFixed(3),
    "gradient at a point": gradient.toPrecision(2),
    "modes found": found ? `${found.covered} of ${found.modes}` : "-",
    "near a mode": found ? `${Math.round(100 * found.near)} %` : "-",
    "frames a second": running ? frames.length : "paused",
  };
  byId("facts").innerHTML = Object.entries(facts).map(([name, value]) => `<div>${name}<b>${value}</b></div>`).join("");
}

// ------------------------------------------------------------------------------------------------ controls

form.addEventListener("input", (event) => {
  showValues();
  const settings = readSettings();
  if (!settings) return;
  if (LIVE.includes(event.target.name)) Object.assign(training.settings, settings);
  else if (event.target.name) reset();
  if (!running) draw();
});
byId("play").addEventListener("click", () => {
  setRunning(!running);
  draw();
});
byId("step").addEventListener("click", () => {
  setRunning(false);
  trainFor(0);
  draw();
});
byId("reset").addEventListener("click", reset);
byId("share").addEventListener("click", async () => {
  const settings = readSettings();
  if (!settings) return;
  location.hash = new URLSearchParams(settings).toString();
  try {
    await navigator.clipboard.writeText(location.href);
    byId("said").textContent = "Link copied.";
  } catch {
    byId("said").textContent = "The link is in the address bar.";
  }
});
document.addEventListener("keydown", (event) => {
  if (["INPUT", "SELECT", "BUTTON"].includes(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
  const button = { " ": "play", s: "step", r: "reset" }[event.key.toLowerCase()];
  if (button) {
    event.preventDefault();
    byId(button).click();
  }
});

writeSettings(settingsOfLink());
reset();
requestAnimationFrame(frame);
