"""Measure one generator, from samples to results.json and its card.

    results = evaluate("outputs/ddpm-digits")

Every number that a card states is written here, and nowhere else.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import PartialState

from hf_genzoo.atomic import replacing
from hf_genzoo.data.fingerprint import cache_root
from hf_genzoo.devices import has_gpu
from hf_genzoo.evaluation import task_scores
from hf_genzoo.evaluation.args import EvaluateArgs, MeasureArgs
from hf_genzoo.evaluation.metrics import HEADLINE, MIXTURE, QUALITY
from hf_genzoo.evaluation.reference import found_class_column, load_reference
from hf_genzoo.evaluation.resize import RESIZER
from hf_genzoo.evaluation.sample_store import Samples, Store
from hf_genzoo.evaluation.sources import PipelineSource, Sampling, Source
from hf_genzoo.evaluation.subject import Subject, default_shape, open_subject, read_training, recorded_data_flags
from hf_genzoo.evaluation.yardstick import Scores, Yardstick, default_extractors
from hf_genzoo.hub.card import update_card
from hf_genzoo.hub.card_data import public_name
from hf_genzoo.hub.measured import FORMAT, RESULTS
from hf_genzoo.versions import installed_versions

PACKAGES = ("hf_genzoo", "torch", "diffusers", "transformers", "numpy", "scipy", "scikit-learn", "pillow")

_DATA = ("dataset_name", "train_data_dir")
_OF_THE_MODEL = ("resolution", "num_channels", "scheduler", "num_inference_steps", "guidance_scale")

A = TypeVar("A", bound=MeasureArgs)


def evaluate(model: str | Path, **settings: Any) -> dict[str, Any] | None:
    """Measure a model; the same as `genzoo evaluate MODEL --name value ...`.

    Args:
        model: Exported folder, repository on the Hub (ours or any stock one), or folder of pictures.
        settings: Flags by name (see `EvaluateArgs`).

    Returns:
        What was written to results.json; None on all processes but the first.

    Raises:
        ValueError: on an unknown setting, bad data, samples that are not finite, or a model that cannot be sampled.
    """
    return run(model, from_settings(EvaluateArgs, "evaluate", [model], settings))


def run(model: str | Path, args: EvaluateArgs) -> dict[str, Any] | None:
    """Measure with parsed flags, on however many processes there are; None on all but the first.

    Raises:
        ValueError: as `evaluate`.
    """
    state, device = process_state(args)
    subject = open_subject(model, revision=args.revision, device=device)
    with state.main_process_first():  # the others find prepared data and trained extractors in the cache
        yardstick = make_yardstick(args, device, chosen_by=((subject.training or {}).get("best") or {}))
    sampling = Sampling(args.scheduler, args.num_inference_steps, args.guidance_scale, args.seed)
    source, samples = _drawn(subject, sampling, yardstick, args, state)
    beside = None
    if args.baseline is not None:
        other = open_subject(args.baseline, device=device)
        beside = (other, *_drawn(other, Sampling(seed=args.seed), yardstick, args, state))
    if not state.is_main_process:
        return None
    found = scores_of(subject, source, samples, yardstick)
    calibration = [kept.scores for kept in yardstick.calibration()] + task_scores.bicubic(source, yardstick)
    if beside is not None:
        calibration.append(replace(scores_of(*beside, yardstick), name=f"baseline {public_name(beside[0].name)}"))
    results = describe(subject, source, args.seed, yardstick, samples, found, calibration)
    folder = Path(args.output_dir) if args.output_dir else subject.folder
    if folder is None:
        folder = Path("outputs/evaluation") / subject.name.replace("/", "--")
    write(results, folder)
    return results


def _drawn(
    subject: Subject, sampling: Sampling, yardstick: Yardstick, args: EvaluateArgs, state: PartialState
) -> tuple[Source, Samples]:
    """Where a model's samples come from, and as many as the yardstick takes, drawn by all processes together."""
    source = subject.source(sampling, yardstick.reference)
    store = Store(cache_root(args.data_cache_dir), source, args.batch_size, state.process_index, state.num_processes)
    return source, store.draw(yardstick.num_samples, state.wait_for_everyone)


