"""The model that came with a distribution: where no model is named, or its name is."""

from __future__ import annotations

import os

from jackfield.config.paths import given_path
from jackfield.config.settings import Settings
from jackfield.contracts.bundled_models import BundledModel
from jackfield.registry import Registry

KIND = "bundled_models"
DEFAULT_MODEL = "jackfield-mini"
"""What is served where nobody says what."""


def bundled_model(settings: Settings, registry: Registry) -> BundledModel | None:
    """The plugin that ``--model`` names, None where it names a directory or is for the hub.

    A name with a colon and no slash can be neither, so it is a class path.
    """
    name = settings.model
    if name is None:
        name = DEFAULT_MODEL
    elif os.path.exists(given_path(name)):
        return None
    elif (":" not in name or "/" in name) and not registry.offers(KIND, name):
        return None
    model: BundledModel = registry.make(KIND, name)
    return model
