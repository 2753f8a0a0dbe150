"""Embeddings with every way of pooling, and ranks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from lollms_binding_llamacpp import LlamaCppBinding
from lollms_kernel.errors import InvalidRequest, NotSupported
from lollms_kernel.types import EmbeddingOptions, GenerateRequest

MakeBinding = Callable[..., Awaitable[LlamaCppBinding]]
TEXTS: list[list[int | str]] = [["red cat"], ["blue dog"], ["green"], [""]]


async def vectors(binding: LlamaCppBinding, model: str = "encoder", **options: Any) -> list[Any]:
    made = await binding.embed_inputs(TEXTS, model, EmbeddingOptions(**options))
    return [np.array(embedding.vectors) for embedding in made]


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
async def test_an_encoder_pools_as_the_settings_say(
    make_encoder: Any, make_binding: MakeBinding, pooling: str
) -> None:
    make_encoder()
    tokens = await make_binding(pooling="none")
    rows = await vectors(tokens)
    assert [len(of_one) for of_one in rows] == [4, 4, 3, 2]  # [CLS] and [SEP] are added
    pooled = await vectors(await make_binding(pooling=pooling), normalize=-1)
    for of_one, of_all in zip(pooled, rows, strict=True):
        expected = {"mean": of_all.mean(axis=0), "cls": of_all[0], "last": of_all[-1]}[pooling]
        assert of_one.shape == (1, 32)
        assert np.allclose(of_one[0], expected, atol=1e-4)


async def test_vectors_are_normalised_and_cut(make_encoder: Any, make_binding: MakeBinding) -> None:
    make_encoder()
    binding = await make_binding()
    assert "embeddings" in (await binding.get_model_info("encoder")).capabilities
    assert "chat" not in (await binding.get_model_info("encoder")).capabilities
    plain = await vectors(binding, normalize=-1)
    for normalize, norm in (
        (2, np.linalg.norm),
        (1, lambda v: np.abs(v).sum()),
        (0, lambda v: np.abs(v).max() / 32760),
    ):
        for of_one, raw in zip(await vectors(binding, normalize=normalize), plain, strict=True):
            assert np.allclose(of_one[0], raw[0] / norm(raw[0]), rtol=1e-4)
    short = await vectors(binding, dimensions=8)
    assert short[0].shape == (1, 8)
    assert np.isclose(np.linalg.norm(short[0]), 1)
    assert np.allclose(await binding.embed(["red cat"], "encoder"), (await vectors(binding))[0])
    for wrong in (EmbeddingOptions(normalize=-2), EmbeddingOptions(dimensions=0)):
        with pytest.raises(InvalidRequest):
            await binding.embed_inputs([["red"]], "encoder", wrong)


async def test_many_inputs_at_once_are_the_same_as_one_by_one(
    make_encoder: Any, make_binding: MakeBinding
) -> None:
    make_encoder()
    binding = await make_binding()
    words = "red green blue cat dog".split()
    pairs: list[list[int | str]] = [[f"{a} {b}"] for a in words for b in words]
    inputs = pairs * 8
    together = await asyncio.gather(
        *(binding.embed_inputs(inputs, "encoder", EmbeddingOptions()) for _ in range(3))
    )
    alone = [(await binding.embed_inputs([one], "encoder", EmbeddingOptions()))[0] for one in inputs[:25]]
    for made in together:
        assert len(made) == 200
        for one, other in zip(made, alone, strict=False):
            assert np.allclose(one.vectors, other.vectors, atol=1e-3)
            assert one.tokens == other.tokens == 4


async def test_token_ids_and_mixtures_are_taken(make_encoder: Any, make_binding: MakeBinding) -> None:
    make_encoder()
    binding = await make_binding()
    made = await binding.embed_inputs([["red"], [2, 5, 3], [2, 5, "cat"]], "encoder", EmbeddingOptions())
    assert made[0].vectors == made[1].vectors
    assert made[2].tokens == 3
    wrong: list[list[int | str]] = [[99], [-1], []]
    for tokens in wrong:
        with pytest.raises(InvalidRequest):
            await binding.embed_inputs([tokens], "encoder", EmbeddingOptions())
    with pytest.raises(InvalidRequest, match="too large"):
        await binding.embed_inputs([["red " * 100]], "encoder", EmbeddingOptions())
    assert await binding.embed_inputs([], "encoder", EmbeddingOptions()) == []


async def test_an_encoder_makes_no_text(make_encoder: Any, make_binding: MakeBinding) -> None:
    make_encoder()
    binding = await make_binding()
    with pytest.raises(NotSupported):
        await anext(binding.generate(GenerateRequest(id="r", model="encoder.gguf", raw_prompt="red")))
    assert len(await binding.slots("encoder")) == 4
    assert (await binding.engine_metrics("encoder"))["requests_processing"] == 0
    assert (await binding.properties("encoder"))["embeddings"] is True


async def test_a_model_made_for_text_embeds_where_that_is_wanted(
    make_model: Any, make_binding: MakeBinding
) -> None:
    make_model()
    assert "embeddings" not in (await (await make_binding()).get_model_info("alphabet")).capabilities
    with pytest.raises(NotSupported):
        await (await make_binding()).embed(["a"], "alphabet")
    binding = await make_binding(embeddings=True)
    chunks = binding.generate(GenerateRequest(id="r", model="alphabet.gguf", raw_prompt="?"))
    await anext(chunks)  # while it answers
    one, same, other = await binding.embed(["abc", "abc", "xyz"], "alphabet")
    await chunks.aclose()
    assert len(one) == 288
    assert np.allclose(one, same)
    assert not np.allclose(one, other)


async def test_a_reranker_scores_each_document(
    make_encoder: Any, make_model: Any, make_binding: MakeBinding
) -> None:
    make_encoder("ranker.gguf", pooling=4, ranks=True)
    make_encoder("plain.gguf")
    make_model()
    binding = await make_binding()
    assert "rerank" in (await binding.get_model_info("ranker")).capabilities
    documents = ["red cat", "blue dog", "green", "red cat"]
    ranking = await binding.rerank("cat", documents, "ranker", "")
    assert len(ranking.scores) == 4
    assert ranking.scores[0] == pytest.approx(ranking.scores[3], abs=1e-4)
    assert len({round(score, 3) for score in ranking.scores}) == 3
    assert ranking.tokens == 5 + 5 + 4 + 5  # [CLS] cat [SEP] and the words of each
    assert (await binding.rerank("cat", [], "ranker", "")).scores == []
    with pytest.raises(NotSupported):
        await binding.embed(["red"], "ranker")
    for model in ("plain", "alphabet"):
        with pytest.raises(NotSupported):
            await binding.rerank("cat", documents, model, "")
        # llama.cpp would end the process if a model without the head were made to rank
        with pytest.raises(NotSupported):
            await (await make_binding(reranking=True)).rerank("cat", documents, model, "")
