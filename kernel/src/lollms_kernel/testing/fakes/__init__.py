"""Local servers that speak the wire protocols of real services, faults included: see docs/testing-fakes.md.

They are for tests of bindings with the vendor's own client library: real sockets, no key, no network.
"""

from __future__ import annotations

from .faults import Fault, dropped, garbage, refusal, silence, slow, stalled
from .server import FakeServer, Received, Reply

__all__ = [
    "FakeServer",
    "Fault",
    "Received",
    "Reply",
    "dropped",
    "garbage",
    "refusal",
    "silence",
    "slow",
    "stalled",
]
