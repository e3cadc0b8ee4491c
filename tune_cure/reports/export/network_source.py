"""The source code of a network of the user's own, which an exported folder needs beside `model.py`."""

import ast
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path

from tune_cure.models import networks
from tune_cure.models.registry import MODELS
from tune_cure.reports.export.measurements import ExportError
from tune_cure.utils.registry import is_reference


@dataclass(frozen=True)
class NetworkSource:
    """A file with a network's function.

    Attributes:
        file: The file, which imports no other file of the user's.
        function: Name of the function in it.
    """

    file: Path
    function: str

    @property
    def module(self) -> str:
        """Name of the module that the file is in an exported folder."""
        return self.file.stem


def find_network_source(name: str) -> NetworkSource | None:
    """Return the source of a network of the user's own; None for one of this project's.

    Args:
        name: Name of the network, whose module is imported already.

    Raises:
        ExportError: The function is in no file, or in one that does not work by itself in another folder.
    """
    architecture = MODELS.resolve(name)
    if architecture is networks.ARCHITECTURES.get(name):
        return None
    module_name = getattr(architecture, "__module__", "")
    function = getattr(architecture, "__qualname__", "")
    if is_reference(name) and not function:
        module_name, _, function = name.partition(":")
    module = sys.modules.get(module_name)
    if module is None or getattr(module, function, None) is not architecture or module_name == "__main__":
        raise ExportError(f"network {name!r}: cannot be exported: it is no function or class of a module of its own")
    file = inspect.getsourcefile(module)
    if file is None:
        raise ExportError(f"network {name!r}: cannot be exported: module {module_name} has no source file")
    source = NetworkSource(Path(file), function)
    if source.module in ("model", "load", "__init__"):
        raise ExportError(f"network {name!r}: cannot be exported: {file} needs another name, as load.py has its own")
    _check_imports(name, source.file)
    return source


def _check_imports(name: str, file: Path) -> None:
    """Check that a file imports neither this project nor a neighbor, which the exported folder would lack."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            modules = [("." * node.level) + (node.module or "")]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        else:
            continue
        for module in modules:
            top = module.partition(".")[0]
            is_neighbor = (file.parent / f"{top}.py").exists() or (file.parent / top / "__init__.py").exists()
            if not top or top == "tune_cure" or is_neighbor:
                raise ExportError(
                    f"network {name!r}: cannot be exported: {file} imports {module}, which the folder would lack; put "
                    "the network into a file that imports torch alone"
                )
