"""The `context` of a workflow, in its own process: objects that look like lollms_server's and ask the server."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from lollms_kernel.sandbox import Peer

from .order import Order
from .plain import plain

JsonObject = dict[str, Any]


def context_of(order: Order, peer: Peer) -> JsonObject:
    """The keys that lollms_server's scripts know: request, input_data, personality, binding, function_manager,
    binding_manager, resource_manager, config, request_info."""
    from lollms_server.api.models import (  # type: ignore[import-not-found]  # in `compat`
        GenerateRequest,
        InputData,
    )

    inputs = [
        InputData(
            type=item.type,
            role=item.role,
            data=base64.b64encode(item.data).decode() if isinstance(item.data, bytes) else item.data,
            mime_type=item.mime_type,
            metadata=item.metadata,
        )
        for item in order.inputs
    ]
    binding = BindingProxy(peer, order.binding, order.model, default=True)
    return {
        "request": GenerateRequest(**order.request, input_data=inputs),
        "input_data": inputs,
        "personality": PersonalityFacts(order),
        "binding": binding,
        "function_manager": FunctionProxy(peer, order.functions),
        "binding_manager": BindingManagerProxy(peer, binding),
        "resource_manager": ResourceProxy(order.config["resource_manager"]),
        "config": Facts(order.config),
        "request_info": order.request_info,
        "history": [{"role": role, "content": content} for role, content in order.turns],
    }


class Facts(dict[str, Any]):
    """A mapping whose keys are attributes as well."""

    def __getattr__(self, name: str) -> Any:
        try:
            value = self[name]
        except KeyError:
            raise AttributeError(name) from None
        return Facts(value) if isinstance(value, dict) else value

    def get_dict(self) -> JsonObject:
        """Itself as a plain mapping."""
        return dict(self)


class PersonalityFacts:
    """What a script may know of its personality."""

    def __init__(self, order: Order) -> None:
        card = order.personality
        self.name = card["name"]
        self.path = Path(order.folder)
        self.assets_path = self.path / "assets"
        self.script_module = None
        self.instance_override_config: JsonObject = {}
        self.is_enabled = True
        self.is_scripted = True
        self.config = Facts(
            {
                **card,
                "personality_description": card["description"],
                "personality_conditioning": card["conditioning"],
                "script_path": order.file,
            }
        )


class BindingProxy:
    """A binding, as scripts call it; every call becomes a request of the same client to the server."""

    def __init__(self, peer: Peer, name: str | None, model: str | None, *, default: bool = False) -> None:
        self._peer = peer
        self._asked = None if default else name
        self.binding_instance_name = name
        self.model_name = model
        self.default_model_name = model
        self.supports_streaming = True
        self.is_model_loaded = True

    async def generate(
        self,
        prompt: str = "",
        params: Mapping[str, Any] | None = None,
        request_info: Mapping[str, Any] | None = None,
        multimodal_data: list[Any] | None = None,
        **more: Any,
    ) -> Any:
        """The whole answer: text, or a list of outputs where there is more than text."""
        answer = Answer()
        async with aclosing(self._stream(prompt, params, request_info, multimodal_data, more)) as parts:
            async for part in parts:
                answer.add(part)
        outputs = answer.outputs()
        only_text = len(outputs) == 1 and outputs[0]["type"] == "text" and not outputs[0]["thoughts"]
        return outputs[0]["data"] if only_text else outputs

    async def generate_stream(
        self,
        prompt: str = "",
        params: Mapping[str, Any] | None = None,
        request_info: Mapping[str, Any] | None = None,
        multimodal_data: list[Any] | None = None,
        **more: Any,
    ) -> AsyncGenerator[JsonObject, None]:
        """The answer as it comes, as `chunk`, `info`, `function_call` and at last `final`."""
        answer = Answer()
        async with aclosing(self._stream(prompt, params, request_info, multimodal_data, more)) as parts:
            async for part in parts:
                chunk = answer.add(part)
                if chunk is not None:
                    yield chunk
        yield {"type": "final", "content": answer.outputs(), "thoughts": None, "metadata": answer.facts}

    def _stream(
        self,
        prompt: str,
        params: Mapping[str, Any] | None,
        request_info: Mapping[str, Any] | None,
        multimodal_data: list[Any] | None,
        more: Mapping[str, Any],
    ) -> AsyncGenerator[Any, None]:
        parameters = {**(params or {}), **more}
        wish = {
            "prompt": str(prompt),
            "turns": [
                {"role": turn["role"], "content": turn["content"]}
                for turn in parameters.pop("messages", None) or []
            ],
            "system": parameters.pop("system_message", None) or None,
            "parameters": parameters,
            "media": [_medium(item) for item in multimodal_data or []],
            "functions": list(parameters.pop("functions", None) or []),
            "generation_type": str((request_info or {}).get("generation_type") or "ttt"),
            "binding": self._asked,
            "model": parameters.pop("model_name", None),
        }
        return self._peer.stream("generate", plain(wish))

    async def tokenize(
        self, text: str, add_bos: bool = False, add_eos: bool = False, model_name: str | None = None
    ) -> Any:
        """Token ids."""
        return await self._peer.call("tokenize", text, add_bos, add_eos, model_name)

    async def detokenize(self, tokens: list[int], model_name: str | None = None) -> Any:
        """Text of token ids."""
        return await self._peer.call("detokenize", tokens, model_name)

    async def count_tokens(self, text: str, *_: Any, model_name: str | None = None) -> Any:
        """How many tokens a text has."""
        return await self._peer.call("count_tokens", text, model_name)

    async def get_model_info(self, model_name: str | None = None) -> Any:
        """What is known of a model."""
        return await self._peer.call("model_info", model_name, self._asked)

    async def get_current_model_info(self) -> Any:
        """What is known of the model that answers."""
        return await self.get_model_info()

    async def list_available_models(self) -> Any:
        """The models of the instance."""
        return await self._peer.call("list_models", self._asked)

    async def load_model(self, model_name: str) -> bool:
        """Nothing: the server loads what a generation needs."""
        return True

    async def health_check(self) -> tuple[bool, str]:
        """Always well: a generation says what is wrong."""
        return True, "OK"

    def get_supported_input_modalities(self) -> list[str]:
        """What a generation takes at least."""
        return ["text"]

    def get_supported_output_modalities(self) -> list[str]:
        """What it makes at least."""
        return ["text"]

    async def ask_yes_no(
        self,
        question: str,
        params: Mapping[str, Any] | None = None,
        request_info: Mapping[str, Any] | None = None,
        multimodal_data: list[Any] | None = None,
        **_: Any,
    ) -> bool | None:
        """What the model answers; None where it is neither yes nor no."""
        asked = f"{question}\nAnswer with one word, yes or no."
        wished = {**(params or {}), "max_tokens": 16}
        answer = text_of(await self.generate(asked, wished, request_info, multimodal_data))
        word = re.search(r"\b(yes|no)\b", answer, re.IGNORECASE)
        return None if word is None else word[1].lower() == "yes"

    async def generate_structured_output(
        self,
        prompt: str,
        structure_definition: Any,
        output_language_tag: str = "json",
        params: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> Any:
        """A value of the described structure that the model writes as JSON; None where it does not."""
        shape = (
            structure_definition
            if isinstance(structure_definition, str)
            else json.dumps(structure_definition)
        )
        asked = f"{prompt}\nAnswer with one block of {output_language_tag} of this structure:\n{shape}"
        answer = text_of(await self.generate(asked, params))
        for text in [block["content"] for block in _code_blocks(answer)] + [answer]:
            try:
                return json.loads(text)
            except ValueError:
                continue
        return None

    async def generate_and_extract_all_codes(
        self, prompt: str, params: Mapping[str, Any] | None = None, **_: Any
    ) -> Any:
        """The code blocks of an answer."""
        return _code_blocks(text_of(await self.generate(prompt, params)))


class FunctionProxy:
    """The functions of the server, with the words of lollms_server's function manager."""

    def __init__(self, peer: Peer, offered: list[str]) -> None:
        self._peer = peer
        self.offered = offered
        """Those that the personality or the client names."""

    async def execute_function(self, name: str, args: Mapping[str, Any] | None = None) -> tuple[bool, Any]:
        """Whether it went well, and the result or what went wrong."""
        done, result = await self._peer.call("execute_function", name, plain(dict(args or {})))
        return done, result

    async def list_functions(self) -> list[str]:
        """Names, sorted."""
        return [item["name"] for item in await self._peer.call("list_functions")]

    async def describe_functions(self) -> Any:
        """Name, description and schema of each."""
        return await self._peer.call("list_functions")

    def get_function(self, name: str) -> Any:
        """The function as something that can be awaited."""

        async def call(**arguments: Any) -> Any:
            done, result = await self.execute_function(name, arguments)
            if not done:
                raise RuntimeError(result)
            return result

        return call


