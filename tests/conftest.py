"""For all tests."""

from __future__ import annotations

import signal

# Shells start background jobs with SIGINT ignored, and every program that these start inherits that: Ctrl-C would do
# nothing in the programs under test. A handler here gives them the default again.
signal.signal(signal.SIGINT, signal.default_int_handler)
