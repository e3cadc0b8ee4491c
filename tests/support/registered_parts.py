"""Tests that register parts, as a page's code does, leave the registries as they were."""

import importlib

import pytest

from tune_cure.cli import parts


def forget_afterwards(patch: pytest.MonkeyPatch) -> None:
    """Make the end of `patch` forget each part that is registered from now on."""
    patch.setattr(parts, "_registered", dict(parts._registered))
    for registry in parts.REGISTRIES.values():
        module, _, name = registry.partition(":")
        owner = getattr(importlib.import_module(module), name)
        patch.setattr(owner, "_parts", dict(owner._parts))
