"""`/rerank`: documents by how well they answer a query."""

from __future__ import annotations

from typing import Any

from lollms_kernel.contracts import Reranks
from lollms_kernel.errors import InvalidRequest, NotSupported

from .call import Call
from .fields import INT32, Fields
from .target import choose

MAX_DOCUMENTS = 4096


async def rerank(call: Call) -> None:
    """Jina's shape, or that of TEI where the documents come as `texts`."""
    fields = await call.json()
    query, documents, is_tei = _read(fields)
    top = fields.integer("top_n", 1, INT32)
    with_text = fields.flag("return_text" if is_tei else "return_documents")
    target = await choose(call, fields)
    if not isinstance(target.binding, Reranks):
        raise NotSupported(
            f"Binding instance '{target.instance}' does not rerank.", hint="Start it with a reranking model."
        )
    ranking = await target.binding.rerank(query, documents, target.model, call.tenant)
    best = sorted(range(len(documents)), key=lambda number: -ranking.scores[number])[:top]
    if is_tei:
        answer: list[dict[str, Any]] = [{"index": n, "score": ranking.scores[n]} for n in best]
        for entry in answer if with_text else ():
            entry["text"] = documents[entry["index"]]
        await call.send_json(answer)
        return
    results: list[dict[str, Any]] = [{"index": n, "relevance_score": ranking.scores[n]} for n in best]
    for entry in results if with_text else ():
        entry["document"] = {"text": documents[entry["index"]]}
    usage = {"prompt_tokens": ranking.tokens, "total_tokens": ranking.tokens}
    await call.send_json({"model": target.shown, "object": "list", "usage": usage, "results": results})


def _read(fields: Fields) -> tuple[str, list[str], bool]:
    query = fields.get("query")
    if query is None:
        raise InvalidRequest('"query" must be provided')
    if not isinstance(query, str):
        raise InvalidRequest('"query" must be a string')
    is_tei = "texts" in fields
    documents = fields.get("texts" if is_tei else "documents")
    if isinstance(documents, list):
        documents = [item.get("text") if isinstance(item, dict) else item for item in documents]
    if (
        not isinstance(documents, list)
        or not documents
        or not all(isinstance(item, str) for item in documents)
    ):
        raise InvalidRequest('"documents" must be a non-empty string array')
    if len(documents) > MAX_DOCUMENTS:
        raise InvalidRequest(f"At most {MAX_DOCUMENTS} documents are taken at once.")
    return query, documents, is_tei
