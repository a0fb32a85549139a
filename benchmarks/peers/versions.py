"""The versions of what is compared in this environment."""

import json
from importlib.metadata import distributions

PEERS = ("flowjax", "distrax", "bijx", "zuko", "nflows")
held = {each.name.lower(): each.version for each in distributions()}
found = {name: held[name] for name in PEERS if name in held}
found |= {name: held[name] for name in ("jax", "torch") if name in held and (name == "torch" or "zuko" not in found)}
print(json.dumps(found))
