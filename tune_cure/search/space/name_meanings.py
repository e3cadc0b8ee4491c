"""What the names in a search space mean, in a line each: for the reference and for the schema that editors read."""

import inspect
from collections.abc import Mapping
from typing import Any

from tune_cure.training.presets import Preset

MEANINGS = {  # of names that stand for no function with a description of its own
    "training.method": {"none": "no preset: every key that is not given has its default"},
    "data.dataset": {
        "digits": "1,797 handwritten digits of 1×8×8 that ship with scikit-learn; a fifth of them is the test set",
        "cifar10": "60,000 photographs of 3×32×32 in 10 classes; downloaded, or read from a folder",
        "cifar100": "the same in 100 classes",
        "svhn": "house numbers of 3×32×32 in 10 classes, 73,257 to train on",
        "tiny_imagenet": "110,000 photographs of 3×64×64 in 200 classes; its validation images are the test set",
        "image_folder": "your pictures: `train/CLASS/*.jpg` and, if there is one, `test/CLASS/*.jpg`",
    },
    "training.init": {
        "uniform": "a random point of the ball, clipped to [0, 1]",
        "zero": "the image",
        "previous": "the image plus the perturbation that the batch before has in its place",
        "noise": "the image plus uniform noise of `noise` × epsilon, not clipped; the result is, to [0, 1] alone",
        "clipped_noise": "the same, clipped to [0, 1] before its gradient is taken, as in the code of N-FGSM",
        "bernoulli": "the image plus or minus epsilon / 2 in each pixel, projected into the ball",
    },
    "training.guide": {
        "softmax": "squared distance of the probabilities, as in `regularizer: gat`",
        "nuclear": "nuclear norm of the differences of the logits, as in `regularizer: nuat`",
    },
    "training.norm": {"linf": "no pixel moves by more than epsilon", "l2": "the L2 length of all changes is bounded"},
    "training.penalty_statistics": {
        "running": "the running statistics: examples stay independent",
        "batch": "the batch's own, as the training step does",
    },
    "training.lambda_schedule": {
        "constant": "lambda in every epoch",
        "ramp": "from 0 in the first epoch in a line to lambda after nine tenths of the epochs, as in NuAT; "
        "with fewer than 10 epochs, lambda never reaches its full value",
        "late": "a quarter of lambda until 86 of 100 epochs, then all of it, as in GAT; "
        "with fewer than 8 epochs, it stays a quarter",
    },
    "training.averaging": {
        "none": "the weights themselves",
        "ema": "an exponential average over steps (`ema_decay`)",
        "swa": "the mean of the weights after each epoch from `swa_start` on",
    },
    "training.amp": {
        "auto": "fp16 on CUDA, off on the CPU",
        "bf16": "bfloat16",
        "fp16": "float16 with loss scaling",
        "tf32": "float32, with the factors of products rounded to TF32 on CUDA; as off on the CPU",
        "off": "float32, on CUDA too, where PyTorch by itself would round convolutions to TF32",
    },
    "search.scheduler": {
        "asha": "a trial passes a rung if it is in the best `1 / reduction_factor` of those that got there before it",
        "hyperband": "several of these with later first rungs, one of which stops nothing",
        "median": "a trial ends if its best is below the median of the others' means",
        "none": "every trial runs to its end",
    },
}
FAMILIES = {
    "timm": "a network of timm by its name there, without weights; an extra: `pip install 'tune-cure[timm]'`",
    "torchvision": "a classifier of torchvision by its name there, without weights",
    "medmnist": "a data set of MedMNIST, such as `medmnist:pathmnist`, or `medmnist:pathmnist_64` for pictures of "
    "64×64; the extra `medmnist` downloads it",
    "hf": "a data set of the Hugging Face Hub, such as `hf:OWNER/NAME`; the extra `hf` downloads it",
}
"""What stands before the colon in `family:NAME`."""
AS_OF = {  # names that are told elsewhere
    "evaluation.norm": "training.norm",
    "training.attack_statistics": "training.penalty_statistics",
}


def describe_name(key: str, choices: Mapping[str, Any] | tuple[str, ...], name: str) -> str:
    """Return what a name means as the value of a key, in Markdown; empty if nothing says it.

    Args:
        key: The path of the key, as in `training.attack`.
        choices: The names that the key may have; a part that a registry names is imported.
        name: One of them.
    """
    if meaning := MEANINGS.get(AS_OF.get(key, key), {}).get(name):
        return meaning
    part = None if isinstance(choices, tuple) else choices[name]
    if isinstance(part, Preset):
        return f"{part.title}: {part.source}"
    is_documented = inspect.isfunction(part) or inspect.isclass(part)
    line = (inspect.getdoc(part) or "").partition("\n")[0] if is_documented else ""
    line = line.removeprefix("Return ").removeprefix("Build ")
    return line[:1].upper() + line[1:]
