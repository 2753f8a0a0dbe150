"""`POST /infill`: text for the gap between a prefix and a suffix."""

from __future__ import annotations

from typing import Any

from lollms_kernel.errors import InvalidRequest, NotSupported
from lollms_kernel.types import Infill

from .call import Call
from .fields import Fields
from .generate import respond
from .native import NativeShape, counted_prompt
from .order import base_request, make_order
from .sampling import read_sampling
from .target import choose

MAX_EXTRA = 256


async def infill(call: Call) -> None:
    """Answered as `/completion` is."""
    fields = await call.json()
    gap = _read(fields)
    target = await choose(call, fields)
    if "infill" not in target.info.capabilities:
        raise NotSupported(
            "Infill is not supported by this model: prefix token is missing."
            f" (Binding instance '{target.instance}', model '{target.info.name}'.)"
        )
    sampling = read_sampling(fields)
    counted = counted_prompt(sampling.stream and target.has_engine)
    base = base_request(call, target, infill=gap, raw_thoughts=True, parameters=counted)
    await respond(call, NativeShape(await make_order(call, fields, target, sampling, [base])))


def _read(fields: Fields) -> Infill:
    prefix, suffix = fields.text("input_prefix"), fields.text("input_suffix")
    if prefix is None:
        raise InvalidRequest('"input_prefix" is required')
    if suffix is None:
        raise InvalidRequest('"input_suffix" is required')
    extra = fields.get("input_extra")
    if extra is not None and (not isinstance(extra, list) or len(extra) > MAX_EXTRA):
        raise InvalidRequest('"input_extra" must be an array of {"filename": string, "text": string}')
    return Infill(
        prefix=prefix,
        suffix=suffix,
        prompt=fields.text("prompt") or "",
        extra=tuple(map(_chunk, extra or ())),
    )


def _chunk(value: Any) -> tuple[str, str]:
    text = value.get("text") if isinstance(value, dict) else None
    name = value.get("filename") if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise InvalidRequest('extra_context chunk must contain a "text" field with a string value')
    if name is not None and not isinstance(name, str):
        raise InvalidRequest('extra_context chunk must contain a "filename" field with a string value')
    return name or "tmp", text