def from_settings(cls: type[A], command: str, models: Sequence[str | Path], settings: Mapping[str, Any]) -> A:
    """Settings of a Python call as flags, with the defaults of `recorded_flags`.

    Raises:
        ValueError: on an unknown setting.
    """
    known = {field.name for field in fields(cls)}
    if unknown := sorted(set(settings) - known):
        raise ValueError(f"{command} has no setting {', '.join(unknown)}; see `genzoo {command} --help`")
    return cls(**recorded_flags(cls, models, settings, settings.get("revision")), **settings)


def process_state(args: MeasureArgs) -> tuple[PartialState, torch.device]:
    """Processes as `accelerate launch` gives them, and this one's device."""
    state = PartialState(cpu=args.use_cpu or not has_gpu())
    return state, torch.device(state.device or "cpu")


def recorded_flags(
    cls: type[A], models: Sequence[str | Path], given: Mapping[str, Any], revision: str | None = None
) -> dict[str, Any]:
    """Defaults for the flags: the data that models learnt, how their grids are drawn, the size of their pictures.

    Args:
        cls: Which flags there are.
        models: Of several, each flag is that of the first one that recorded it.
        given: Flags that the user set, which need no default. Where they name other data than the models', its columns
            and splits are its own, and of the recorded flags only shape and sampling are left.
        revision: Of a model on the Hub.
    """
    known = {field.name for field in fields(cls)}
    found: dict[str, Any] = {}
    for model in models:
        training = read_training(model, revision)
        recorded = {
            **default_shape(model, revision),
            **recorded_data_flags(training),
            **((training or {}).get("sampling") or {}),
        }
        found |= {name: value for name, value in recorded.items() if name in known and name not in found}
    if data := {given[name] for name in _DATA if given.get(name) is not None}:
        learnt = {found.pop(name) for name in _DATA if name in found}
        if not data & learnt:
            found = {name: value for name, value in found.items() if name in _OF_THE_MODEL}
    return {name: value for name, value in found.items() if name not in given}


def make_yardstick(
    args: MeasureArgs, device: torch.device | str, chosen_by: Mapping[str, Any] | None = None
) -> Yardstick:
    """The data set, the number of samples and the extractors that the flags name.

    Args:
        args: The flags.
        device: Where features are extracted.
        chosen_by: How a model's weights were chosen among several; its extractor is then no default.

    Raises:
        ValueError: if the data or an extractor cannot be had.
    """
    if args.class_column is None and (column := found_class_column(args)):
        args = replace(args, class_column=column)
    reference = load_reference(args, args.split)
    judged = (chosen_by or {}).get("extractor")
    extractors = args.extractor or [name for name in default_extractors(reference) if name != judged]
    return Yardstick(reference, args.num_samples, extractors, cache_root(args.data_cache_dir), device)


def scores_of(subject: Subject, source: Any, samples: Samples, yardstick: Yardstick) -> Scores:
    """Everything that a generator is measured by: its samples, and what it does beside sampling."""
    found = yardstick.kept(subject.name, samples.key, lambda: samples.values).scores
    numbers = np.arange(len(samples.values))
    if isinstance(source, PipelineSource) and yardstick.reference.law is None:
        pictures = yardstick.fitting(samples.values)
        found.measurements.extend(task_scores.conditional(pictures, source, numbers, samples.key, yardstick))
        found.measurements.extend(task_scores.text(pictures, source, numbers, yardstick))
        found.measurements.extend(task_scores.reconstruction(source.pipeline, yardstick))
        found.measurements.extend(task_scores.super_resolution(pictures, source))
        found.measurements.extend(task_scores.disentanglement_scores(source.pipeline, yardstick))
        found.measurements.extend(task_scores.likelihood(source.pipeline, yardstick, source.sampling.seed))
    return found


