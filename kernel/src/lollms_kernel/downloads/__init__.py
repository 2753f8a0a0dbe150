"""Models from a hub: a queue of downloads that resumes, verifies and survives whatever happens to the process.

`Downloads` is the service that the server, the command line and protocols share; `names` says how people write what
they want. What is complete lies in the folder of models under the name that requests use.
"""

from __future__ import annotations

from ..quantization import quantization_of
from .hub import Hub, HubFile, HubModel
from .names import Wanted, check_file, check_repo, parse_wanted
from .records import Download
from .service import Downloads, Pulled
from .settings import downloads_of

__all__ = [
    "Download",
    "Downloads",
    "Hub",
    "HubFile",
    "HubModel",
    "Pulled",
    "Wanted",
    "check_file",
    "check_repo",
    "downloads_of",
    "parse_wanted",
    "quantization_of",
]
