"""What holds on the wire whatever is asked: errors, keys, web pages, verbs, silence, and clients that go away."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator

import httpx
import pytest

from lollms_kernel.testing import ServerProcess
from lollms_kernel.testing.server_process import free_port

from .conftest import CONFIG, ENGINE, KEY, LIMIT, Ports, environment

EVIL = "https://evil.example"


def test_a_page_that_does_not_exist_and_a_wrong_verb_look_alike(client: httpx.Client) -> None:
    for method, path in (
        ("GET", "/completion"),
        ("POST", "/v1/no/such"),
        ("PUT", "/v1/models"),
        ("GET", "/slots/1"),
    ):
        response = client.request(method, path)
        assert response.status_code == 404, path
        assert response.json() == {
            "error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}
        }


def test_the_main_ports_own_pages_are_still_there(main: httpx.Client) -> None:
    assert main.get("/").text.startswith("LOLLMS Server")
    assert main.get("/api/v1/list_bindings").status_code == 200
    assert main.get("/no/such").text == "Not Found"


def test_head_has_the_headers_and_no_body(inference: httpx.Client) -> None:
    response = inference.head("/v1/models")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["server"] == "llama.cpp"
    assert int(response.headers["content-length"]) > 100


def test_json_is_read_whatever_its_content_type_as_wingmans_page_posts_it(ports: Ports) -> None:
    """The 2024 page of Wingman posts with the content type of what it expects; here as curl would."""
    body = json.dumps({"messages": [{"role": "user", "content": "x"}], "stream": True, "temperature": 0.7})
    for url in (ports.main, ports.inference):
        command = ["curl", "-sS", "-N", "-X", "POST", f"{url}/v1/chat/completions", "--data-binary", body]
        answer = subprocess.run(
            [*command, "-H", "Content-Type: text/event-stream", "-H", "Origin: http://localhost:5173"],
            capture_output=True,
            check=True,
            timeout=LIMIT,
        ).stdout.decode()
        deltas = [
            json.loads(line.removeprefix("data: "))["choices"][0]["delta"]
            for line in answer.splitlines()
            if line.startswith("data: {")
        ]
        assert "".join(delta.get("content") or "" for delta in deltas) == "abc"
        assert answer.endswith("data: [DONE]\n\n")


def test_bodies_that_are_no_json_objects_are_told(client: httpx.Client) -> None:
    for body in (b"{", b"[1]", b"\xff", b'{"prompt": 1e999}', b"nul"):
        response = client.post("/completion", content=body)
        assert response.status_code == 400, body
        assert response.json()["error"]["type"] == "invalid_request_error"


def test_deep_json_is_refused(client: httpx.Client) -> None:
    for body in (
        b"[" * 100_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        b'{"prompt": ' + b"[" * 200 + b"]" * 200 + b"}",
    ):
        response = client.post("/completion", content=body)
        assert response.status_code == 400
        assert "nested" in response.json()["error"]["message"]
    brackets = client.post("/completion", json={"prompt": "echo" + "[{" * 5_000, "model": "echo"})
    assert brackets.status_code == 200


def test_schema_bombs_are_refused(client: httpx.Client) -> None:
    deep: dict[str, object] = {}
    for _ in range(80):
        deep = {"items": deep}
    wide = {"enum": [str(number) for number in range(30_000)]}
    large = {"type": "integer", "maximum": 10**30}
    for schema in (deep, wide, large):
        native = client.post("/completion", json={"prompt": "x", "json_schema": schema})
        wanted = {"type": "json_schema", "json_schema": {"schema": schema}}
        messages = [{"role": "user", "content": "x"}]
        chat = client.post("/v1/chat/completions", json={"messages": messages, "response_format": wanted})
        tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
        tools = client.post("/v1/chat/completions", json={"messages": messages, "tools": [tool]})
        assert [answer.status_code for answer in (native, chat, tools)] == [400, 400, 400]


def test_silence_is_broken_by_comments(ports: Ports) -> None:
    body = {"prompt": "x", "model": "slow", "stream": True, "sse_ping_interval": 1}
    fast = {**body, "sse_ping_interval": 0.05}
    with httpx.stream("POST", f"{ports.inference}/completion", json=fast, timeout=LIMIT) as response:
        seen = b""
        for piece in response.iter_raw():
            seen += piece
            if b":\n\n" in seen and seen.count(b"data: ") > 2:
                break
    assert b"\n\n:\n\n" in seen


# --- clients that go away ---


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "stream": True}),
        ("/completion", {"prompt": "x", "stream": True}),
        ("/completion", {"prompt": ["x", "y"], "stream": True}),
    ],
)
def test_a_stream_that_nobody_reads_any_more_stops(
    client: httpx.Client, path: str, body: dict[str, object]
) -> None:
    with client.stream("POST", path, json={**body, "model": "slow"}) as response:
        pieces = response.iter_raw()
        next(pieces)
    # the one GPU is free again, or this would wait for fifty seconds
    started = time.monotonic()
    assert (
        client.post("/completion", json={"prompt": "my turn", "model": "quick"}).json()["content"]
        == "my turn"
    )
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/completion", "/v1/images/generations"])
def test_an_answer_that_nobody_waits_for_any_more_stops(client: httpx.Client, path: str) -> None:
    model = "stuck"
    body = {"prompt": "x", "messages": [{"role": "user", "content": "x"}], "model": model}
    if path == "/v1/images/generations":
        assert client.post(path, json=body).status_code == 501
        return
    with pytest.raises(httpx.ReadTimeout):
        client.post(path, json=body, timeout=0.5)
    assert (
        client.post("/completion", json={"prompt": "my turn", "model": "quick"}).json()["content"]
        == "my turn"
    )


# --- keys and web pages ---


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    """A server with a key, whose inference port is set up for Wingman's page, with slots and figures off."""
    folder = tmp_path_factory.mktemp("guarded")
    port = free_port()
    wingman = {
        "inference_port": port,
        "control_port": free_port(),
        "home": str(folder / "home"),
        "alias": "my-alias",
        "null_content": False,
        "metrics": False,
        "slots": False,
        "change_props": True,
    }
    config = {
        **CONFIG,
        "security": {"allowed_api_keys": [KEY]},
        "server": {"max_body_size": 100_000},
        "transports": {"wingman": wingman},
        "defaults": {"ttt_binding": "engine"},
    }
    with ServerProcess(config, {"engine": ENGINE}, env=environment(folder), extra_ports=True) as server:
        yield Ports(server, server.url, f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("port", ["main", "inference"])
def test_everything_but_health_needs_a_key(guarded: Ports, port: str) -> None:
    client = httpx.Client(base_url=getattr(guarded, port), timeout=LIMIT)
    refused = {"error": {"code": 401, "message": "Invalid API Key", "type": "authentication_error"}}
    for method, path in (
        ("GET", "/v1/models"),
        ("GET", "/models"),
        ("GET", "/metrics"),
        ("GET", "/slots"),
        ("GET", "/props"),
        ("POST", "/completion"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/tokenize"),
    ):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"X-Api-Key": "wrong"}):
            response = client.request(method, path, headers=headers)
            assert (response.status_code, response.json()) == (401, refused), path
    for path in ("/health", "/v1/health"):
        assert client.get(path).status_code == 200
    assert "prompt" not in client.get("/health?include_slots=1").text
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"Authorization": KEY}, {"X-Api-Key": KEY}):
        assert client.get("/v1/models", headers=headers).status_code == 200
    client.close()


