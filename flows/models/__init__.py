"""Published flows, as short compositions of the library's layers, which `flows/__init__.py` lists; settings are in `preset`."""

from flows.models.presets import Preset, preset

__all__ = ["Preset", "preset"]