def describe(
    subject: Subject,
    source: Source,
    seed: int,
    yardstick: Yardstick,
    samples: Samples,
    found: Scores,
    calibration: list[Scores],
) -> dict[str, Any]:
    """The content of results.json: every number with what it takes to read and to repeat it."""
    reference, speed, training = yardstick.reference, samples.speed, subject.training
    headline = yardstick.extractors[0].name if yardstick.extractors else None
    hashes = {extractor.name: extractor.hash for extractor in yardstick.extractors}
    shared = {
        "dataset": reference.name,
        "split": reference.held_out.split,
        "num_samples": yardstick.num_samples,
        "seed": seed,
    }
    return {
        "format": FORMAT,
        "model": {"name": subject.name, "hash": subject.hash, "parameters": subject.parameters},
        "data": {
            "name": reference.name,
            "train_split": reference.train.split,
            "train_fingerprint": reference.train.fingerprint,
            "split": reference.held_out.split,
            "fingerprint": reference.held_out.fingerprint,
            "shape": list(yardstick.held_out.values.shape[1:]),
        },
        "protocol": {
            "num_samples": yardstick.num_samples,
            "seed": seed,
            "resizer": RESIZER,
            "headline": {"name": HEADLINE, "extractor": headline},
            "extractors": [{"name": e.name, "hash": e.hash, "dim": e.dim} for e in yardstick.extractors],
            "sampling": source.settings,
        },
        "speed": None if speed is None else {**asdict(speed), "network_evaluations": speed.network_evaluations},
        "training": budget(training),
        "versions": installed_versions(PACKAGES),
        "metrics": [
            {**m.to_json(), "extractor_hash": hashes.get(m.extractor or ""), **shared} for m in found.measurements
        ],
        "verdicts": found.verdicts,
        "calibration": [row.to_json() for row in calibration],
        "remarks": remarks(found, calibration, samples, yardstick, training),
    }


def remarks(
    found: Scores,
    calibration: list[Scores],
    samples: Samples,
    yardstick: Yardstick,
    training: Mapping[str, Any] | None,
) -> list[str]:
    """What a reader must not miss."""
    said = []
    headline = yardstick.extractors[0].name if yardstick.extractors else None
    if (drawn := samples.values.shape[1:]) != (real := yardstick.held_out.values.shape[1:]):
        said.append(f"Samples of shape {drawn} were resized to {real}, the shape of the real ones (--resolution).")
    for extractor in yardstick.extractors:
        if found.get("frechet_distance", extractor.name) is None:
            said.append(
                f"No Frechet distance with {extractor.name}: {yardstick.num_samples} samples for {extractor.dim} "
                f"dimensions leave the covariance singular. Take more than {extractor.dim}, or a smaller extractor."
            )
    ours = found.get(QUALITY, headline)
    mixture = next((row.get(QUALITY, headline) for row in calibration if row.name == MIXTURE), None)
    if ours and mixture and ours.value >= mixture.value:
        clearly = ours.interval and mixture.interval and ours.interval[0] > mixture.interval[1]
        said.append(
            f"This model {'loses to' if clearly else 'is not shown to beat'} {MIXTURE}, which is fitted in seconds: "
            f"Frechet ratio {ours.value:.3g} against {mixture.value:.3g}."
        )
    if best := (training or {}).get("best"):
        flattered = best["extractor"] in [extractor.name for extractor in yardstick.extractors]
        said.append(
            f"The weights are those of step {best['step']}, chosen by {best['metric']} with {best['extractor']} "
            f"features on split {best['split']}{': the numbers of that extractor flatter here' if flattered else ''}."
        )
    return said


def budget(training: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the model's training cost, where its folder knows."""
    if training is None:
        return None
    return {name: training[name] for name in ("steps", "images_seen", "seconds", "device", "num_processes")}


def write(results: Mapping[str, Any], folder: Path) -> None:
    """Write results.json at once and, where the folder holds a pipeline, its card."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / RESULTS) as aside:
        aside.write_text(json.dumps(results, indent=1, allow_nan=False), encoding="utf-8")
    update_card(folder)
