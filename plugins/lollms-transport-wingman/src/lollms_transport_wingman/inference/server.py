"""What all requests of the inference side share."""

from __future__ import annotations

import importlib.metadata
import time
from typing import TYPE_CHECKING

from lollms_kernel.contracts import Kernel
from lollms_kernel.errors import LollmsError

from ..active import Active
from ..settings import WingmanSettings
from .activity import Activity
from .places import Places
from .prometheus import Scrapes

if TYPE_CHECKING:
    from .call import Call


class Inference:
    """Kernel, settings, and what is counted."""

    def __init__(self, kernel: Kernel, settings: WingmanSettings) -> None:
        self.kernel = kernel
        self.settings = settings
        self.active = Active()
        """The model that the control side has started."""
        self.activity = Activity()
        self.scrapes = Scrapes()
        self.places = Places()
        self.started = time.time()
        self.build_info = f"lollms-{importlib.metadata.version('lollms-kernel')}"
        """What answers: `build_info` and `system_fingerprint`."""
        self.single_model = False
        """Whether the default instance answers whatever model a request names."""
        self.loading: LollmsError | None = None
        """What everything is answered with while the model of a llama-server is loaded, and when that failed."""

    @property
    def alias(self) -> str | None:
        """What the model of the inference port is called in answers; None: by its own name."""
        return self.settings.alias if self.active.instance is None else self.active.alias

    def default_instance(self, kind: str, call: Call) -> str | None:
        """The instance that serves requests which name none."""
        if kind == "ttt" and not call.main_port:
            named = self.active.instance or self.settings.binding
            if named is not None:
                return named
        return self.kernel.default_binding(kind)
