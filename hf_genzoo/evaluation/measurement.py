"""One measured number."""

from dataclasses import asdict, dataclass
from typing import Any

from hf_genzoo.evaluation.intervals import Estimate
from hf_genzoo.evaluation.metrics import METRICS


@dataclass(frozen=True)
class Measurement:
    """A number that was measured.

    Attributes:
        name: Key of `hf_genzoo.evaluation.metrics.METRICS`.
        value: The number.
        interval: 95 % confidence interval, or None where none could be estimated.
        extractor: Name of the feature extractor, or None for a metric that needs none.
    """

    name: str
    value: float
    interval: tuple[float, float] | None = None
    extractor: str | None = None

    @staticmethod
    def of(name: str, estimate: Estimate) -> "Measurement":
        """From an estimate; the interval ends where the metric's range does."""
        if estimate.interval is None:
            return Measurement(name, estimate.value)
        (low, high), about = estimate.interval, METRICS[name]
        low = low if about.least is None else max(low, about.least)
        high = high if about.most is None else min(high, about.most)
        return Measurement(name, estimate.value, (low, high))

    @staticmethod
    def share(name: str, right: int, total: int) -> "Measurement":
        """A share of independent trials with its exact binomial interval (Clopper & Pearson 1934)."""
        from scipy.stats import binomtest

        interval = binomtest(right, total).proportion_ci(method="exact")
        return Measurement(name, right / total, (float(interval.low), float(interval.high)))

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "interval": None if self.interval is None else list(self.interval)}

    @staticmethod
    def from_json(raw: dict[str, Any]) -> "Measurement":
        """What `to_json` wrote."""
        interval = raw["interval"]
        return Measurement(raw["name"], raw["value"], interval and (interval[0], interval[1]), raw["extractor"])