def test_what_is_switched_off_says_how_to_switch_it_on(guarded: Ports) -> None:
    with httpx.Client(base_url=guarded.inference, headers={"X-Api-Key": KEY}) as client:
        metrics, slots = client.get("/metrics"), client.get("/slots")
        props = client.post("/props", json={})
    assert (metrics.status_code, slots.status_code) == (501, 501)
    assert "--metrics" in metrics.json()["error"]["message"]
    assert "--slots" in slots.json()["error"]["message"]
    assert props.json() == {"success": True}


def test_the_alias_is_the_models_name_on_the_inference_port(guarded: Ports) -> None:
    with httpx.Client(headers={"X-Api-Key": KEY}) as client:
        answer = client.post(f"{guarded.inference}/completion", json={"prompt": "x", "model": "whatever"})
        listed = client.get(f"{guarded.inference}/v1/models").json()["data"][0]["id"]
        by_alias = client.post(f"{guarded.main}/completion", json={"prompt": "x", "model": "my-alias"})
    assert (answer.json()["model"], listed, by_alias.status_code) == ("my-alias", "my-alias", 200)


def test_wingmans_page_gets_no_null(guarded: Ports) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "stream": True}
    with httpx.Client(headers={"X-Api-Key": KEY}) as client:
        text = client.post(f"{guarded.inference}/v1/chat/completions", json=body).text
    assert '"delta":{"role":"assistant"}' in text