class BindingManagerProxy:
    """The binding instances of the server."""

    def __init__(self, peer: Peer, own: BindingProxy) -> None:
        self._peer = peer
        self._own = own

    def get_binding(self, name: str | None = None) -> BindingProxy:
        """An instance by its name; whether it is there shows when it is used."""
        return self._own if name is None else BindingProxy(self._peer, name, None)

    async def list_binding_instances(self) -> Any:
        """Names of those that serve."""
        return await self._peer.call("list_bindings")


class ResourceProxy:
    """The GPU needs no care here: the server holds it for each generation by itself."""

    def __init__(self, facts: JsonObject) -> None:
        self._facts = facts

    @asynccontextmanager
    async def acquire_gpu_resource(self, task_name: str = "") -> AsyncIterator[None]:
        """Nothing to wait for."""
        yield

    def get_status(self) -> JsonObject:
        """How the server shares its GPU."""
        keys = ("gpu_strategy", "gpu_limit", "queue_timeout")
        return {key: self._facts[key] for key in keys} | {"active_gpu_tasks": 0, "lock_type": "server"}


class Answer:
    """What a generation has given so far."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._thought: list[str] = []
        self._thoughts: list[str] = []
        self._outputs: list[JsonObject] = []
        self.facts: JsonObject = {}

    def add(self, part: JsonObject) -> JsonObject | None:
        """Take a part in; the chunk to show, if there is one."""
        match part:
            case {"text": text}:
                self._text.append(text)
                return {"type": "chunk", "content": text, "thoughts": None, "metadata": {}}
            case {"thought": text, "end": end}:
                self._thought.append(text)
                return self._end_thought() if end else None
            case {"output": output}:
                self._outputs.append(output)
            case {"info": content}:
                return {"type": "info", "content": content, "thoughts": None, "metadata": {}}
            case {"call": call}:
                return {"type": "function_call", "content": call, "thoughts": None, "metadata": {}}
            case {"finished": facts}:
                self.facts = {"finish_reason": facts["reason"], "model_used": facts["model"]}
                if facts["usage"]:
                    self.facts["usage"] = facts["usage"]
        return None

    def outputs(self) -> list[JsonObject]:
        """The whole answer as a list of OutputData."""
        text = "".join(self._text)
        thoughts = "\n\n".join(self._thoughts) or None
        own = {"type": "text", "data": text, "mime_type": None, "thoughts": thoughts, "metadata": self.facts}
        rest = [
            {**output, "data": base64.b64encode(output["data"]).decode(), "thoughts": None}
            if isinstance(output["data"], bytes)
            else {**output, "thoughts": None}
            for output in self._outputs
        ]
        return [own, *rest] if text or thoughts or not rest else rest

    def _end_thought(self) -> JsonObject | None:
        thought = "".join(self._thought).strip()
        self._thought.clear()
        if not thought:
            return None
        self._thoughts.append(thought)
        return {"type": "chunk", "content": None, "thoughts": thought, "metadata": {}}


def text_of(result: Any) -> str:
    """The text of what `generate` gave."""
    if isinstance(result, str):
        return result
    return "".join(str(item["data"]) for item in result if item["type"] == "text")


def _medium(item: Any) -> JsonObject:
    """An InputData, or a mapping like it, with its bytes."""
    facts = item if isinstance(item, Mapping) else item.model_dump()
    data = facts["data"]
    if isinstance(data, str):
        text = data.partition(",")[2] if data.startswith("data:") else data
        data = base64.b64decode(text)
    return {
        "type": facts["type"],
        "role": facts.get("role") or "input",
        "data": data,
        "mime_type": facts.get("mime_type"),
        "metadata": facts.get("metadata") or {},
    }


def _code_blocks(text: str) -> list[JsonObject]:
    from lollms_server.utils.helpers import (  # type: ignore[import-not-found]  # in `compat`
        extract_code_blocks,
    )

    found: list[JsonObject] = extract_code_blocks(text)
    return found
