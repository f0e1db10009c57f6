"""What the planner knows: models, GPUs, instances, engines and prices, each number with its source and date."""

from __future__ import annotations

from mistral_on_l4.planner.catalogue.loading import CatalogueError, load_catalogue
from mistral_on_l4.planner.catalogue.schema import (
    Architecture,
    Calibration,
    Catalogue,
    Engine,
    Gpu,
    Instance,
    Model,
    Quantization,
    Variant,
)

__all__ = [
    "Architecture",
    "Calibration",
    "Catalogue",
    "CatalogueError",
    "Engine",
    "Gpu",
    "Instance",
    "Model",
    "Quantization",
    "Variant",
    "load_catalogue",
]
