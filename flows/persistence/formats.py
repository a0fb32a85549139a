"""How older files are read: they load for good, with the densities that they had.

The format is a number in the header of a file. It increases when an older reader would misread the file.

1. An engine that had only its conditioner's params stored these directly, not in a dict. A model's `scan=None` meant a loop
   beyond 4 layers for affine models, beyond 10 for the others. Three splines had shorter names.
2. The params of an engine are a dict of the same keys, whatever its options. `scan=None` meant what it did in format 1.
3. `scan=None` means a loop beyond 3 layers for models that are not affine, but for UMNN. `NSF` had linear maps in between
   unless it was `plain`, and no argument that says so.
4. `NSF(linear=)` says whether it has. Networks of `NSF`, `MAF` and `RealNVP` saw their inputs as they are. Metadata was in the
   header.
5. `squash=` says how far out these models' networks see, `min_bin=` and `min_slope=` how narrow and flat the splines of `NSF`
   get (1e-3 before). A layer's `squash=c` was what ("tanh", c) is now. Text is a tensor of bytes, beside the history, the
   columns and the scores of a fit. A circular spline was taken for a map of the line.
6. `CircularRationalQuadratic(line=)` says for what it is taken: networks see angles as cos and sin. Early ones have
   `prior=None` for the standard normal, `levels=` for the scales of images, and no `squash=` of `GlowImage`, which was None.

An argument that a constructor gained later is missing in older files, and its default holds. Where that default changes how
the same call is computed, `as_then` has to fill in the old behaviour.
"""

from typing import Any

import jax

from flows.core import Params

FORMAT, TEXTS = 6, 5  # the format that is written, and the first with text in tensors
SQUASHED = ("NSF", "MAF", "RealNVP")
IMAGES = ("GlowImage", "NSFImage", "RealNVPImage")
ENGINES_THAT_SQUASH = ("Coupling", "Autoregressive", "InverseAutoregressive")
ENGINES = ({"conditioner", "fixed", "transformer", "unconditional"}, {"conditioner", "fixed", "transformer"})
RENAMED = {f"transformers.{name}": f"transformers.{name}Spline" for name in ("Linear", "Quadratic", "Cubic")}
UNROLLED = dict.fromkeys(("NICE", "RealNVP", "Glow", "MAF", "IAF"), 4) | dict.fromkeys(
    ("NSF", "NAF", "BNAF", "UMNN", "SOS", "GaussianizationFlow"), 10
)


def as_then(description: Any, written: int) -> Any:
    """A constructor in JSON, with the arguments that make it compute what it did when it was written."""
    if isinstance(description, list):
        return [as_then(each, written) for each in description]
    if not isinstance(description, dict):
        return description
    description = {key: as_then(each, written) for key, each in description.items()}
    name, arguments = description.get("constructor"), description.get("arguments")
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return description
    if name == "Flow" and arguments.get("prior", "") is None:  # what the standard normal was written as
        arguments = {key: each for key, each in arguments.items() if key != "prior"}
    if name == "GlowImage":  # whose networks saw their inputs as they are
        arguments = {"squash": None, **arguments}
    if name in IMAGES and "levels" in arguments:
        arguments = {"num_scales" if key == "levels" else key: each for key, each in arguments.items()}
    if written < 6 and name == "transformers.CircularRationalQuadratic":
        arguments = {**arguments, "line": True}
    if written < 5 and name in SQUASHED:
        arguments = {"squash": None, **arguments}
    if written < 5 and name == "NSF" and arguments.get("spline") == "rational_quadratic":
        arguments = {"min_bin": 1e-3, "min_slope": 1e-3, **arguments}
    if written < 5 and name in ENGINES_THAT_SQUASH and arguments.get("squash") is not None:
        arguments = {**arguments, "squash": ["tanh", arguments["squash"]]}
    if written < 4 and name == "NSF" and "plain" in arguments:
        arguments = {**arguments, "linear": not arguments["plain"]}
    if written < 3 and name in UNROLLED and arguments.get("scan", False) is None:
        arguments = {**arguments, "scan": arguments["num_layers"] > UNROLLED[name]}
    return {"constructor": RENAMED.get(name, name) if written == 1 else name, "arguments": arguments}


def layout_then(params: Params, written: int) -> Params:
    """Params of today in the layout of a format: the same leaves in the same order, under the names that they had."""
    if written > 1:
        return params
    if type(params) is dict:
        rest = {key: each for key, each in params.items() if key != "conditioner"}
        if set(params) in ENGINES and not jax.tree.leaves(rest):
            return layout_then(params["conditioner"], written)
        return {key: layout_then(each, written) for key, each in params.items()}
    if type(params) in (list, tuple):
        return type(params)(layout_then(each, written) for each in params)
    return params
