"""Routing and pages of a live server: methods, unknown paths, the front page, and documentation without internet."""

from __future__ import annotations

import re

import httpx
import msgspec
import pytest

from lollms_kernel.rest import wire
from lollms_kernel.testing import ServerProcess

KEY = "rest-pages-key"


@pytest.mark.parametrize(
    "path", ["/nope", "/api/v1/nope", "/api/v1", "/api/v1/list_available_models", "/a/b/c"]
)
def test_given_an_unknown_path_when_got_then_404_is_plain_text(client: httpx.Client, path: str) -> None:
    response = client.get(path)
    assert (response.status_code, response.text) == (404, "Not Found")
    assert response.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    "path", ["/api/v1/list_bindings/", "/api/v1/list_models/?x=1", "/health/", "/api/v1/generate"]
)
def test_given_a_path_that_is_none_for_get_when_got_then_404_is_plain_text(
    client: httpx.Client, path: str
) -> None:
    response = client.get(path)
    assert (response.status_code, response.text) == (404, "Not Found")
    assert response.headers["content-type"].startswith("text/plain")


def test_given_a_trailing_slash_when_posted_then_it_is_not_found(client: httpx.Client) -> None:
    response = client.post("/api/v1/generate/", json={"text_prompt": "x"})
    assert (response.status_code, response.json()) == (404, {"detail": "Not Found"})


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_given_a_get_route_when_another_method_is_used_then_405_is_json(
    client: httpx.Client, method: str
) -> None:
    for path in ("/health", "/api/v1/list_bindings", "/api/v1/get_model_info/echo"):
        response = client.request(method, path)
        assert (response.status_code, response.json()) == (405, {"detail": "Method Not Allowed"})
        assert "GET" in response.headers["allow"]


def test_given_a_get_route_when_head_is_used_then_405_has_no_body(client: httpx.Client) -> None:
    response = client.head("/api/v1/list_bindings")
    assert (response.status_code, response.content) == (405, b"")


def test_given_a_post_route_when_put_is_used_then_405_is_json(client: httpx.Client) -> None:
    assert client.put("/api/v1/generate", json={}).status_code == 405


def test_given_the_root_when_got_then_it_says_where_to_go(
    client: httpx.Client, server: ServerProcess
) -> None:
    response = client.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    assert response.text.startswith(
        f"LOLLMS Server is running.\nAPI Docs: {server.url}/docs\nReDoc: {server.url}/redoc\n"
        "Web UI is disabled or build files not found."
    )
    assert "lollms chat" in response.text


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_given_the_docs_when_opened_then_all_they_load_is_here(client: httpx.Client, page: str) -> None:
    response = client.get(page)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert response.headers["content-security-policy"].startswith("default-src 'self'")
    assert "//" not in re.sub(r"<!doctype html>", "", response.text), "an address of another place"
    loaded = re.findall(r'(?:src|href)="([^"]+)"', response.text)
    assert len(loaded) == 4
    for path in loaded:
        part = client.get(path)
        assert part.status_code == 200, path
        assert len(part.content) > 100
        assert part.headers["content-type"].split(";")[0] in ("text/javascript", "text/css", "image/png")
    starter = client.get("/docs/static/show-api.js").text
    assert "//" not in starter.split("\n", 1)[1]
    assert '"/openapi.json"' in starter


@pytest.mark.parametrize(
    "name", ["nope.js", "swagger-ui.LICENSE", "..%2Fwire.py", "..%2F..%2Ferrors.py", "%2Fetc%2Fhosts"]
)
def test_given_a_file_that_is_no_part_of_the_page_when_got_then_404(client: httpx.Client, name: str) -> None:
    assert client.get(f"/docs/static/{name}").status_code == 404


