"""How families of models write tool calls: the marks around them, and grammars that make a call valid."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from lollms_kernel.errors import InvalidRequest

from .json_schema import schema_grammar
from .parameters import Trigger

MAX_TOOLS = 128


class ToolFormat(msgspec.Struct, frozen=True, kw_only=True):
    """One way to write calls: `begin` JSON `end`; the JSON object has the keys `name` and `arguments_key`."""

    name: str
    begin: str
    end: str = ""
    arguments_key: str = "arguments"
    array: bool = False
    """Whether all calls are one JSON array."""

    def written(self, call: dict[str, Any]) -> str:
        """A call as the model would write it."""
        inner = {"name": call["name"], self.arguments_key: call["arguments"]}
        text = json.dumps([inner] if self.array else inner, ensure_ascii=False)
        return f"{self.begin}\n{text}\n{self.end}" if self.end else f"{self.begin}{text}"

    def instructions(self, tools: Sequence[dict[str, Any]]) -> str:
        """Tells a model that was not trained for tools how to call them."""
        listed = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
        example = self.written({"name": "NAME", "arguments": {}})
        return (
            "You can call these functions, described as JSON:\n"
            f"{listed}\n\nTo call one, answer with nothing but:\n{example}"
        )

    @property
    def triggers(self) -> tuple[Trigger, ...]:
        """What shows that the model begins a call."""
        if self.begin:
            return (Trigger("word", self.begin),)
        return (Trigger("pattern", r'\A\s*(\{\s*"name"\s*:)'),)

    def grammar(self, tools: Sequence[dict[str, Any]], several: bool) -> str:
        """GBNF for one call or more. Raises InvalidRequest for parameters that are no JSON schema."""
        calls = [self._schema(tool["function"]) for tool in tools]
        text = schema_grammar(json.dumps(calls[0] if len(calls) == 1 else {"anyOf": calls}))
        lines = [f"call{line[4:]}" if line.startswith("root ::=") else line for line in text.splitlines()]
        begin, end = json.dumps(self.begin), json.dumps(self.end)
        gap = "gap ::= [ \\t\\n]{0,4}"
        if self.array:
            more = ' ( gap "," gap call )*' if several else ""
            root = f'root ::= {begin} gap "[" gap call{more} gap "]"'
        elif self.end:
            one = f"{begin} gap call gap {end}"
            root = f"root ::= {one}" + (f" ( gap {one} )*" if several else "")
        else:
            root = f"root ::= {begin} gap call" if self.begin else "root ::= gap call"
        return "\n".join([root, gap, *lines])

    def _schema(self, function: dict[str, Any]) -> dict[str, Any]:
        parameters = function.get("parameters") or {"type": "object", "properties": {}}
        if parameters.get("type") == "object" and not parameters.get("properties"):
            parameters = {**parameters, "properties": {}, "additionalProperties": False}
        properties = {"name": {"const": function["name"]}, self.arguments_key: parameters}
        return {"type": "object", "properties": properties, "required": ["name", self.arguments_key]}


HERMES = ToolFormat(name="hermes", begin="<tool_call>", end="</tool_call>")
MISTRAL = ToolFormat(name="mistral", begin="[TOOL_CALLS]", array=True)
LLAMA3 = ToolFormat(name="llama3", begin="", arguments_key="parameters")
GENERIC = ToolFormat(name="generic", begin="<tool_call>", end="</tool_call>")


def format_of(template: str) -> ToolFormat:
    """How the model of a chat template writes calls."""
    if "tools" not in template:
        return GENERIC
    if "[TOOL_CALLS]" in template:
        return MISTRAL
    if "<tool_call>" in template:
        return HERMES
    if "<|python_tag|>" in template or "<|start_header_id|>" in template:
        return LLAMA3
    return GENERIC


def described(functions: Sequence[Any]) -> tuple[list[dict[str, Any]], list[Any]]:
    """Tools described as OpenAI does, and what is none. Raises InvalidRequest for more than any model reads."""
    if len(functions) > MAX_TOOLS:
        raise InvalidRequest(f"{len(functions)} functions are given.", hint=f"Give at most {MAX_TOOLS}.")
    tools, others = [], []
    for entry in functions:
        inner = entry.get("function", entry) if isinstance(entry, dict) else None
        if isinstance(inner, dict) and isinstance(inner.get("name"), str) and inner["name"]:
            parameters = inner.get("parameters")
            if parameters is not None and not isinstance(parameters, dict):
                raise InvalidRequest(
                    f"The parameters of function '{inner['name']}' are no JSON schema.",
                    hint="Give an object.",
                )
            tools.append({"type": "function", "function": inner})
        else:
            others.append(entry)
    return tools, others


class ToolChoice(msgspec.Struct, frozen=True):
    """Which tools the model may or must call."""

    tools: list[dict[str, Any]]
    must: bool = False


def choose(tools: list[dict[str, Any]], choice: Any) -> ToolChoice:
    """What `tool_choice` (auto, none, required, or a function) makes of the tools. Raises InvalidRequest."""
    if choice in (None, "auto"):
        return ToolChoice(tools)
    if choice == "none":
        return ToolChoice([])
    if choice in ("required", "any"):
        if not tools:
            raise InvalidRequest("A tool has to be called, but none is given.", hint="Give `tools`.")
        return ToolChoice(tools, must=True)
    inner = choice.get("function", choice) if isinstance(choice, dict) else None
    name = inner.get("name") if isinstance(inner, dict) else None
    named = [tool for tool in tools if tool["function"]["name"] == name]
    if not named:
        raise InvalidRequest(
            f"parameters.tool_choice is {str(choice)[:80]!r}.",
            hint="It must be auto, none, required, or name one of the functions.",
        )
    return ToolChoice(named, must=True)
