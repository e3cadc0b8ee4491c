"""Tests that register parts, as a page's code does, leave the registries as they were."""

import importlib
import sys

import pytest

from tune_cure.search.space import registration


def forget_afterwards(patch: pytest.MonkeyPatch) -> None:
    """Make the end of `patch` forget each part that is registered from now on."""
    patch.setattr(registration, "_registered", dict(registration._registered))
    patch.setattr(registration, "_files", dict(registration._files))
    patch.setattr(sys, "path", list(sys.path))
    for registry in registration.REGISTRIES.values():
        module, _, name = registry.partition(":")
        owner = getattr(importlib.import_module(module), name)
        patch.setattr(owner, "_parts", dict(owner._parts))
        patch.setattr(owner, "_imported", dict(owner._imported))
        patch.setattr(owner, "_expected", set(owner._expected))
