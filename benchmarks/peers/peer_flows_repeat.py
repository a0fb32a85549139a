"""The workloads in this library, each as one loop over its layers."""

from functools import partial

import peer_flows

build = partial(peer_flows.build, scan=True)
