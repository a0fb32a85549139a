"""How the examples draw: the library's own style, which reads on white pages and on dark ones, and what it has no word for."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap

from flows.results.pictures.axes import colours

plt.style.use("flows.results.pictures.flows")
BLUE, ORANGE, GREEN = colours()  # of rows, of what a model makes of them, and of what is neither
GREY = "#7a7a7a"  # of text and lines
LIGHTNESS, CHROMA = 0.67, 0.16  # of the wheel


def density_map():
    """Viridis, which eyes of all kinds read, but that its lowest colours fade into the page."""
    shades = matplotlib.colormaps["viridis"](np.linspace(0.2, 0.95, 256))
    shades[:100, 3] = np.linspace(0, 1, 100)
    return ListedColormap(shades, "density").with_extremes(bad=(0, 0, 0, 0))


DENSITY = density_map()


def wheel(angle):
    """Of a colour wheel that is equally light all around: OKLCH, in sRGB. Ottosson, "A perceptual color space for image
    processing", 2020."""
    a, b = CHROMA * np.cos(angle), CHROMA * np.sin(angle)
    lms = [LIGHTNESS + u * a + v * b for u, v in ((0.3963378, 0.2158038), (-0.1055613, -0.0638542), (-0.0894842, -1.2914855))]
    to_rgb = np.array(
        [[4.0767417, -3.3077116, 0.2309699], [-1.2684380, 2.6097574, -0.3413194], [-0.0041961, -0.7034186, 1.7076147]]
    )
    linear = np.clip(to_rgb @ np.power(lms, 3), 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055).T
