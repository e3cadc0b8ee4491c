"""The project's own parts are named in light modules: what is named must be there, and as it is declared."""

import pytest

from tune_cure.attacks.registry import ATTACKS
from tune_cure.gradients.batch_norm_mode import STATISTICS
from tune_cure.gradients.logit_distances import DISTANCES
from tune_cure.gradients.registry import DISTANCE_NAMES, STATISTICS_NAMES
from tune_cure.models.networks import ARCHITECTURES
from tune_cure.models.registry import MODELS
from tune_cure.regularizers.registry import REGULARIZERS
from tune_cure.search.space.registration import REGISTRIES, find_registry
from tune_cure.utils.hyperparameters import declared_hyperparameters
from tune_cure.utils.registry import Registry


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_name_stands_for_a_part(kind: str) -> None:
    registry = find_registry(kind)
    assert registry.kind == kind
    for name in registry:
        assert registry.accepts(registry.resolve(name)), name


@pytest.mark.parametrize("registry", [ATTACKS, REGULARIZERS])
def test_a_part_of_the_project_declares_all_that_it_takes_without_its_formula(registry: Registry[type]) -> None:
    for name in filter(registry.is_builtin, registry):
        part, declaration = registry[name], registry.declaration(name)
        assert issubclass(part, declaration)
        assert part is not declaration
        assert declared_hyperparameters(part) == declared_hyperparameters(declaration)
        for answer in ("needs_attack", "uses_two_sided", "uses_ball", "points", "inactive", "keeps_start"):
            assert getattr(part, answer, None) is getattr(declaration, answer, None), (name, answer)


def test_names_without_a_registry_are_the_keys_of_their_dictionaries() -> None:
    assert list(STATISTICS) == list(STATISTICS_NAMES)
    assert list(DISTANCES) == list(DISTANCE_NAMES)
    assert {name: MODELS[name] for name in ARCHITECTURES} == ARCHITECTURES
    assert {name for name in MODELS if MODELS.is_builtin(name)} == set(ARCHITECTURES)
