"""How the trials stand, as gauges that Ray's metrics endpoint gives to Prometheus.

They are set by the search's own process, not by the trials': what a trial's process has set is gone with it, within
seconds of its end, often before anybody has asked.
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
PREFIX = "tune_cure_"  # before which Ray puts one of its own: ray_tune_cure_pgd_accuracy


class TrialGauges:
    """The gauges of the search `name`; Ray must be up.

    Every one has the tags `search` and `trial`. `tune_cure_running` is 1 while the trial runs and 0 from its end on;
    the others keep what the trial reached.
    """

    def __init__(self, name: str) -> None:
        tags = ("search", "trial")
        self.name = name
        self.gauges = {metric: Gauge(PREFIX + metric, words, tags) for metric, words in GAUGES.items()}
        self.running = Gauge(f"{PREFIX}running", "1 while the trial runs, then 0.", tags)

    def on_event(self, event: Event) -> None:
        """Takes in one line of the journal."""
        tags = {"search": self.name, "trial": str(event["trial"])}
        if event["event"] == "epoch":
            for metric, gauge in self.gauges.items():
                gauge.set(event[metric], tags)
        if event["event"] in ("trial", "epoch", "end"):
            self.running.set(int(event["event"] != "end"), tags)
