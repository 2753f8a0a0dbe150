"""A server without Socket.IO clients does not pay for the library: it is imported when the first one comes."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import lollms_transport_socketio
import lollms_transport_socketio.transport
import lollms_transport_socketio.settings
print(*{name.partition(".")[0] for name in sys.modules} & {"socketio", "engineio", "redis", "aiohttp", "requests"})
"""


def test_importing_the_transport_does_not_import_the_library() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=120
    )

    assert done.stdout.split() == []
