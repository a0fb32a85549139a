"""Files: `models.py` says what a file of a model holds, and `container.py` how its bytes stay whole; `programs.py` keeps
compiled programs for the next process.
"""

from flows.persistence.models import describe, save

__all__ = ["describe", "save"]
