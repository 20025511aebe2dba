"""Fair timing on a noisy machine: alternatives take turns within one run, and their ratio is what counts."""

import statistics
import time
from collections.abc import Callable, Sequence


def interleaved(alternatives: Sequence[Callable[[], None]], rounds: int, warm_up: int = 2) -> list[list[float]]:
    """Seconds of each alternative in each round, called in turn: A B A B ..."""
    for _ in range(warm_up):
        for call in alternatives:
            call()
    seconds: list[list[float]] = [[] for _ in alternatives]
    for _ in range(rounds):
        for index, call in enumerate(alternatives):
            started = time.perf_counter()
            call()
            seconds[index].append(time.perf_counter() - started)
    return seconds


def median_ratio(first: Sequence[float], second: Sequence[float]) -> float:
    """Median over rounds of first / second: a drift of the machine hits both halves of a pair alike."""
    return statistics.median(a / b for a, b in zip(first, second, strict=True))
