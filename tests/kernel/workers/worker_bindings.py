"""Bindings that the tests run in workers; what they do is told by each request."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, ClassVar

from lollms_kernel import errors
from lollms_kernel.contracts import Binding, BindingCard, BindingContext, InstanceSettings, Secret
from lollms_kernel.types import (
    Chunk,
    Finished,
    GenerateRequest,
    GpuNeed,
    Media,
    ModelInfo,
    Output,
    TextDelta,
    Usage,
)

FOREVER = 3600.0


class ScriptedSettings(InstanceSettings, frozen=True, kw_only=True):
    api_key: Secret = ""
    folder: Path = Path()
    open_error: str | None = None
    open_delay: float = 0.0
    starts_file: Path | None = None
    """Counts the starts: one byte each."""
    crash_at_starts: tuple[int, ...] = ()


class ScriptedBinding(Binding):
    """Does in `generate` what the method named by the prompt does."""

    type_name: ClassVar[str] = "scripted_binding"
    card: ClassVar[BindingCard] = BindingCard(
        display_name="Scripted", version="1.0", author="tests", description="For tests."
    )
    Settings: ClassVar[type[InstanceSettings]] = ScriptedSettings
    settings: ScriptedSettings

    def __init__(self, settings: ScriptedSettings, context: BindingContext) -> None:
        super().__init__(settings, context)
        self._counts: Counter[str] = Counter()
        self._meeting: dict[str, asyncio.Event] = {}

    @property
    def parallel(self) -> int | None:
        return 3

    def gpu_need(self, request: GenerateRequest) -> GpuNeed:
        return GpuNeed(required=True, share="scripted")

    def supports_role(self, media_type: str, role: str) -> bool:
        return role != "forbidden"

    async def open(self) -> None:
        if self.settings.starts_file is not None:
            with self.settings.starts_file.open("ab") as file:
                file.write(b".")
            if self.settings.starts_file.stat().st_size in self.settings.crash_at_starts:
                os.kill(os.getpid(), signal.SIGSEGV)
        await asyncio.sleep(self.settings.open_delay)
        if self.settings.open_error is not None:
            raise errors.ModelLoadFailed(self.settings.open_error, hint="Say something else.")

    async def list_models(self) -> list[ModelInfo]:
        return [ModelInfo(name="m", details=self._facts())]

    async def load(self, model: str) -> None:
        await self.get_model_info(model)

    def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        script: Callable[[GenerateRequest], AsyncGenerator[Chunk, None]] = getattr(self, f"_{request.prompt}")
        return self._counted(script(request))

    async def _counted(self, chunks: AsyncGenerator[Chunk, None]) -> AsyncGenerator[Chunk, None]:
        self._counts["running"] += 1
        try:
            async for chunk in chunks:
                self._counts["made"] += 1
                yield chunk
        finally:
            await chunks.aclose()
            self._counts["running"] -= 1

    def _facts(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "running": self._counts["running"],
            "made": self._counts["made"],
            "key": self.settings.api_key,
            "folder": str(self.settings.folder / "x"),
            "models_folder": str(self.context.models_folder / "x"),
        }

    # --- what a prompt can ask for ----------------------------------------------------------------------------

    async def _count(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """`n` chunks that are all ready at once."""
        for number in range(request.parameters["n"]):
            yield TextDelta(f"{number} ")
        yield Finished(usage=Usage(1, request.parameters["n"]))

    async def _step(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """`n` chunks, one for each turn of the event loop."""
        for number in range(request.parameters["n"]):
            await asyncio.sleep(0)
            yield TextDelta(f"{number} ")
        yield Finished()

    async def _meet(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """End only if somebody else generates at the same time: each waits for the other's name."""
        own, other = request.parameters["own"], request.parameters["other"]
        self._meeting.setdefault(own, asyncio.Event()).set()
        yield TextDelta(own)
        await self._meeting.setdefault(other, asyncio.Event()).wait()
        yield TextDelta(other)

    async def _echo_media(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        item: Media
        for item in request.media:
            yield Output(type=item.type, data=item.data, mime_type=item.mime_type)
        yield Finished()

    async def _wait(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """One chunk, then nothing."""
        yield TextDelta("first")
        await asyncio.sleep(FOREVER)

    async def _silence(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        await asyncio.sleep(FOREVER)
        yield TextDelta("never")

    async def _refuse_to_stop(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        yield TextDelta("first")
        while True:
            try:
                await asyncio.sleep(FOREVER)
            except asyncio.CancelledError:
                continue

    async def _crash(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Die by the signal named in the parameters after `n` chunks."""
        for number in range(request.parameters["n"]):
            yield TextDelta(f"{number} ")
        await asyncio.sleep(0.01)  # lets what was yielded leave, as between two tokens
        os.kill(os.getpid(), signal.Signals[request.parameters["signal"]])
        await asyncio.sleep(FOREVER)

    async def _exit(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        yield TextDelta("first")
        os._exit(7)

    async def _hang(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Block the event loop."""
        yield TextDelta("first")
        await asyncio.sleep(0.01)
        time.sleep(FOREVER)  # noqa: ASYNC251 - that is the point

    async def _stray_bytes(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Write garbage into every socket that this process has."""
        yield TextDelta("first")
        for fd in range(3, 64):
            try:
                if stat.S_ISSOCK(os.fstat(fd).st_mode):
                    os.write(fd, b"\xff" * 64)
            except OSError:
                continue
        await asyncio.sleep(FOREVER)

    async def _fail(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Raise the error that the parameters name, before or after the first chunk."""
        if request.parameters.get("late"):
            yield TextDelta("first")
        name = request.parameters["error"]
        if name == "ContextOverflow":
            raise errors.ContextOverflow("Too long.", hint="Say less.", retry_after=2.5)
        if name == "ValidationFailed":
            raise errors.ValidationFailed([errors.Problem("missing", ("body",), "Field required")])
        kinds: dict[str, type[Exception]] = {
            kind.__name__: kind for kind in (ValueError, NotImplementedError, TimeoutError, KeyError)
        }
        raise kinds[name]("boom")
        yield TextDelta("never")

    async def _unsendable(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        yield TextDelta("first")
        yield Output(type="json", data=object())

    async def _malformed(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        yield TextDelta("first")
        await asyncio.sleep(0)  # the good one leaves in a frame of its own
        yield TextDelta(5)  # type: ignore[arg-type]
        await asyncio.sleep(FOREVER)

    async def _print(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """What an engine written in C does."""
        sys.stdout.write("said by Python\n")
        os.write(1, b"said by the engine\n")
        yield Finished()

    async def _start_helper(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Start a process of its own, as some engines do, and tell its id."""
        helper = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", f"import time; time.sleep({FOREVER})"]
        )
        yield TextDelta(str(helper.pid))


class GiftedBinding(ScriptedBinding):
    """One that also tokenizes, counts and embeds."""

    type_name: ClassVar[str] = "gifted_binding"

    async def tokenize(self, text: str, model: str | None, add_bos: bool, add_eos: bool) -> list[int]:
        return [*([256] if add_bos else []), *text.encode(), *([257] if add_eos else [])]

    async def detokenize(self, tokens: list[int], model: str | None) -> str:
        return bytes(token for token in tokens if token < 256).decode()

    async def count_tokens(self, text: str, model: str | None) -> int:
        return len(text.encode())

    async def embed(self, texts: list[str], model: str | None) -> list[list[float]]:
        return [[float(len(text)), 0.5] for text in texts]


class PulsingBinding(ScriptedBinding):
    """One whose engine can be seen to get on."""

    type_name: ClassVar[str] = "pulsing_binding"
    stands_still: bool = False

    @property
    def pulse(self) -> int | None:
        return 0 if self.stands_still else time.monotonic_ns()

    async def _work(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Say nothing for `seconds`, and do not let go before, as in the middle of a long step."""
        end = time.monotonic() + request.parameters["seconds"]
        while (left := end - time.monotonic()) > 0:
            try:
                await asyncio.sleep(left)
            except asyncio.CancelledError:
                continue
        yield Finished()

    async def _stand_still(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """A step that never ends, whatever one does."""
        self.stands_still = True
        async with aclosing(self._refuse_to_stop(request)) as chunks:
            async for chunk in chunks:
                yield chunk


class Unimportable:
    """Not a binding at all."""
