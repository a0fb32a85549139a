"""Models in files: `models.py` says what is written, `container.py` how bytes stay whole."""

from flows.persistence.models import describe, load, save

__all__ = ["describe", "load", "save"]
