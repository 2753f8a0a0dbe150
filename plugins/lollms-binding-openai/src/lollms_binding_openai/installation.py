"""What is installed of OpenAI's client library, found out without importing it."""

from __future__ import annotations

import importlib.util

from lollms_kernel.errors import BindingUnavailable, LollmsError


def missing_library() -> LollmsError | None:
    """Why the service cannot be asked from here, with the cure; None if the library is installed."""
    if importlib.util.find_spec("openai") is not None:
        return None
    return BindingUnavailable(
        "The library openai is not installed.",
        hint="Run `pip install 'openai>=3,<4'` in the server's environment.",
    )
