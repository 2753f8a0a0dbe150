"""Three steps: answer the question, ask the model two related ones, and put all into one guide.

Each answer streams while it is made. The model is asked without its conditioning, as the embedded one was trained.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import Any

NEXT = (
    "How do I start the server?",
    "How do I stop the server?",
    "How do I add an API key?",
    "How do I change the port?",
    "How do I use my own model?",
    "How do I install a plugin?",
    "Where is the configuration?",
    "How do I stream an answer?",
    "How do I use a personality?",
    "How do I see the log?",
)
"""Questions that the embedded model was trained to answer."""

KINDRED = {
    "key": ("security", "secret", "password", "401", "403", "access"),
    "model": ("gguf", "llama", "download", "weights", "install"),
    "port": ("address", "network", "host", "listen"),
    "start": ("run", "serve", "begin", "first", "stop"),
    "stream": ("answer", "sse", "generate", "api", "call"),
    "personality": ("character", "prompt", "system"),
    "log": ("error", "wrong", "fail", "debug", "slow"),
    "configuration": ("config", "setting", "yaml", "file", "port"),
}
COUNT = 2


async def run_workflow(
    prompt: str, params: dict[str, Any], context: dict[str, Any]
) -> AsyncGenerator[dict[str, Any], None]:
    """Stream the guide."""
    return guide(prompt, params, context["binding"])


async def guide(prompt: str, params: dict[str, Any], binding: Any) -> AsyncGenerator[dict[str, Any], None]:
    """The answer, then the related questions with theirs, then the end with all of it."""
    settings = {key: value for key, value in params.items() if key != "system_message"}
    others = related(prompt)
    written: list[str] = []
    for number, question in enumerate([prompt, *others]):
        yield {"type": "info", "content": {"status": "step", "step": number + 1, "total": len(others) + 1}}
        title = "" if number == 0 else f"\n\n## {question}\n\n"
        if title:
            written.append(title)
            yield {"type": "chunk", "content": title}
        async for chunk in binding.generate_stream(question, settings):
            if chunk["type"] == "chunk":
                written.append(chunk["content"] or "")
                yield chunk
    facts = {"steps": len(others) + 1, "questions": [prompt, *others]}
    yield {"type": "final", "content": [{"type": "text", "data": "".join(written), "metadata": facts}]}


def related(prompt: str) -> list[str]:
    """The questions that have most to do with the prompt, without the prompt itself."""
    words = set(re.findall(r"[a-z0-9]+", prompt.lower()))
    for topic, kin in KINDRED.items():
        if words & {topic, f"{topic}s", *kin}:
            words |= {topic, *kin}
    asked = prompt.strip().lower().rstrip("?")
    candidates = [question for question in NEXT if question.lower().rstrip("?") != asked]
    return sorted(candidates, key=lambda question: -len(words & set(_content_words(question))))[:COUNT]


def _content_words(question: str) -> list[str]:
    common = {"how", "do", "i", "the", "a", "an", "is", "where", "my", "own", "see", "use", "add", "change"}
    return [word for word in re.findall(r"[a-z0-9]+", question.lower()) if word not in common]
