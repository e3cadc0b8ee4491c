"""Gauges of the trials, which Prometheus reads from Ray's metrics endpoint.

The search's own process sets them. What a trial's process sets is gone seconds after its end, often before Prometheus
has read it.
"""

from ray.util.metrics import Gauge

from tune_cure.search.journal import Event

GAUGES = {
    "clean_accuracy": "Clean accuracy on the validation images, a fraction.",
    "pgd_accuracy": "PGD accuracy on the validation images, a fraction.",
    "curvature": "Mean penalty of the epoch, before lambda.",
    "epoch": "Epochs trained.",
    "device_memory_mb": "Most memory that the trial had of its GPU, or its process of a machine without.",
}
PREFIX = "tune_cure_"  # Ray puts its own before it: ray_tune_cure_pgd_accuracy


class TrialGauges:
    """Gauges of the trials of the search `name`. Ray must be up.

    Each has the tags `search` and `trial`. `tune_cure_running` is 1 while the trial runs and 0 from its end on;
    the others keep what the trial reached.
    """

    def __init__(self, name: str) -> None:
        tags = ("search", "trial")
        self.name = name
        self.gauges = {metric: Gauge(PREFIX + metric, words, tags) for metric, words in GAUGES.items()}
        self.running = Gauge(f"{PREFIX}running", "1 while the trial runs, then 0.", tags)

    def on_event(self, event: Event) -> None:
        """Set the gauges of the event's trial."""
        tags = {"search": self.name, "trial": str(event["trial"])}
        if event["event"] == "epoch":
            for metric, gauge in self.gauges.items():
                gauge.set(event[metric], tags)
        if event["event"] in ("trial", "epoch", "end"):
            self.running.set(int(event["event"] != "end"), tags)
