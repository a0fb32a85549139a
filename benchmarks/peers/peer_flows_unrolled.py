"""The workloads in this library, layer after layer."""

from functools import partial

import peer_flows

build = partial(peer_flows.build, scan=False)
