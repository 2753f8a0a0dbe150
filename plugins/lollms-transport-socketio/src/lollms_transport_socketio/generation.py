"""One `generate_text`: from its payload to its chunks and the one event that ends it."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from lollms_kernel.errors import (
    ContextOverflow,
    InvalidRequest,
    LollmsError,
    NotSupported,
    QueueFull,
    error_from_code,
)
from lollms_kernel.types import (
    Chunk,
    Failed,
    Finished,
    GenerateRequest,
    Info,
    Notice,
    Output,
    Progress,
    TextDelta,
    ThoughtDelta,
)

from .choosing import chosen_binding
from .conversation import without_oldest
from .failures import ClientGone, report
from .tokens import last_tokens
from .wire import CHUNK, GenerateText

if TYPE_CHECKING:
    from .selection import Selection
    from .session import Session

logger = logging.getLogger(__name__)

_USUAL: Mapping[str, str] = {"image": "tti", "video": "ttv", "audio": "tts"}
"""What a binding is made for, by the first modality of its card."""


class Generation:
    """Answers one prompt. After `end` nothing of it reaches the client any more."""

    def __init__(self, session: Session, asked: GenerateText, selection: Selection) -> None:
        self._session = session
        self._asked = asked
        self._selection = selection
        self._personality: str | None = None
        self._text: list[str] = []
        self._thoughts: list[str] = []
        self._notices: list[Notice] = []
        self._left_out = 0
        self._ended = False

    def end(self) -> bool:
        """Keep it from telling more; False if it has ended already."""
        before, self._ended = self._ended, True
        return not before

    async def run(self) -> None:
        """Answer, and tell the end. Being cancelled means that somebody else tells it."""
        try:
            with self._session.caller.acting():
                await self._answer()
        except QueueFull as error:
            await self._tell_busy(error)
        except LollmsError as error:
            await self._emit_last("generation_error", {"error": error.detail})
        except ClientGone:
            raise
        except Exception as error:  # whatever went wrong, a prompt gets its one end
            await self._emit_last("generation_error", {"error": report(error)})
        finally:
            text = "".join(self._text)
            if self._personality is not None and text.strip():
                await self._session.remember(self._asked.prompt, text)

    async def _answer(self) -> None:
        asked = self._asked
        kind = asked.generation_type or self._usual_type()
        if kind == "ttt" or asked.personality is not None:
            self._personality = self._selection.personality(self._session.kernel, asked.personality)
        request = GenerateRequest(
            id=secrets.token_hex(8),
            generation_type=kind,
            binding=self._selection.binding,
            model=self._selection.model,
            personality=self._personality,
            parameters=asked.all_parameters(),
            tenant=self._session.caller.tenant,
            source="socketio",
        )
        if self._personality is None:
            request = msgspec.structs.replace(request, raw_prompt=await self._cropped(asked.prompt))
        else:
            request = msgspec.structs.replace(
                request, messages=self._session.conversation.asking(await self._cropped(asked.prompt))
            )
        async with self._fitting(request) as chunks:
            async for chunk in chunks:
                await self._tell(chunk)

    def _usual_type(self) -> str:
        """What a prompt wants that does not say so: text, unless the chosen binding is made for something else."""
        if self._selection.binding is None:
            return "ttt"
        try:
            card = self._session.kernel.binding(self._selection.binding).card
        except LollmsError:
            return "ttt"  # the stream tells what is wrong with the binding
        return _USUAL.get(next(iter(card.supported_output_modalities), "text"), "ttt")

    async def _cropped(self, prompt: str) -> str:
        count = self._asked.n_crop
        if count is None or count < 0:
            return prompt
        if count == 0:
            raise InvalidRequest("`n_crop` is 0.", hint="It is the number of tokens to keep, or -1 for all.")
        binding = chosen_binding(self._session.kernel, self._selection)
        return await last_tokens(binding, self._selection.model, prompt, count)

    @asynccontextmanager
    async def _fitting(self, request: GenerateRequest) -> AsyncIterator[AsyncIterator[Chunk]]:
        """The kernel's stream; what does not fit into the model's context is left out from the front, and said."""
        entered = False
        while not entered:
            try:
                async with self._session.kernel.stream(request) as chunks:
                    entered = True
                    yield chunks
            except ContextOverflow as error:
                if entered:
                    raise
                request = await self._shorter(request, error)

    async def _shorter(self, request: GenerateRequest, overflow: ContextOverflow) -> GenerateRequest:
        """A smaller request for one that overflowed. Raises the overflow where nothing can be left out."""
        if request.raw_prompt is None:
            shorter = without_oldest(request.messages)
            if shorter == request.messages:
                raise overflow
            self._left_out += len(request.messages) - len(shorter)
            self._note_cut(f"The oldest {self._left_out} turns did not fit and were left out.")
            return msgspec.structs.replace(request, messages=shorter)
        binding = chosen_binding(self._session.kernel, self._selection)
        info = await binding.get_model_info(request.model)
        asked = request.parameters.get("max_tokens") or request.parameters.get("n_predict")
        room = (info.context_size or 0) - (asked if isinstance(asked, int) else self._answer_size())
        if room <= 0 or self._left_out:
            raise overflow
        try:
            prompt = await last_tokens(binding, request.model, request.raw_prompt, room)
        except NotSupported:
            raise overflow from None
        self._left_out = len(request.raw_prompt) - len(prompt)
        self._note_cut(f"Only the last {room} tokens of the prompt fit and were used.")
        return msgspec.structs.replace(request, raw_prompt=prompt)

    def _answer_size(self) -> int:
        return self._session.kernel.config.defaults.default_max_output_tokens

    def _note_cut(self, message: str) -> None:
        logger.info("prompt_cut: %s", message)
        self._notices = [Notice("prompt_cut", message)]

    async def _tell(self, chunk: Chunk) -> None:
        match chunk:
            case TextDelta(text=text) if text:
                self._text.append(text)
                await self._emit("text_chunk", {"chunk": text, "type": CHUNK})
            case Output(type="text", data=str(text)) if text:
                self._text.append(text)
                await self._emit("text_chunk", {"chunk": text, "type": CHUNK})
            case ThoughtDelta(text=text):
                self._thoughts.append(text)
            case Notice():
                self._notices.append(chunk)
            case Info(content=content):
                await self._emit("generation_info", {"content": content})
            case Progress():
                await self._emit("generation_info", {"content": chunk.as_info()})
            case Output(type=kind, data=data, mime_type=mime_type, metadata=metadata):
                told = {"type": kind, "data": data, "mime_type": mime_type, "metadata": metadata}
                await self._emit("generation_output", told)
            case Finished():
                await self._emit_last("text_generated", self._result())
            case Failed(code=code, message=message, hint=hint):
                raise error_from_code(code, message, hint=hint)

    def _result(self) -> dict[str, Any]:
        result: dict[str, Any] = {"text": "".join(self._text)}
        if self._thoughts:
            result["thoughts"] = "".join(self._thoughts)
        if self._notices:
            result["notices"] = [msgspec.to_builtins(notice) for notice in self._notices]
        return result

    async def _tell_busy(self, error: QueueFull) -> None:
        if self.end():
            await self._session.tell_busy(error)

    async def _emit(self, event: str, payload: dict[str, Any]) -> None:
        if not self._ended:
            await self._session.emit(event, payload)

    async def _emit_last(self, event: str, payload: dict[str, Any]) -> None:
        if self.end():
            await self._session.emit(event, payload)
