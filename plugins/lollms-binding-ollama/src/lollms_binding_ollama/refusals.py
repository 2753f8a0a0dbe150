"""What Ollama refuses, as errors that say the cure. Its texts are looked at, never passed on."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lollms_kernel.errors import (
    ContextOverflow,
    GenerationFailed,
    InvalidRequest,
    LollmsError,
    ModelLoadFailed,
    ModelNotFound,
    NotSupported,
    UnsupportedInput,
)
from lollms_kernel.upstream import Service

_MEMORY = re.compile(r"system memory|out of memory|cudaMalloc|unable to allocate|insufficient", re.IGNORECASE)
_CONTEXT = re.compile(r"(exceed|too long|larger than).*context|context.*(exceed|too long)", re.IGNORECASE)
_LOADING = re.compile(r"unable to load model|error loading model|llama runner process has terminated", re.I)


class Refused(Exception):
    """An answer other than 2xx."""

    def __init__(self, status: int, headers: Mapping[str, str], text: str, model: str | None) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.headers = headers
        self.text = text
        self.model = model


def explain(service: Service, error: Exception) -> LollmsError | None:
    """The error for what the `ollama` library raises; None for what is not its own."""
    if isinstance(error, Refused):
        return _meaning(service, error.text, error.model) or service.refused(
            error.status, error.headers, error.model
        )
    if type(error) is ConnectionError:  # the library's own words for a refused connection
        return service.unreachable()
    if type(error).__name__ == "ResponseError":  # a line `{"error": …}` in a stream that had begun
        return _meaning(service, str(getattr(error, "error", "")), None) or GenerationFailed(
            f"{service} failed while it answered.", hint="Its log says why; try again."
        )
    return None


def _meaning(service: Service, text: str, model: str | None) -> LollmsError | None:
    named = f"'{model}'" if model else "The model"
    if "not found" in text and model:
        return missing(service, model)
    if "does not support tools" in text:
        return UnsupportedInput(f"{named} cannot call functions.", hint="Choose a model with tools.")
    if "does not support thinking" in text:
        return InvalidRequest(f"{named} cannot think.", hint="Leave the parameter `think` out.")
    if "does not support embed" in text:
        return NotSupported(f"{named} makes no embeddings.", hint="Choose an embedding model.")
    if re.search(r"does not support (chat|generate|completion)", text):
        return NotSupported(f"{named} does not generate text.", hint="It may be for embeddings only.")
    if _CONTEXT.search(text):
        return ContextOverflow(
            f"The prompt does not fit into the context that {service} gives to {named}.",
            hint="Send less, or raise `num_ctx` of the instance (or the parameter `context_size`).",
        )
    if _MEMORY.search(text):
        return ModelLoadFailed(
            f"{service} has not enough memory for {named}.",
            hint="Choose a smaller model or a smaller `num_ctx`, or unload others (`lollms ollama ps` lists them).",
        )
    if _LOADING.search(text):
        return ModelLoadFailed(f"{service} could not load {named}.", hint="Its log says why.")
    return None


def missing(service: Service, model: str) -> ModelNotFound:
    """A model that is not there, and how to get it."""
    return ModelNotFound(
        f"{service} has no model '{model}'.",
        hint=f"`lollms ollama pull {model}` fetches it from its library.",
    )
