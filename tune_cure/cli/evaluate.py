"""The command `evaluate`: judges trained networks of any origin, as they are, on the same test images."""

import argparse
import shlex
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from tune_cure.cli import options as command_line
from tune_cure.utils.formatting import path_word

DEFAULT_FOLDER = Path("results", "evaluation")


@dataclass(frozen=True)
class EvaluateOptions:
    """Command line of `evaluate`.

    Attributes:
        models: The networks, as `confirmation.trained_networks` names them; `NAME=MODEL` gives one its name in tables.
        dataset: The data set; None takes that of the first network that tells.
        data_root: Folder of the data; None takes the default.
        image_size: Side to resize images to; None takes that of the first network that tells.
        norm: Norm of the attacks; None takes that of the first network that tells.
        epsilon: Radius of the attacks, in pixel units; None takes that of the first network that tells.
        examples: Test images to judge on; None is all.
        no_autoattack: Leave AutoAttack out.
        output: Where tables go.
        device: The device; None takes CUDA where there is any.
        trust_code: Import the code of networks that saved files name as `module:name`.
        parts: The file of the user's own parts, which is imported.
    """

    models: tuple[str, ...]
    dataset: str | None = None
    data_root: str | None = None
    image_size: int | None = None
    norm: str | None = None
    epsilon: float | None = None
    examples: int | None = None
    no_autoattack: bool = False
    output: Path = DEFAULT_FOLDER
    device: str | None = None
    trust_code: bool = False
    parts: Path | None = None

    def command(self) -> str:
        """Return this command line as typed in a shell."""
        words = ["evaluate", *map(path_word, self.models)]
        for flag in ("dataset", "data_root", "image_size", "norm", "epsilon", "examples", "device", "parts"):
            value = getattr(self, flag)
            words += [f"--{flag.replace('_', '-')}", path_word(str(value))] if value is not None else []
        words += [f"--{flag.replace('_', '-')}" for flag in ("no_autoattack", "trust_code") if getattr(self, flag)]
        words += ["--output", path_word(self.output)] if self.output != DEFAULT_FOLDER else []
        return f"{command_line.program()} {shlex.join(words)}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.description = (
        "Judges trained networks as they are, on the same test images: clean, FGSM, PGD-10, PGD-50-10 and AutoAttack, "
        "with warnings of masked gradients, and which network is better than which. The same command continues where "
        "it was interrupted; one with more networks judges only these."
    )
    parser.epilog = (
        "MODEL is the folder of a run or of an export; a file that tune-cure saved; weights of another project with "
        "the function that builds their network, which takes images in [0, 1]: weights.pt@my_nets:resnet; or "
        "robustbench:ID. NAME=MODEL gives it a name in the tables."
    )
    of_first = "(default: that of the first MODEL that records it)"
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a trained network, see below")
    parser.add_argument("--dataset", metavar="NAME", help=f"the data set {of_first}")
    parser.add_argument("--data-root", metavar="FOLDER", help="where the data is")
    parser.add_argument("--image-size", type=int, metavar="N", help=f"side to resize images to {of_first}")
    parser.add_argument("--norm", help=f"norm of the attacks {of_first}")
    parser.add_argument("--epsilon", type=command_line.radius, metavar="X", help=f"their radius: 8/255 {of_first}")
    parser.add_argument(
        "--examples", type=command_line.several, metavar="N", help="test images to judge on (default: all)"
    )
    parser.add_argument("--no-autoattack", action="store_true", help="leave AutoAttack out: quick, and less certain")
    output_help = f"where tables go (default: {DEFAULT_FOLDER})"
    parser.add_argument("--output", type=Path, default=DEFAULT_FOLDER, metavar="FOLDER", help=output_help)
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: cuda where there is any)")
    trust_help = "import the code of networks that saved files name as module:name: only for files that you trust"
    parser.add_argument("--trust-code", action="store_true", help=trust_help)
    parser.add_argument("--parts", type=Path, metavar="FILE", help="the file of your own parts, which is imported")


def read_options(parsed: argparse.Namespace) -> EvaluateOptions:
    """Return a parsed command line as options."""
    return command_line.read(EvaluateOptions, parsed)


def run(options: EvaluateOptions, console: Console) -> int:
    """Run the command and return its exit code."""
    from tune_cure.cli.steps import evaluate_run  # imports torch: not before the command line is known to be good

    return evaluate_run.run(options, console)
