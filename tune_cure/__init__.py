"""Hyperparameter search for FGSM adversarial training with CURE curvature regularization.

The public functions are `search`, `train`, `confirm`, `league`, `report`, `compare`, `replay`, `evaluate`, `export`,
`load_model` and `register`, the class of a search's results is `SearchResult`, and every error that a user can mend is
a `TuneCureError`. Each is imported when it is first used, so `import tune_cure` is quick. docs/python_api.md shows them
all.

`tune_cure.search` is two things: the function that runs a search, and the package that `from tune_cure.search.results
import SearchResult` names; so is `tune_cure.league`. Python sets the attribute `search` of this package to the
sub-package once that has been imported, and so would hide a function of this name. Therefore the sub-package itself is
made callable: it is imported here, which costs nothing as it holds a docstring alone, and its class becomes one that
has `__call__`. So `tune_cure.search(…)` works whatever is imported, and in whatever order. Type checkers see the
function.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tune_cure import league as _league_package, search as _search_package

if TYPE_CHECKING:
    import inspect

    from tune_cure.cli.api import TrainResult, confirm, search, train
    from tune_cure.cli.compare import Comparison, compare
    from tune_cure.cli.export import export
    from tune_cure.cli.replay import Replay, replay
    from tune_cure.cli.report import report
    from tune_cure.cli.steps.evaluate_run import evaluate
    from tune_cure.cli.steps.league_api import LeagueResult, league
    from tune_cure.models import load as load_model
    from tune_cure.search.results import SearchResult
    from tune_cure.search.space.registration import register
    from tune_cure.utils.errors import TuneCureError

    __version__: str

__all__ = [
    "Comparison",
    "LeagueResult",
    "Replay",
    "SearchResult",
    "TrainResult",
    "TuneCureError",
    "__version__",
    "compare",
    "confirm",
    "evaluate",
    "export",
    "league",
    "load_model",
    "register",
    "replay",
    "report",
    "search",
    "train",
]

_LAZY = {
    "Comparison": "tune_cure.cli.compare:Comparison",
    "LeagueResult": "tune_cure.cli.steps.league_api:LeagueResult",
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
"""Place of each public name, as `module:name`; PEP 562 calls `__getattr__` when a name is first used.

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
    """A sub-package that is also the function of its name: `tune_cure.search`, `tune_cure.league`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function; see `tune_cure.cli.api.search` and `tune_cure.cli.steps.league_api.league`."""
        return _function_of(self)(*args, **kwargs)

    @property
    def __signature__(self) -> "inspect.Signature":
        """The signature that `help` and editors show."""
        import inspect

        return inspect.signature(_function_of(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, (self.__name__,)


def _function_of(package: ModuleType) -> Any:
    """Return the function that a package stands for, which is imported now."""
    name = package.__name__.rpartition(".")[2]
    module = {"search": "tune_cure.cli.api", "league": "tune_cure.cli.steps.league_api"}[name]
    return getattr(importlib.import_module(module), name)


for _package in (_search_package, _league_package):
    _package.__class__ = _CallablePackage
