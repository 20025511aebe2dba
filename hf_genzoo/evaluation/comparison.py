"""Measure several generators on one footing: the same real pictures, number of samples, extractors and machine.

    compare("outputs/ddpm-digits", "outputs/vae-digits", "outputs/wgan-digits", dataset_name="digits")

Samples and scores are kept in the cache as they are made, so a comparison that was killed goes on where it stopped,
and one more model costs one more model.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_genzoo.data.fingerprint import cache_root
from hf_genzoo.evaluation.args import CompareArgs
from hf_genzoo.evaluation.extras import require
from hf_genzoo.evaluation.measurement import Measurement
from hf_genzoo.evaluation.protocol import PACKAGES, from_settings, make_yardstick, process_state
from hf_genzoo.evaluation.sample_store import Store, machine, time_in_turn
from hf_genzoo.evaluation.sources import PipelineSource, Sampling
from hf_genzoo.evaluation.subject import Subject, open_subject
from hf_genzoo.evaluation.trilemma import Comparison, Measured, Row
from hf_genzoo.evaluation.trilemma_page import write_report
from hf_genzoo.evaluation.yardstick import Kept, Yardstick
from hf_genzoo.versions import installed_versions


def compare(*models: str | Path, **settings: Any) -> Path:
    """Compare models; the same as `genzoo compare MODEL MODEL ... --name value ...`.

    Args:
        models: Exported folders, repositories on the Hub, folders of pictures.
        settings: Flags by name (see `CompareArgs`).

    Returns:
        The folder with comparison.html, .png, .md, .csv and .json.

    Raises:
        ValueError: on an unknown setting, bad data, or a model that cannot be sampled.
    """
    args = from_settings(CompareArgs, "compare", models, settings)
    run(models, args)
    return Path(args.output_dir)


def run(models: Sequence[str | Path], args: CompareArgs) -> Comparison | None:
    """Compare with parsed flags, on however many processes there are; None on all but the first.

    Raises:
        ValueError: as `compare`.
    """
    if not args.seeds or len(set(args.seeds)) < len(args.seeds):
        raise ValueError(f"--seeds {args.seeds}: name at least one seed, each once")
    if repeated := sorted({str(model) for model in models if list(models).count(model) > 1}):
        raise ValueError(f"{', '.join(repeated)} is named twice: a model is compared with others")
    require("matplotlib")
    state, device = process_state(args)
    with state.main_process_first():
        yardstick = make_yardstick(args, device)
    if yardstick.reference.law is not None:
        raise ValueError(
            f"{yardstick.reference.name} holds points, not pictures: use `genzoo evaluate` for each model"
        )
    subjects = [open_subject(model, device=device) for model in models]
    cells: dict[str, list[Kept]] = {}
    for subject in subjects:
        cells[subject.name] = []
        for seed in args.seeds:
            source = subject.source(recorded_sampling(subject, seed), yardstick.reference)
            store = Store(
                cache_root(args.data_cache_dir), source, args.batch_size, state.process_index, state.num_processes
            )
            samples = store.draw(yardstick.num_samples, state.wait_for_everyone)
            if state.is_main_process:
                cells[subject.name].append(yardstick.kept(subject.name, samples.key, lambda s=samples: s.values))
    if not state.is_main_process:
        return None
    speeds = _speeds(subjects, yardstick, args)
    calibration = yardstick.calibration()
    names = _short_names([subject.name for subject in subjects])
    rows = [_model_row(names[s.name], s, cells[s.name], speeds.get(s.name), yardstick) for s in subjects]
    rows += [_calibration_row(kept, yardstick) for kept in calibration]
    grids = {names[s.name]: cells[s.name][0].grid for s in subjects}
    grids |= {kept.scores.name: kept.grid for kept in calibration}
    comparison = Comparison(
        dataset=yardstick.reference.name,
        split=yardstick.held_out.split,
        fingerprint=yardstick.held_out.fingerprint,
        resolution=yardstick.held_out.values.shape[-1],
        num_samples=yardstick.num_samples,
        seeds=tuple(args.seeds),
        extractors=tuple(extractor.name for extractor in yardstick.extractors),
        device=machine(device),
        versions=installed_versions(PACKAGES),
        sampling={names[s.name]: _in_words(s, yardstick) for s in subjects},
        rows=tuple(rows),
    )
    write_report(comparison, args.output_dir, grids)
    return comparison


def recorded_sampling(subject: Subject, seed: int) -> Sampling:
    """How a model's run drew its sample grids; a model that recorded nothing is called as it is."""
    return Sampling(**{**((subject.training or {}).get("sampling") or {}), "seed": seed})


