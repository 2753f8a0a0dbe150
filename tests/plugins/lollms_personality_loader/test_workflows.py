"""The contract of workflows in a running server: what they may return, with and without a stream, and what they get."""

from __future__ import annotations

import base64
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from lollms_kernel.testing import ServerProcess

LIMIT = 60
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n rest").decode()
SLOW: dict[str, Any] = {"type": "dummy_binding", "chunks": ["tick "] * 2000, "stream_chunk_delay": 0.01}
INSTANCES: dict[str, dict[str, Any]] = {
    "echo": {"type": "dummy_binding"},
    "mirror": {"type": "dummy_binding", "echo_system": True},
    "slow": SLOW,
    "broken": {"type": "dummy_binding", "fail_after": 1},
}

HEAD = "async def run_workflow(prompt, params, context):\n"

SCRIPTS = {
    "text": "return 'said ' + prompt",
    "number": "return 42",
    "one": "return {'type': 'text', 'data': 'one', 'metadata': {'steps': 1}}",
    "short": f"return {{'text': 'short', 'image_base64': {PNG!r}}}",
    "picture": f"return {{'type': 'image', 'data': {PNG!r}, 'mime_type': 'image/png'}}",
    "json": "return {'answer': [1, 2, {'deep': None}]}",
    "list": """
        return [{'type': 'text', 'data': 'first'}, {'type': 'info', 'data': 'noted'}, {'type': 'thoughts', 'data': 'x'},
                {'type': 'json', 'data': {'a': 1}}]
    """,
    "models": """
        from lollms_server.api.models import OutputData
        return [OutputData(type='text', data='from a model', thoughts='hm')]
    """,
    "stream": """
        async def parts():
            yield {'type': 'info', 'content': 'starting'}
            yield {'type': 'chunk', 'content': 'a', 'thoughts': 'think'}
            yield {'type': 'chunk', 'content': 'b'}
            yield 'c'
            yield {'type': 'final', 'content': [{'type': 'text', 'data': 'abc', 'metadata': {'steps': 3}}]}
        return parts()
    """,
    "only_final": """
        async def parts():
            yield {'type': 'final', 'content': [{'type': 'text', 'data': 'whole'}]}
        return parts()
    """,
    "nothing": "return None",
    "empty": "return []",
    "raises": "raise ValueError('no luck')",
    "exits": "import sys; sys.exit(3)",
    "raises_late": """
        async def parts():
            yield {'type': 'chunk', 'content': 'so far'}
            raise ValueError('no luck')
        return parts()
    """,
    "asks": "return 'It says: ' + await context['binding'].generate(prompt.upper(), params)",
    "streams_on": "return context['binding'].generate_stream(prompt.upper(), params)",
    "asks_broken": "return await context['binding_manager'].get_binding('broken').generate(prompt, {})",
    "asks_nobody": "return await context['binding_manager'].get_binding('nobody').generate(prompt, {})",
    "asks_often": """
        for _ in range(9):
            await context['binding'].generate('x', {})
        return 'never'
    """,
    "tokens": """
        binding = context['binding']
        tokens = await binding.tokenize('hi')
        text = await binding.detokenize(tokens)
        return {'tokens': tokens, 'back': text, 'count': await binding.count_tokens('abc'),
                'model': (await binding.get_model_info())['name'],
                'models': [model['name'] for model in await binding.list_available_models()]}
    """,
    "functions": """
        manager = context['function_manager']
        calls = [('calculator.evaluate', {'expression': '6 * 7'}), ('calculator.evaluate', {}), ('no.such', {}),
                 ('shop.price', {'item': 'tea', 'unknown': 1}), ('shop.fail', {})]
        return {'names': await manager.list_functions(),
                'results': [list(await manager.execute_function(*call)) for call in calls]}
    """,
    "facts": """
        personality, request = context['personality'], context['request']
        return {'keys': sorted(context), 'name': personality.name, 'folder': personality.path.name,
                'asset': (personality.assets_path / 'note.txt').read_text(),
                'title': personality.config.name, 'generation': request.generation_type,
                'info': context['request_info'], 'default': context['config']['defaults']['ttt_binding'],
                'params': params, 'inputs': [(i.type, i.role, i.data, i.mime_type) for i in context['input_data']]}
    """,
    "helpers": """
        import ascii_colors as logging
        from lollms_server.utils.helpers import extract_code_blocks, parse_thought_tags
        from lollms_server.core.bindings import Binding
        logging.info('a line for the log')
        blocks = extract_code_blocks('main.py\\n```python\\nx = 1\\n```\\n~~~\\nplain\\n')
        return {'blocks': [(b['type'], b['file_name'], b['content'], b['is_complete']) for b in blocks],
                'thoughts': parse_thought_tags('a <think>x</think> b <THINK>y</THINK> c <think>z')}
    """,
    "neighbour": """
        from tools_of_mine import name
        return name
    """,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with every script above, enabled, and some of other shapes."""
    root = tmp_path_factory.mktemp("workflows")
    folder = root / "personal/personalities"
    bodies = {
        name: HEAD + textwrap.indent(textwrap.dedent(body).strip(), "    ") for name, body in SCRIPTS.items()
    }
    bodies["generator"] = "async def run_workflow(prompt, params, context):\n    yield 'x'\n    yield 'y'\n"
    bodies["plain"] = "def run_workflow(prompt, params, context):\n    return 'plain ' + prompt\n"
    bodies["plain_generator"] = "def run_workflow(prompt, params, context):\n    yield 'p'\n    yield 'q'\n"
    bodies["no_workflow"] = "x = 1\n"
    bodies["no_python"] = "def run_workflow(:\n"
    for name, body in bodies.items():
        write(folder / name, f"name: The {name}\npersonality_conditioning: Be {name}.\n", body)
    write(folder / "off", "name: Off\npersonality_conditioning: Be off.\n", "raise SystemExit('it ran')")
    (folder / "facts/assets").mkdir()
    (folder / "facts/assets/note.txt").write_text("a note")
    (folder / "neighbour/scripts/tools_of_mine.py").write_text("name = 'found'\n")
    (root / "personal/functions").mkdir(parents=True)
    (root / "personal/functions/shop.py").write_text(
        "async def price(item: str):\n    return {'item': item, 'price': 3}\n"
        "async def fail():\n    raise KeyError('x')\n"
    )
    config = {
        "defaults": {"ttt_binding": "echo"},
        "personalities_config": {name: {"allow_scripts": True} for name in bodies},
        "scripts": {"max_generations": 3},
    }
    with ServerProcess(config, INSTANCES, root=root) as running:
        yield running


def write(folder: Path, config: str, script: str) -> None:
    (folder / "scripts").mkdir(parents=True)
    (folder / "config.yaml").write_text(f"{config}script_path: scripts/workflow.py\n")
    (folder / "scripts/workflow.py").write_text(script)


def body(personality: str, prompt: str = "hi", **more: Any) -> dict[str, Any]:
    inputs = [{"type": "text", "role": "user_prompt", "data": prompt}]
    return {"input_data": inputs, "personality": personality, **more}


def whole(server: ServerProcess, personality: str, prompt: str = "hi", **more: Any) -> Any:
    """The outputs of an answer that is not streamed."""
    answer = httpx.post(
        f"{server.url}/api/v1/generate", json=body(personality, prompt, **more), timeout=LIMIT
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["output"]


def events(server: ServerProcess, personality: str, prompt: str = "hi", **more: Any) -> list[dict[str, Any]]:
    """The events of one that is."""
    asked = body(personality, prompt, stream=True, **more)
    answer = httpx.post(f"{server.url}/api/v1/generate", json=asked, timeout=LIMIT)
    assert answer.headers["content-type"].startswith("text/event-stream"), answer.text
    return [json.loads(block.removeprefix("data: ")) for block in answer.text.split("\n\n") if block]


def shown(outputs: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    return [(output["type"], output["data"]) for output in outputs]


RETURNS: dict[str, list[tuple[str, Any]]] = {
    "text": [("text", "said hi")],
    "number": [("text", "42")],
    "one": [("text", "one")],
    "short": [("text", "short"), ("image", PNG)],
    "picture": [("image", PNG)],
    "json": [("json", {"answer": [1, 2, {"deep": None}]})],
    "list": [("text", "first"), ("info", "noted"), ("json", {"a": 1})],
    "models": [("text", "from a model")],
    "stream": [("text", "abc")],
    "only_final": [("text", "whole")],
    "generator": [("text", "xy")],
    "plain": [("text", "plain hi")],
    "plain_generator": [("text", "pq")],
    "raises": [("error", "Workflow execution failed: no luck")],
    "raises_late": [("text", "so far"), ("error", "Script stream error: no luck")],
    "exits": [("error", "Workflow execution failed: the script ended itself (exit code 3)")],
    "asks": [("text", "It says: HI")],
    "streams_on": [("text", "HI")],
    "neighbour": [("text", "found")],
    "empty": [("error", "Internal error: Failed to standardize generation output.")],
}


@pytest.mark.parametrize("name", RETURNS)
def test_what_a_workflow_returns_is_the_answer_with_and_without_a_stream(
    server: ServerProcess, name: str
) -> None:
    assert shown(whole(server, name)) == RETURNS[name]

    streamed = events(server, name)
    assert [event["type"] for event in streamed].count("final") == 1
    assert shown(streamed[-1]["content"]) == RETURNS[name]
    text = "".join(event["content"] or "" for event in streamed if event["type"] == "chunk")
    assert text == "".join(data for kind, data in RETURNS[name] if kind == "text")


def test_an_error_output_names_the_personality_and_the_server_lives(server: ServerProcess) -> None:
    (output,) = whole(server, "raises")

    assert output["metadata"]["personality"] == "The raises"
    assert "ValueError: no luck" in server.log()
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_nothing_at_all_is_an_error(server: ServerProcess) -> None:
    answer = httpx.post(f"{server.url}/api/v1/generate", json=body("nothing"), timeout=LIMIT)

    assert (answer.status_code, "failed to produce output" in answer.text) == (500, True)


@pytest.mark.parametrize(
    ("name", "said"),
    [("no_workflow", "defines no function `run_workflow"), ("no_python", "invalid syntax")],
)
def test_a_script_that_is_none_is_an_error_output(server: ServerProcess, name: str, said: str) -> None:
    ((kind, data),) = shown(whole(server, name))

    assert kind == "error"
    assert said in data


def test_chunks_thoughts_and_infos_of_a_stream_keep_their_order_and_metadata(server: ServerProcess) -> None:
    streamed = events(server, "stream")

    kinds = [(event["type"], event["content"], event["thoughts"]) for event in streamed[:-1]]
    assert kinds == [
        ("info", "starting", None),
        ("chunk", None, "think"),
        ("chunk", "a", None),
        ("chunk", "b", None),
        ("chunk", "c", None),
    ]
    (final,) = streamed[-1]["content"]
    assert (final["thoughts"], final["metadata"]["steps"]) == ("think", 3)


def test_outputs_that_are_none_are_noticed(server: ServerProcess) -> None:
    notices = whole(server, "list")[0]["metadata"]["notices"]

    assert [notice["code"] for notice in notices] == ["outputs_ignored"]
    assert "thoughts" in notices[0]["message"]


def test_a_generation_of_a_script_streams_through_while_it_is_made(server: ServerProcess) -> None:
    asked = body("streams_on", stream=True, binding_name="slow")
    with httpx.stream("POST", f"{server.url}/api/v1/generate", json=asked, timeout=LIMIT) as answer:
        lines = (line for line in answer.iter_lines() if line)
        first = json.loads(next(lines).removeprefix("data: "))
        second = json.loads(next(lines).removeprefix("data: "))

    assert (first["content"], second["content"]) == ("tick ", "tick ")  # of 2,000, which take 20 s


def test_tokens_of_all_generations_are_counted(server: ServerProcess) -> None:
    (output,) = whole(server, "asks")

    assert output["metadata"]["usage"]["completion_tokens"] > 0
    assert output["metadata"]["model_used"] == "dummy-model"


def test_the_conditioning_reaches_a_generation_that_is_given_the_params(server: ServerProcess) -> None:
    (output,) = whole(server, "streams_on", binding_name="mirror", parameters={"temperature": 0.5})

    received = json.loads(output["data"])
    assert received["system"] == "Be streams_on."
    assert received["parameters"]["temperature"] == 0.5


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("asks_broken", "The dummy binding fails after 1 chunks"),
        ("asks_nobody", "'nobody' not found"),
        ("asks_often", "asked for 3 generations"),
    ],
)
def test_a_generation_that_fails_is_an_exception_in_the_script(
    server: ServerProcess, name: str, said: str
) -> None:
    ((kind, data),) = shown(whole(server, name))

    assert kind == "error"
    assert said in data


def test_a_request_for_what_does_not_exist_fails_as_without_a_script(server: ServerProcess) -> None:
    answers = [
        httpx.post(f"{server.url}/api/v1/generate", json=body("text", **wrong), timeout=LIMIT)
        for wrong in ({"binding_name": "nobody"}, {"binding_name": "echo", "model_name": "nobody"})
    ]

    streamed = [
        httpx.post(f"{server.url}/api/v1/generate", json=body(name, stream=True, **wrong), timeout=LIMIT)
        for name, wrong in (("text", {"binding_name": "nobody"}), ("off", {"binding_name": "nobody"}))
    ]
    assert [answer.status_code for answer in [*answers, *streamed]] == [404, 503, 404, 404]


def test_tokens_and_facts_of_the_model_are_there(server: ServerProcess) -> None:
    ((_, data),) = shown(whole(server, "tokens"))

    assert data == {
        "tokens": [104, 105],
        "back": "hi",
        "count": 3,
        "model": "dummy-model",
        "models": ["dummy-model"],
    }


def test_functions_answer_in_the_words_of_lollms_server(server: ServerProcess) -> None:
    ((_, data),) = shown(whole(server, "functions"))

    assert data["names"] == sorted(data["names"])
    assert {"calculator.evaluate", "shop.price", "shop.fail"} <= set(data["names"])
    assert data["results"] == [
        [True, 42],
        [False, "Missing required arguments for function 'calculator.evaluate': expression"],
        [False, "Function 'no.such' not found or failed to load."],
        [True, {"item": "tea", "price": 3}],
        [False, "Error executing function 'shop.fail': KeyError: 'x'"],
    ]


def test_the_context_has_the_published_keys(server: ServerProcess) -> None:
    picture = {"type": "image", "role": "input_image", "data": PNG, "mime_type": "image/png"}
    texts = [
        {"type": "text", "role": "user_prompt", "data": "one"},
        {"type": "text", "role": "assistant_reply", "data": "two"},
        {"type": "text", "role": "user_prompt", "data": "three"},
    ]
    asked = {"input_data": [*texts, picture], "personality": "facts", "parameters": {"seed": 7}}
    answer = httpx.post(f"{server.url}/api/v1/generate", json=asked, timeout=LIMIT).json()

    data = answer["output"][0]["data"]
    published = (
        "request input_data personality binding function_manager binding_manager resource_manager config"
    )
    assert set(published.split()) | {"request_info"} <= set(data["keys"])
    assert (data["name"], data["title"], data["folder"], data["asset"]) == (
        "The facts",
        "The facts",
        "facts",
        "a note",
    )
    assert (data["generation"], data["default"]) == ("ttt", "echo")
    assert data["info"]["request_id"] == answer["request_id"]
    assert data["params"] == {
        "max_tokens": 1024,
        "context_size": 4096,
        "seed": 7,
        "system_message": "Be facts.",
    }
    assert data["inputs"] == [
        ["text", "user_prompt", "one", None],
        ["text", "assistant_reply", "two", None],
        ["text", "user_prompt", "three", None],
        ["image", "input_image", PNG, "image/png"],
    ]


def test_names_that_scripts_import_are_there_and_what_they_print_is_in_the_log(server: ServerProcess) -> None:
    ((_, data),) = shown(whole(server, "helpers"))

    assert data["blocks"] == [["python", "main.py", "x = 1", True], ["language-specific", "", "plain", False]]
    assert data["thoughts"] == ["a  b  c", "x\n\ny\n\n--- Incomplete Thought Block ---\n\nz"]
    assert "script of 'helpers': INFO a line for the log" in server.log()


def test_a_script_that_is_not_allowed_does_not_run_and_is_listed_so(server: ServerProcess) -> None:
    (output,) = whole(server, "off")
    listed = httpx.get(f"{server.url}/api/v1/list_personalities").json()["personalities"]

    assert output["data"] == "hi"
    (notice,) = output["metadata"]["notices"]
    assert notice["code"] == "script_not_run"
    assert "personalities_config.off.allow_scripts" in notice["message"]
    assert (listed["off"]["is_scripted"], listed["off"]["script_enabled"]) == (True, False)
    assert listed["off"]["problems"] == [notice["message"]]
    assert (listed["text"]["is_scripted"], listed["text"]["script_enabled"]) == (True, True)
