"""The OpenAI side keeps every promise of a transport, asked through OpenAI's own library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import openai

from lollms_kernel.testing import TransportContract
from lollms_kernel.testing.transport_contract import KEY, LIMIT, Reply


@contextmanager
def client_of(url: str, key: str | None) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key or "-", timeout=LIMIT, max_retries=0) as client:
        yield client


class TestOpenAI(TransportContract):
    def ask(self, url: str, prompt: str, *, binding: str | None = None, key: str | None = KEY) -> Reply:
        with client_of(url, key) as client:
            try:
                answer = client.chat.completions.create(
                    model=binding or "default", messages=[{"role": "user", "content": prompt}]
                )
            except openai.APIStatusError as error:
                return Reply(error=str(error))
            return Reply(answer.choices[0].message.content or "")

    @contextmanager
    def stream(
        self, url: str, prompt: str, *, binding: str | None = None, key: str | None = KEY
    ) -> Iterator[Iterator[str]]:
        with (
            client_of(url, key) as client,
            client.chat.completions.create(
                model=binding or "default", messages=[{"role": "user", "content": prompt}], stream=True
            ) as stream,
        ):
            yield self._pieces(stream)

    def _pieces(self, stream: openai.Stream[openai.types.chat.ChatCompletionChunk]) -> Iterator[str]:
        try:
            for chunk in stream:
                if chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content
        except openai.APIError as error:
            raise RuntimeError(str(error)) from error