@pytest.mark.parametrize("chunked", [True, False])
def test_bodies_are_bounded_however_they_come(guarded: Ports, chunked: bool) -> None:
    body = b'{"prompt": "' + b"x" * 200_000 + b'"}'
    content = iter([body[:100_000], body[100_000:]]) if chunked else body
    response = httpx.post(f"{guarded.inference}/completion", content=content, headers={"X-Api-Key": KEY})
    assert response.status_code == 413
    assert response.json()["error"]["code"] == 413


def test_every_page_may_ask_what_it_may_do(ports: Ports) -> None:
    for path in ("/v1/chat/completions", "/completions", "/no/such"):
        asked = {
            "Origin": EVIL,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "Authorization",
        }
        response = httpx.options(f"{ports.inference}{path}", headers=asked)
        assert (response.status_code, response.content) == (200, b"")
        assert response.headers["access-control-allow-origin"] == EVIL
        assert response.headers["access-control-allow-credentials"] == "true"
        assert response.headers["access-control-allow-methods"] == "GET, POST, DELETE, OPTIONS"
        assert response.headers["access-control-allow-headers"] == "*"


def test_pages_of_this_machine_may_use_the_inference_port_and_others_may_not(
    ports: Ports, guarded: Ports
) -> None:
    own = httpx.post(
        f"{ports.inference}/completion", json={"prompt": "x"}, headers={"Origin": "http://localhost:1420"}
    )
    foreign = httpx.post(f"{ports.inference}/completion", json={"prompt": "x"}, headers={"Origin": EVIL})
    reading = httpx.get(f"{ports.inference}/slots", headers={"Origin": EVIL})
    pretending = httpx.get(
        f"{ports.inference}/slots", headers={"Origin": EVIL, "Authorization": "Bearer any"}
    )
    public = httpx.get(f"{ports.inference}/health", headers={"Origin": EVIL})
    with_key = httpx.post(
        f"{guarded.inference}/completion", json={"prompt": "x"}, headers={"Origin": EVIL, "X-Api-Key": KEY}
    )

    assert own.headers["access-control-allow-origin"] == "http://localhost:1420"
    assert (foreign.status_code, foreign.json()["error"]["type"]) == (403, "permission_error")
    assert foreign.headers["access-control-allow-origin"] == EVIL  # so that the page's developer can read why
    assert "access-control-allow-origin" not in reading.headers
    assert "access-control-allow-origin" not in pretending.headers
    assert public.headers["access-control-allow-origin"] == EVIL
    assert (with_key.status_code, with_key.headers["access-control-allow-origin"]) == (200, EVIL)


def test_other_names_of_this_machine_are_refused(ports: Ports) -> None:
    response = httpx.get(f"{ports.inference}/health", headers={"Host": "evil.example"})
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
