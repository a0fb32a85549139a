"""Published architectures, each a short composition."""

from flows.models.tabular import MAF, NSF, RealNVP

__all__ = ["MAF", "NSF", "RealNVP"]
