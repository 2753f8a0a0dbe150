"""The REST transport keeps the contract of transports on a live server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from lollms_kernel.testing import TransportContract
from lollms_kernel.testing.transport_contract import KEY, Reply


def order(prompt: str, binding: str | None, **fields: Any) -> dict[str, Any]:
    item = {"type": "text", "role": "user_prompt", "data": prompt}
    return {"input_data": [item], "binding_name": binding, **fields}


def headers(key: str | None) -> dict[str, str]:
    return {} if key is None else {"X-API-Key": key}


class TestRest(TransportContract):
    def ask(self, url: str, prompt: str, *, binding: str | None = None, key: str | None = KEY) -> Reply:
        path = f"{url}/api/v1/generate"
        answer = httpx.post(path, json=order(prompt, binding), headers=headers(key), timeout=30)
        if answer.status_code != 200:
            return Reply(error=answer.json()["detail"])
        return Reply(text=answer.json()["output"][0]["data"])

    @contextmanager
    def stream(
        self, url: str, prompt: str, *, binding: str | None = None, key: str | None = KEY
    ) -> Iterator[Iterator[str]]:
        body = order(prompt, binding, stream=True)
        path = f"{url}/api/v1/generate"
        with httpx.stream("POST", path, json=body, headers=headers(key), timeout=30) as answer:
            yield self._pieces(answer)

    @staticmethod
    def _pieces(answer: httpx.Response) -> Iterator[str]:
        for line in answer.iter_lines():
            if not line:
                continue
            chunk = json.loads(line.removeprefix("data: "))
            if chunk["type"] == "error":
                raise RuntimeError(chunk["content"])
            if chunk["type"] == "chunk":
                yield chunk["content"]
