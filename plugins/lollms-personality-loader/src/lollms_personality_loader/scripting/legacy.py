"""Runs a `Processor` of the desktop program: synchronous code in a thread, its calls carried to the server.

The program could replace what its message shows; a stream cannot. So text that is only ever added streams, and a
message that was replaced is sent when the script is done with it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from types import ModuleType
from typing import Any

from lollms_kernel.sandbox import Peer

from .context import BindingProxy, text_of
from .order import Order

_DONE = object()
MAX_WAITING = 256
"""Items that wait to be sent; the script pauses with more."""

_current: Session | None = None


def current() -> Session:
    """The session of this process; the modules in `compat/lollms` work through it."""
    if _current is None:
        raise RuntimeError("there is no session: this runs in the process of a script only")
    return _current


class Session:
    """What a legacy script can do, called from its thread."""

    def __init__(self, order: Order, peer: Peer) -> None:
        self.order = order
        self.binding = BindingProxy(peer, order.binding, order.model, default=True)
        self._loop = asyncio.get_running_loop()
        self.items: asyncio.Queue[Any] = asyncio.Queue(MAX_WAITING)
        self._content = ""
        self._sent = ""

    # --- the message that is being written -------------------------------------------------------------------

    def add(self, text: str) -> None:
        """Add to the message."""
        self._content += text
        self._show()

    def replace(self, text: str) -> None:
        """Put a text in the place of the message."""
        self._content = text
        if text.startswith(self._sent) and self._sent:
            self._show()

    def finish_message(self) -> None:
        """Send what of the message was not sent; the next text begins another one."""
        if not self._content.startswith(self._sent):
            self._sent = ""
            self.emit({"type": "chunk", "content": "\n\n"})
        self._show()
        self._content = self._sent = ""

    def begin_message(self, text: str) -> None:
        """Another message after this one."""
        if self._content or self._sent:
            self.finish_message()
            self.emit({"type": "chunk", "content": "\n\n"})
        self._content = text

    def _show(self) -> None:
        if self._content.startswith(self._sent):
            new = self._content[len(self._sent) :]
            if new:
                self.emit({"type": "chunk", "content": new})
            self._sent = self._content

    # --- calls to the server ---------------------------------------------------------------------------------

    def emit(self, item: Any) -> None:
        """Send an item; waits while too many wait."""
        self.wait(self.items.put(item))

    def info(self, status: str, text: str) -> None:
        """Tell the client of something that is no part of the answer."""
        self.emit({"type": "info", "content": {"status": status, "message": str(text)}})

    def generate(self, prompt: str, parameters: dict[str, Any], show: bool = False) -> str:
        """The model's answer to a prompt; with `show` it is part of the message while it comes."""
        system = parameters.pop("system_message", self.order.params.get("system_message"))
        answer: str = self.wait(self._generate(prompt, {**parameters, "system_message": system}, show))
        return answer

    async def _generate(self, prompt: str, parameters: dict[str, Any], show: bool) -> str:
        if not show:
            return text_of(await self.binding.generate(prompt, parameters))
        parts: list[str] = []
        async with aclosing(self.binding.generate_stream(prompt, parameters)) as chunks:
            async for chunk in chunks:
                if chunk["type"] == "chunk" and chunk["content"]:
                    parts.append(chunk["content"])
                    await self.items.put(chunk)
                    self._content += chunk["content"]
                    self._sent += chunk["content"]
        return "".join(parts)

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        """What a coroutine of the event loop gives, for the script's thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    # --- the run ---------------------------------------------------------------------------------------------

    def run(self, module: ModuleType) -> None:
        """Make the processor and let it work. Its `install` is never called."""
        from lollms.personality import AIPersonality  # type: ignore[import-not-found]  # in `compat`

        personality = AIPersonality(self)
        processor = module.Processor(personality, callback=self.callback)
        result = _call_workflow(processor, self)
        if isinstance(result, str) and result and not self._content:
            self.add(result)
        self.finish_message()

    def callback(self, text: Any = "", kind: Any = 0, *_: Any, **__: Any) -> bool:
        """What scripts report by: text and a MSG_TYPE. The answer means: go on."""
        number = getattr(kind, "value", kind)
        if number == 0:
            self.add(str(text))
        elif number in (1, 2):
            self.replace(str(text))
        elif isinstance(text, str):
            self.info("step", text)
        return True


def _call_workflow(processor: Any, session: Session) -> Any:
    """`run_workflow` was called in three ways over the years; the names of its parameters tell which."""
    from lollms.client_session import Client  # type: ignore[import-not-found]  # in `compat`
    from lollms.prompting import LollmsContextDetails  # type: ignore[import-not-found]  # in `compat`

    order = session.order
    details = LollmsContextDetails(session)
    known = {
        "prompt": order.prompt,
        "previous_discussion_text": details.discussion_text,
        "callback": session.callback,
        "context_details": details,
        "context": details,
        "client": Client(),
    }
    parameters = inspect.signature(processor.run_workflow).parameters.values()
    given = [
        known.get(parameter.name) for parameter in parameters if parameter.kind < parameter.VAR_POSITIONAL
    ]
    return processor.run_workflow(*given)


async def run_legacy(module: ModuleType, order: Order, peer: Peer) -> AsyncGenerator[Any, None]:
    """The items that the processor gives."""
    global _current
    session = _current = Session(order, peer)

    async def work() -> None:
        try:
            await asyncio.to_thread(session.run, module)
        finally:
            await session.items.put(_DONE)

    task = asyncio.create_task(work())
    while (item := await session.items.get()) is not _DONE:
        yield item
    await task
