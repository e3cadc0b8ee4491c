"""A search fitted to its data: what can be decided only once the images are at hand."""

from tune_cure.cli.search import SearchOptions
from tune_cure.data import folders, splits as splits_module
from tune_cure.data.splits import Splits
from tune_cure.search.space.config import SearchSpec
from tune_cure.training.trainer import check_network
from tune_cure.utils.environment import require


def load_data(spec: SearchSpec, options: SearchOptions) -> tuple[SearchSpec, Splits]:
    """Return the search as `fit_to_data` does, and its images.

    Raises:
        DataError: The data is not there and may not, or cannot, be downloaded.
    """
    splits = splits_module.load(spec.data, download=may_download(spec, options))
    return fit_to_data(spec, splits), splits


def may_download(spec: SearchSpec, options: SearchOptions) -> bool:
    """Return whether the data may be downloaded: into the default folder, or into one that the user has named.

    A YAML file that somebody sent must not choose where files are written.
    """
    return bool(options.data_root) or folders.is_default(spec.data.root)


def fit_to_data(spec: SearchSpec, splits: Splits) -> SearchSpec:
    """Return the search with the number of validation images, which depends on the data where it is a share.

    Raises:
        SpecError: An attack that is to judge cannot attack networks for this data or norm.
        PartError: The network cannot classify the images.
        MissingPackageError: The package is missing by which the winner is to be chosen.
    """
    if spec.rescore.choose == "posterior":
        require("sklearn", "rescore.choose: posterior")
    spec.check_attacks(splits.num_classes)
    check_network(spec.model, splits)
    return spec.model_copy(update={"data": splits_module.with_validation(spec.data, splits)})
