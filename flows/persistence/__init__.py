"""Models in files: `models.py` says what is written, `container.py` how bytes stay whole."""

from flows.persistence.models import TEXT, Loaded, PathLike, describe, load_model, save, save_model

__all__ = ["TEXT", "Loaded", "PathLike", "describe", "load_model", "save", "save_model"]