def test_given_the_description_when_read_then_it_covers_every_route_with_real_schemas(
    client: httpx.Client,
) -> None:
    response = client.get("/openapi.json")
    assert response.status_code == 200
    document = response.json()
    assert document["openapi"].startswith("3.1")
    paths = document["paths"]
    gets = (
        "health list_bindings list_active_bindings list_personalities list_functions list_models get_default_bindings "
        "get_default_ttt_context_length list_available_models/{binding_instance_name} "
        "get_model_info/{binding_instance_name}"
    ).split()
    posts = {
        "generate": "GenerateBody",
        "tokenize": "TokenizeBody",
        "detokenize": "DetokenizeBody",
        "count_tokens": "TokenizeBody",
    }
    assert {f"/api/v1/{name}" for name in (*gets, *posts)} | {"/health"} <= paths.keys()
    for name, body in posts.items():
        content = paths[f"/api/v1/{name}"]["post"]["requestBody"]["content"]["application/json"]
        assert content["schema"] == {"$ref": f"#/components/schemas/{body}"}
    schemas = document["components"]["schemas"]
    assert schemas["GenerateBody"]["properties"].keys() == set(wire.GenerateBody.__struct_fields__)
    assert set(schemas["InputData"]["required"]) == {"type", "role", "data"}
    assert schemas["OutputData"]["properties"].keys() == set(wire.OutputData.__struct_fields__)
    references = set(
        re.findall(r'"\$ref":"#/components/schemas/(\w+)"', response.text.replace('": "', '":"'))
    )
    assert references <= schemas.keys()
    assert "ApiKey" in document["components"]["securitySchemes"]
    assert paths["/health"]["get"]["security"] == [{}]


@pytest.fixture(scope="module")
def keyed() -> object:
    """A server that wants a key."""
    with ServerProcess(
        {"security": {"allowed_api_keys": [KEY]}}, {"echo": {"type": "dummy_binding"}}
    ) as server:
        yield server


@pytest.mark.parametrize("path", ["/", "/health", "/api/v1/health", "/docs", "/redoc", "/openapi.json"])
def test_given_a_server_with_keys_when_an_open_page_is_got_then_no_key_is_needed(
    keyed: ServerProcess, path: str
) -> None:
    assert httpx.get(f"{keyed.url}{path}").status_code == 200
    assert httpx.get(f"{keyed.url}/docs/static/show-api.js").status_code == 200
    assert httpx.get(f"{keyed.url}/health").json()["api_key_required"] is True


@pytest.mark.parametrize(
    ("key", "status", "detail"),
    [
        (None, 403, "API Key required but not provided."),
        ("", 403, "API Key required but not provided."),
        ("wrong", 401, "Invalid API Key provided."),
    ],
)
def test_given_a_server_with_keys_when_the_key_is_missing_or_wrong_then_the_body_is_the_published_one(
    keyed: ServerProcess, key: str | None, status: int, detail: str
) -> None:
    headers = {} if key is None else {"X-API-Key": key}
    for method, path in (("GET", "list_bindings"), ("POST", "generate"), ("POST", "tokenize")):
        response = httpx.request(method, f"{keyed.url}/api/v1/{path}", headers=headers, content=b"{")
        assert (response.status_code, response.json()) == (status, {"detail": detail})


def test_given_the_right_key_when_asked_then_every_endpoint_answers(keyed: ServerProcess) -> None:
    with httpx.Client(base_url=f"{keyed.url}/api/v1/", headers={"X-API-Key": KEY}) as client:
        for path in (
            "list_bindings",
            "list_active_bindings",
            "list_personalities",
            "list_functions",
            "list_models",
        ):
            response = client.get(path)
            assert response.status_code == 200
            assert KEY not in response.text
        body = {"text_prompt": "hi", "binding_name": "echo"}
        assert client.post("generate", json=body).json()["output"][0]["data"] == "hi"


def test_given_a_body_that_is_too_large_when_posted_then_413_is_json() -> None:
    with ServerProcess({"server": {"max_body_size": 2048}}, {"echo": {"type": "dummy_binding"}}) as server:
        body = msgspec.json.encode({"text_prompt": "x" * 4096, "binding_name": "echo"})
        announced = httpx.post(f"{server.url}/api/v1/generate", content=body)
        chunked = httpx.post(f"{server.url}/api/v1/generate", content=iter([body]))
    for response in (announced, chunked):
        assert response.status_code == 413, response.text
        assert list(response.json()) == ["detail"]