def _in_words(subject: Subject, yardstick: Yardstick) -> str:
    settings = subject.source(recorded_sampling(subject, 0), yardstick.reference).settings
    if not settings:
        return "pictures of a folder"
    return ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)


def _speeds(subjects: Sequence[Subject], yardstick: Yardstick, args: CompareArgs) -> dict[str, tuple[Measured, float]]:
    """Milliseconds and network evaluations a sample of each pipeline, all timed now and in turn."""
    from scipy.stats import t as student_t

    sources = {}
    for subject in subjects:
        source = subject.source(recorded_sampling(subject, args.seeds[0]), yardstick.reference)
        if isinstance(source, PipelineSource):
            sources[subject.name] = source
    found = {}
    for name, (times, evaluations) in time_in_turn(sources, min(args.batch_size, yardstick.num_samples)).items():
        reach = float(student_t.ppf(0.975, len(times) - 1) * np.std(times, ddof=1) / np.sqrt(len(times)))
        mean = float(np.mean(times))
        found[name] = Measured(mean, max(mean - reach, 0.0), mean + reach), evaluations
    return found


def _model_row(
    name: str, subject: Subject, cells: Sequence[Kept], speed: tuple[Measured, float] | None, yardstick: Yardstick
) -> Row:
    training = subject.training or {}
    return Row(
        name=name,
        kind="model",
        family=training.get("family"),
        metrics=over_seeds([cell.scores.measurements for cell in cells], yardstick.extractors[0].name),
        ms_per_image=None if speed is None else speed[0],
        nfe=None if speed is None else speed[1],
        parameters=sum(subject.parameters.values()) or None,
        training_seconds=training.get("seconds"),
        training_images=training.get("images_seen"),
        num_seeds=len(cells),
    )


def _calibration_row(kept: Kept, yardstick: Yardstick) -> Row:
    metrics = over_seeds([kept.scores.measurements], yardstick.extractors[0].name)
    return Row(name=kept.scores.name, kind="calibration", metrics=metrics)


def over_seeds(draws: Sequence[Sequence[Measurement]], headline: str) -> dict[str, Measured]:
    """Each number as the mean over draws, by the keys of a comparison.

    Its interval is that of a single draw (the root mean square of the draws' half-widths): what all draws share, the
    real pictures, does not average out, so it is not divided by their number.

    Args:
        draws: Numbers of each draw.
        headline: The extractor whose numbers go by their plain names.
    """
    found = {}
    for first in draws[0]:
        same = [next(m for m in draw if (m.name, m.extractor) == (first.name, first.extractor)) for draw in draws]
        value = float(np.mean([m.value for m in same]))
        plain = first.extractor in (None, headline) or first.name == "nearest_ratio"
        key = first.name if plain else f"{first.name}@{first.extractor}"
        ends = [m.interval for m in same if m.interval is not None]
        if len(ends) < len(same):
            found[key] = Measured(value)
            continue
        below, above = (
            float(np.sqrt(np.mean([(end[side] - m.value) ** 2 for m, end in zip(same, ends, strict=True)])))
            for side in (0, 1)
        )
        found[key] = Measured(value, value - below, value + above)
    return found


def _short_names(names: Sequence[str]) -> dict[str, str]:
    """The last part of each path where that tells all apart, else the whole."""
    short = {name: Path(name).name or name for name in names}
    return short if len(set(short.values())) == len(names) else {name: name for name in names}
