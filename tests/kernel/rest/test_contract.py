"""The REST protocol keeps every promise of a transport, whole and streamed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import msgspec

from lollms_kernel.testing import TransportContract
from lollms_kernel.testing.transport_contract import KEY, LIMIT, Reply


def body(prompt: str, binding: str | None, stream: bool) -> dict[str, Any]:
    item = {"type": "text", "role": "user_prompt", "data": prompt}
    return {"input_data": [item], "binding_name": binding, "stream": stream}


def headers(key: str | None) -> dict[str, str]:
    return {} if key is None else {"X-API-Key": key}


class TestRest(TransportContract):
    def ask(self, url: str, prompt: str, *, binding: str | None = None, key: str | None = KEY) -> Reply:
        response = httpx.post(
            f"{url}/api/v1/generate", json=body(prompt, binding, False), headers=headers(key), timeout=LIMIT
        )
        if response.status_code != 200:
            return Reply(error=str(response.json()["detail"]))
        return Reply(response.json()["output"][0]["data"])

    @contextmanager
    def stream(
        self, url: str, prompt: str, *, binding: str | None = None, key: str | None = KEY
    ) -> Iterator[Iterator[str]]:
        request = body(prompt, binding, True)
        with httpx.stream(
            "POST", f"{url}/api/v1/generate", json=request, headers=headers(key), timeout=LIMIT
        ) as response:
            yield self._pieces(response)

    def _pieces(self, response: httpx.Response) -> Iterator[str]:
        if response.status_code != 200:
            response.read()
            raise RuntimeError(response.json()["detail"])
        for line in response.iter_lines():
            if not line:
                continue
            event = msgspec.json.decode(line.removeprefix("data: "))
            if event["type"] == "error":
                raise RuntimeError(event["content"])
            if event["type"] == "chunk" and event["content"]:
                yield event["content"]
