"""Which endpoint answers which path."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from . import (
    adapters,
    audio,
    chat,
    embeddings,
    images,
    infill,
    models,
    monitoring,
    native,
    openai_text,
    rerank,
    slots,
    tokens,
)
from .call import Call

Endpoint = Callable[[Call], Awaitable[None]]

ROUTES: dict[str, dict[str, Endpoint]] = {
    "/health": {"GET": monitoring.health},
    "/v1/health": {"GET": monitoring.health},
    "/metrics": {"GET": monitoring.metrics},
    "/props": {"GET": monitoring.props, "POST": monitoring.change_props},
    "/slots": {"GET": slots.list_slots},
    "/models": {"GET": models.list_models},
    "/v1/models": {"GET": models.list_models},
    "/completion": {"POST": native.completion},
    "/completions": {"POST": native.completion},
    "/v1/completions": {"POST": openai_text.completions},
    "/chat/completions": {"POST": chat.chat_completions},
    "/v1/chat/completions": {"POST": chat.chat_completions},
    "/infill": {"POST": infill.infill},
    "/tokenize": {"POST": tokens.tokenize},
    "/detokenize": {"POST": tokens.detokenize},
    "/apply-template": {"POST": tokens.apply_template},
    "/embedding": {"POST": embeddings.native_embeddings},
    "/embeddings": {"POST": embeddings.native_embeddings},
    "/v1/embeddings": {"POST": embeddings.openai_embeddings},
    "/rerank": {"POST": rerank.rerank},
    "/reranking": {"POST": rerank.rerank},
    "/v1/rerank": {"POST": rerank.rerank},
    "/v1/reranking": {"POST": rerank.rerank},
    "/lora-adapters": {"GET": adapters.list_adapters, "POST": adapters.set_adapters},
    "/v1/images/generations": {"POST": images.generations},
    "/v1/images/edits": {"POST": images.edits},
    "/v1/audio/speech": {"POST": audio.speech},
    "/v1/audio/transcriptions": {"POST": audio.transcriptions},
}

FOLDERS: dict[str, dict[str, Endpoint]] = {
    "/slots/": {"POST": slots.slot_action},
    "/v1/models/": {"GET": models.one_model},
}
"""Paths that go on with a name."""

OPEN = ("/health", "/v1/health")
"""What needs no key."""


def endpoint(method: str, path: str) -> Endpoint | None:
    """Who answers; a wrong verb is a page that does not exist, as llama-server has it."""
    found = ROUTES.get(path)
    if found is None:
        found = next((there for folder, there in FOLDERS.items() if path.startswith(folder)), {})
    return found.get("GET" if method == "HEAD" else method)
