"""Saves what a slot holds to a file and brings it back; each tenant has files of its own."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from lollms_kernel.errors import InvalidRequest, NotSupported

from .in_thread import in_thread
from .prefix_tree import Path as Tokens

if TYPE_CHECKING:
    from .loading import LoadedModel
    from .scheduler import Scheduler
    from .slot import Slot

T = TypeVar("T")

_MAGIC = b"LLSLOT1\n"
_FORBIDDEN = frozenset('/\\:*?"<>|')


class _Head(msgspec.Struct, frozen=True):
    model: str
    tokens: list[int]
    adapters: list[tuple[int, float]]


class SlotFiles:
    """The folder of one instance; None where saving is off."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    async def act(
        self, loaded: LoadedModel, slot: int, action: str, filename: str | None, tenant: str
    ) -> dict[str, Any]:
        """`save`, `restore` or `erase`. Waits while the slot is busy. Raises InvalidRequest or NotSupported."""
        if not 0 <= slot < loaded.engine.spec.parallel:
            raise InvalidRequest(
                "Invalid slot ID", hint=f"Slots go from 0 to {loaded.engine.spec.parallel - 1}."
            )
        if action == "erase":
            return await _when_idle(loaded, slot, lambda scheduler, idle: _erase(scheduler, idle, tenant))
        if action not in ("save", "restore"):
            raise InvalidRequest("Invalid action", hint="It must be save, restore or erase.")
        if self._folder is None:
            raise NotSupported(
                "This server does not support slots action. Start it with `--slot-save-path`",
                hint="Set `slot_save_path` in the instance file.",
            )
        path = self._path(filename, tenant)
        if action == "save":
            return await self._save(loaded, slot, path, str(filename), tenant)
        return await self._restore(loaded, slot, path, str(filename), tenant)

    def _path(self, filename: str | None, tenant: str) -> Path:
        check_filename(filename)
        assert self._folder is not None
        owner = hashlib.sha256(tenant.encode()).hexdigest()[:16] if tenant else "everybody"
        return self._folder / owner / str(filename)

    async def _save(
        self, loaded: LoadedModel, slot: int, path: Path, filename: str, tenant: str
    ) -> dict[str, Any]:
        began = time.perf_counter()

        def take(scheduler: Scheduler, idle: Slot) -> tuple[_Head, bytes]:
            held = idle.last
            if held is None or not scheduler.cache.is_kept(held) or held.tenant != tenant:
                return _Head(_model_id(loaded), [], []), b""
            adapters = list(held.root) if isinstance(held.root, tuple) else []
            return _Head(_model_id(loaded), list(held.tokens), adapters), scheduler.cache.state_of(held)

        head, state = await _when_idle(loaded, slot, take)
        written = await in_thread(lambda: _write(path, head, state))
        return {
            "id_slot": slot,
            "filename": filename,
            "n_saved": len(head.tokens),
            "n_written": written,
            "timings": {"save_ms": (time.perf_counter() - began) * 1000},
        }

    async def _restore(
        self, loaded: LoadedModel, slot: int, path: Path, filename: str, tenant: str
    ) -> dict[str, Any]:
        began = time.perf_counter()
        head, state, size = await in_thread(lambda: _read(path))
        if head.model != _model_id(loaded):
            raise _cannot("the file was saved by another model")
        for token in head.tokens:
            loaded.engine.vocabulary.check(token)
        if len(head.tokens) >= loaded.engine.n_ctx:
            raise _cannot("it holds more tokens than the context")

        def put(scheduler: Scheduler, idle: Slot) -> None:
            if idle.last is not None:
                scheduler.cache.discard(idle.last)
                idle.last = None
            if not head.tokens:
                return
            adapters = tuple((id, scale) for id, scale in head.adapters)
            held = scheduler.cache.restore(Tokens(head.tokens, 0, tenant, adapters), state)
            if held is None:
                raise _cannot("its state does not fit the context")
            idle.last = held

        await _when_idle(loaded, slot, put)
        return {
            "id_slot": slot,
            "filename": filename,
            "n_restored": len(head.tokens),
            "n_read": size,
            "timings": {"restore_ms": (time.perf_counter() - began) * 1000},
        }


def check_filename(name: str | None) -> None:
    """Raise InvalidRequest for what is no plain file name."""
    good = isinstance(name, str) and 0 < len(name.encode("utf-8", "replace")) <= 255
    if not good or name is None:
        raise _invalid_name()
    if any(ord(c) < 32 or ord(c) == 127 or c in _FORBIDDEN for c in name) or ".." in name:
        raise _invalid_name()
    if name.strip() != name or name.endswith(".") or any(0xD800 <= ord(c) <= 0xDFFF for c in name):
        raise _invalid_name()


def _invalid_name() -> InvalidRequest:
    return InvalidRequest(
        "Invalid filename", hint="Give a plain file name of at most 255 bytes, without a path."
    )


async def _when_idle(loaded: LoadedModel, slot: int, act: Callable[[Scheduler, Slot], T]) -> T:
    """What `act` gives for the slot, called between two works in it."""
    return await loaded.engine.between_steps(lambda scheduler: act(scheduler, scheduler.slots[slot]), slot)


def _erase(scheduler: Scheduler, slot: Slot, tenant: str) -> dict[str, Any]:
    held, erased = slot.last, 0
    if held is not None and held.tenant == tenant and scheduler.cache.is_kept(held):
        erased = len(held.tokens)
        scheduler.cache.discard(held)
        slot.last = None
    return {"id_slot": slot.id, "n_erased": erased}


def _model_id(loaded: LoadedModel) -> str:
    facts = loaded.engine.model.facts()
    return f"{facts['n_params']}-{facts['size']}-{facts['n_vocab']}-{loaded.engine.spec.cache_type}"


def _write(path: Path, head: _Head, state: bytes) -> int:
    encoded = msgspec.msgpack.encode(head)
    digest = hashlib.sha256(state).digest()
    data = b"".join((_MAGIC, len(encoded).to_bytes(8, "little"), encoded, digest, state))
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f".{os.getpid()}-{time.monotonic_ns()}.new")
    try:
        fresh.write_bytes(data)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    return len(data)


def _read(path: Path) -> tuple[_Head, bytes, int]:
    """Head, state and size of a file. Raises InvalidRequest for one that is missing or damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        raise _cannot("there is no such file") from None
    body = memoryview(data)[len(_MAGIC) :]
    if not data.startswith(_MAGIC) or len(body) < 8:
        raise _cannot("it is not a saved slot")
    length = int.from_bytes(body[:8], "little")
    rest = body[8 + length :]
    try:
        head = msgspec.msgpack.decode(body[8 : 8 + length], type=_Head)
    except msgspec.MsgspecError:
        raise _cannot("it is damaged") from None
    state = bytes(rest[32:])
    if hashlib.sha256(state).digest() != bytes(rest[:32]):  # llama.cpp would believe whatever it is given
        raise _cannot("it is damaged")
    return head, state, len(data)


def _cannot(reason: str) -> InvalidRequest:
    return InvalidRequest(f"Unable to restore slot: {reason}", hint="Save it again.")
