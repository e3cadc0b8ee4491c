"""Hyperparameter search for FGSM adversarial training with CURE curvature regularization.

The public functions are `search`, `train`, `confirm`, `report`, `compare`, `replay`, `evaluate`, `export`, `load_model`
and `register`, the class of a search's results is `SearchResult`, and every error that a user can mend is a
`TuneCureError`. Each is imported when it is first used, so `import tune_cure` is quick. docs/python_api.md shows them
all.

`tune_cure.search` is two things: the function that runs a search, and the package that `from tune_cure.search.results
import SearchResult` names. Python sets the attribute `search` of this package to the sub-package once that has been
imported, and so would hide a function of this name. Therefore the sub-package itself is made callable: it is imported
here, which costs nothing as it holds a docstring alone, and its class becomes one that has `__call__`. So
`tune_cure.search(…)` works whatever is imported, and in whatever order. Type checkers see the function.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tune_cure import search as _search_package

if TYPE_CHECKING:
    import inspect

    from tune_cure.cli.api import TrainResult, confirm, search, train
    from tune_cure.cli.compare import Comparison, compare
    from tune_cure.cli.export import export
    from tune_cure.cli.replay import Replay, replay
    from tune_cure.cli.report import report
    from tune_cure.cli.steps.evaluate_run import evaluate
    from tune_cure.models import load as load_model
    from tune_cure.search.results import SearchResult
    from tune_cure.search.space.registration import register
    from tune_cure.utils.errors import TuneCureError

    __version__: str

__all__ = [
    "Comparison",
    "Replay",
    "SearchResult",
    "TrainResult",
    "TuneCureError",
    "__version__",
    "compare",
    "confirm",
    "evaluate",
    "export",
    "load_model",
    "register",
    "replay",
    "report",
    "search",
    "train",
]

_LAZY = {
    "Comparison": "tune_cure.cli.compare:Comparison",
    "Replay": "tune_cure.cli.replay:Replay",
    "SearchResult": "tune_cure.reports.figures.notebook:SearchResult",
    "TrainResult": "tune_cure.cli.api:TrainResult",
    "TuneCureError": "tune_cure.utils.errors:TuneCureError",
    "compare": "tune_cure.cli.compare:compare",
    "confirm": "tune_cure.cli.api:confirm",
    "evaluate": "tune_cure.cli.steps.evaluate_run:evaluate",
    "export": "tune_cure.cli.export:export",
    "load_model": "tune_cure.models:load",
    "register": "tune_cure.search.space.registration:register",
    "replay": "tune_cure.cli.replay:replay",
    "report": "tune_cure.cli.report:report",
    "train": "tune_cure.cli.api:train",
}
"""Where to import each public name, as `module:name`; PEP 562 calls `__getattr__` when a name is first used.

`SearchResult` comes with the pictures that notebooks show of it.
"""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # takes longer to import than this package

        return version("tune-cure")
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _LAZY[name].partition(":")
    globals()[name] = getattr(importlib.import_module(module), attribute)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _CallablePackage(ModuleType):
    """The sub-package `tune_cure.search`, which is also the function `tune_cure.search`."""

    def __call__(self, *args: Any, **kwargs: Any) -> "SearchResult":
        """Run a search; see `tune_cure.cli.api.search`."""
        from tune_cure.cli import api

        return api.search(*args, **kwargs)

    @property
    def __signature__(self) -> "inspect.Signature":
        """The signature that `help` and editors show."""
        import inspect

        from tune_cure.cli import api

        return inspect.signature(api.search)

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, (self.__name__,)


_search_package.__class__ = _CallablePackage
