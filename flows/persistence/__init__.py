"""Models in files: `models.py` says what is written, `container.py` how bytes stay whole."""

from flows.persistence.models import describe, save

__all__ = ["describe", "save"]
