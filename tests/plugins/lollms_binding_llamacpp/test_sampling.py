"""Choosing tokens: cut candidates choose what all of them would, grammars bind, probabilities add up."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama
import numpy as np
import pytest

from lollms_binding_llamacpp import candidates
from lollms_binding_llamacpp.candidates import largest, log_probabilities
from lollms_binding_llamacpp.grammar_limits import check_grammar
from lollms_binding_llamacpp.json_schema import schema_grammar
from lollms_binding_llamacpp.library import GUIDE, PACKAGED
from lollms_binding_llamacpp.native import Model, Vocabulary, start_backend
from lollms_binding_llamacpp.parameters import Sampling, read_sampling
from lollms_binding_llamacpp.sampling import Sampler
from lollms_kernel.errors import GenerationFailed, InvalidRequest

BIG = 50_000


@pytest.fixture(scope="module")
def vocabulary() -> Iterator[Vocabulary]:
    start_backend(verbose=False)
    model = Model(PACKAGED / f"{GUIDE}.gguf", vocabulary_only=True)
    yield model.vocabulary
    model.close()


def logits_of(seed: int, size: int = BIG) -> Any:
    return np.random.default_rng(seed).normal(0, 3, size).astype(np.float32)


CHAINS: list[dict[str, Any]] = [
    {},
    {"temperature": 0},
    {"temperature": 0, "repeat_penalty": 1.3},
    {"top_k": 5, "top_p": 0.5},
    {"top_k": 200, "min_p": 0.0, "top_p": 1.0, "temperature": 2.0},
    {"repeat_penalty": 1.2, "presence_penalty": 0.5, "frequency_penalty": 0.3, "repeat_last_n": 8},
    {"repeat_penalty": 1.2, "repeat_last_n": -1},
    {"dry_multiplier": 0.8, "dry_allowed_length": 1, "dry_penalty_last_n": -1},
    {"logit_bias": ((7, 8.0), (7, 1.5), (9, -math.inf), (11, 5.0))},
    {"xtc_probability": 0.7, "xtc_threshold": 0.05, "min_p": 0.0},
    {"dynatemp_range": 0.5, "dynatemp_exponent": 1.3},
    {"typical_p": 0.6, "min_keep": 3},
    {"samplers": ("top_k", "temperature"), "top_k": 30},
    {"samplers": ("top_p", "top_k"), "top_p": 0.3},
    {"samplers": ("temperature", "min_p"), "min_p": 0.2},
    {"top_n_sigma": 1.5},
    {"adaptive_target": 0.4, "samplers": ("top_k", "min_p", "adaptive_p")},
    {"mirostat": 1},
    {"mirostat": 2, "mirostat_tau": 3.0},
    {"top_k": 0, "top_p": 0.9},
    {"ignore_eos": True},
]


@pytest.mark.parametrize("given", CHAINS, ids=str)
def test_cut_candidates_choose_what_all_of_them_would(vocabulary: Vocabulary, given: dict[str, Any]) -> None:
    sampling = Sampling(**given)
    cut = Sampler(sampling, vocabulary, 42, 512)
    whole = Sampler(sampling, vocabulary, 42, 512, cut=False)
    prompt = [3, 4, 5, 3, 4, 5, 3, 4]
    for sampler in (cut, whole):
        sampler.see(prompt)
    chosen = []
    for seed in range(25):
        logits = logits_of(seed % 9)
        before = logits.copy()
        pair = (cut.sample(logits), whole.sample(logits))
        assert pair[0] == pair[1], seed
        assert (logits == before).all()
        chosen.append(pair[0])
    if sampling.temperature or sampling.mirostat:
        assert len(set(chosen)) > 3


def test_the_chain_is_llama_servers(vocabulary: Vocabulary) -> None:
    """Built here by hand, in the order of llama-server's documentation, with its defaults."""
    chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
    for sampler in (
        llama.llama_sampler_init_penalties(vocabulary.size, 64, 1.1, 0.2, 0.1),
        llama.llama_sampler_init_top_k(40),
        llama.llama_sampler_init_typical(1.0, 0),
        llama.llama_sampler_init_top_p(0.95, 0),
        llama.llama_sampler_init_min_p(0.05, 0),
        llama.llama_sampler_init_xtc(0.5, 0.1, 0, 7),
        llama.llama_sampler_init_temp_ext(0.8, 0.0, 1.0),
        llama.llama_sampler_init_dist(7),
    ):
        llama.llama_sampler_chain_add(chain, sampler)
    given = {"repeat_penalty": 1.1, "frequency_penalty": 0.2, "presence_penalty": 0.1, "xtc_probability": 0.5}
    ours = Sampler(read_sampling({**given, "seed": 7}, {}), vocabulary, 7, 512)
    prompt = list(range(30))
    ours.see(prompt)
    for token in prompt:
        llama.llama_sampler_accept(chain, token)
    for seed in range(30):
        logits = logits_of(seed % 5)
        array = candidates.everything(logits)
        array.apply(chain)
        llama.llama_sampler_accept(chain, array.selected)
        assert ours.sample(logits) == array.selected
    llama.llama_sampler_free(chain)


def test_equal_logits_are_never_cut() -> None:
    logits = logits_of(1)
    assert largest(logits, 10) is not None
    order = np.argsort(-logits)
    logits[order[3]] = logits[order[4]]
    assert largest(logits, 10) is None
    assert largest(logits, 2) is not None
    logits[0] = np.nan
    assert largest(logits, 40_000) is None


def test_a_probability_is_told_with_its_alternatives(vocabulary: Vocabulary) -> None:
    logits = logits_of(3, 2048)
    exact = np.exp(logits.astype(np.float64) - np.log(np.exp(logits.astype(np.float64)).sum()) * 1)
    sampler = Sampler(Sampling(n_probs=5), vocabulary, 1, 512)
    token = sampler.sample(logits)
    assert token is not None
    told = sampler.probability(token, logits)
    assert told.id == token
    assert told.piece == vocabulary.piece(token, special=True)
    assert math.isclose(math.exp(told.logprob), exact[token], rel_tol=1e-6)
    assert [entry.id for entry in told.top] == list(np.argsort(-logits)[:5])
    assert [entry.logprob for entry in told.top] == sorted((e.logprob for e in told.top), reverse=True)

    after = Sampler(Sampling(n_probs=50, post_sampling_probs=True, top_k=3), vocabulary, 1, 512)
    token = after.sample(logits)
    assert token is not None
    told = after.probability(token, logits)
    assert 0 < len(told.top) <= 3
    assert math.isclose(sum(math.exp(entry.logprob) for entry in told.top), 1, rel_tol=1e-5)
    assert log_probabilities(logits, 0)[0] == []


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the guide's vocabulary as if it were large."""
    monkeypatch.setattr(candidates, "SMALL", 100)
    monkeypatch.setattr(candidates, "_ROWS", 2)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("given", [{}, {"temperature": 0}, {"top_k": 0}, {"repeat_penalty": 1.5}], ids=str)
def test_a_grammar_binds_and_cutting_does_not_matter(vocabulary: Vocabulary, given: dict[str, Any]) -> None:
    grammar = 'root ::= "yes, " ("no" | "maybe") " " [0-9]+'
    texts = []
    for cut in (True, False):
        sampler = Sampler(Sampling(**given), vocabulary, 3, 512, grammar, cut=cut)
        tokens: list[int] = []
        for seed in range(20):
            token = sampler.sample(logits_of(seed, 2048))
            if token is None or token in vocabulary.end_tokens:
                break
            tokens.append(token)
        texts.append(b"".join(map(vocabulary.piece, tokens)).decode())
        sampler.close()
    assert texts[0] == texts[1]
    assert "yes, maybe 0123456789".startswith(texts[0][:5])


LAZY = [
    ([{"type": "word", "value": "<call>"}], True),
    ([{"type": 1, "value": "<call>"}], True),
    ([{"type": "pattern", "value": r"(<ca[l]+>)"}], True),
    ([{"type": "pattern_full", "value": r"[\s\S]*(<call>)"}], True),
    ([{"type": "word", "value": "never"}], False),
]


@pytest.mark.parametrize(("triggers", "bound"), LAZY)
def test_a_lazy_grammar_begins_with_its_trigger(
    vocabulary: Vocabulary, triggers: list[dict[str, Any]], bound: bool
) -> None:
    given = {
        "grammar": 'root ::= "<call>" [0-9]+',
        "grammar_lazy": True,
        "grammar_triggers": triggers,
        "temperature": 0,
    }
    sampling = read_sampling(given, {})
    sampler = Sampler(sampling, vocabulary, 1, 512, sampling.grammar)
    logits = np.zeros(vocabulary.size, np.float32)
    for token in vocabulary.tokenize("well, <call>", special=False):
        wanted = logits.copy()
        wanted[token] = 9
        assert sampler.sample(wanted) == token
    free = logits_of(5, vocabulary.size)
    after = sampler.sample(free)
    assert after is not None
    assert vocabulary.piece(after).isdigit() or not bound
    assert (after == int(np.argmax(free))) is not bound


def test_an_answer_that_leaves_a_lazy_grammar_fails_alone(vocabulary: Vocabulary) -> None:
    given = {
        "grammar": 'root ::= "other"',
        "grammar_lazy": True,
        "grammar_triggers": ["<call>"],
        "temperature": 0,
    }
    sampling = read_sampling(given, {})
    sampler = Sampler(sampling, vocabulary, 1, 512, sampling.grammar)
    with pytest.raises(GenerationFailed, match="trigger"):
        for token in vocabulary.tokenize("<call>", special=False):
            logits = np.zeros(vocabulary.size, np.float32)
            logits[token] = 9
            sampler.sample(logits)


@pytest.mark.parametrize(
    "grammar",
    [
        "root ::= " + "(" * 50_000 + '"a"' + ")" * 50_000,
        "root ::= (",
        "root ::= root root",
        'root ::= "a"{1,99999999999999999999}',
        'root ::= ("a"{1,1000}){1,1000}',
        "root ::= undefined",
        "\n".join(f"r{n} ::= r{n + 1}" for n in range(5000)),
        'root ::= ("a"?){1,900}',
        'root ::= x x x x x x x x\nx ::= ("a"?){1,200}',
        "\n".join(
            ["root ::= r0", *(f"r{n} ::= r{n + 1} r{n + 1} | r{n + 1}" for n in range(12)), 'r12 ::= "a"?']
        ),
        'start ::= "a"',
        'root ::= "a\0"',
        "root ::= [\\xZZ]",
    ],
    ids=lambda text: text[:30],
)
def test_grammars_that_could_do_harm_are_refused(vocabulary: Vocabulary, grammar: str) -> None:
    with pytest.raises(InvalidRequest):
        Sampler(Sampling(), vocabulary, 1, 64, grammar)


@pytest.mark.parametrize("pattern", ["(", "(a+)+$", "(?P<x>a*)*", "x" * 600])
def test_patterns_that_could_do_harm_are_refused(vocabulary: Vocabulary, pattern: str) -> None:
    given = {
        "grammar": 'root ::= "a"',
        "grammar_lazy": True,
        "grammar_triggers": [{"type": 2, "value": pattern}],
    }
    with pytest.raises(InvalidRequest):
        sampling = read_sampling(given, {})
        Sampler(sampling, vocabulary, 1, 64, sampling.grammar)


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        deep(300),
        {"type": "array", "items": {"type": "string"}, "minItems": 10**9},
        {"type": "string", "minLength": 5000},
        {"type": "string", "maxLength": -1},
        {"type": "nothing"},
        {"type": 5},
        {"$ref": "https://example.com/schema.json"},
        {"$ref": "#/definitions/missing"},
        {"anyOf": [{"enum": list(range(30_000))}]},
        [],
        5,
        False,
        {"type": "string", "pattern": "^" + "(" * 500 + ")" * 500 + "$"},
    ],
    ids=lambda schema: json.dumps(schema)[:40],
)
def test_schema_bombs_are_refused_and_never_left_unbound(vocabulary: Vocabulary, schema: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        grammar = schema_grammar(json.dumps(schema))
        Sampler(Sampling(), vocabulary, 1, 64, grammar)
    assert caught.value.hint


def test_schemas_become_grammars_that_parse(vocabulary: Vocabulary) -> None:
    for schema in (
        {},
        True,
        {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
        {"$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n"},
        {"enum": ["a", 1, None]},
        {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": 3},
    ):
        grammar = schema_grammar(json.dumps(schema))
        check_grammar(grammar)
        Sampler(Sampling(), vocabulary, 1, 64, grammar).close()


def test_grammars_of_many_parts_that_can_be_followed_are_taken(vocabulary: Vocabulary) -> None:
    properties = {f"p{number}": {"type": "string", "maxLength": 300} for number in range(20)}
    for grammar in (
        schema_grammar(json.dumps({"type": "object", "properties": properties})),
        'root ::= ("a" | "a" "a")* [a-z]{0,900} # a comment\n',
        'root ::= line+\nline ::= [^\\n"\\]\\x00-\\x1F]* "\\n" | "\\u00e9" . | <[5]>',
    ):
        check_grammar(grammar)
        Sampler(Sampling(), vocabulary, 1, 64, grammar).close()


ECHOED: dict[str, Any] = {
    "temperature": 0.5, "dynatemp_range": 0.1, "dynatemp_exponent": 2.0, "top_k": 3, "top_p": 0.5, "min_p": 0.25,
    "top_n_sigma": 2.0, "typical_p": 0.5, "xtc_probability": 0.25, "xtc_threshold": 0.25, "repeat_penalty": 1.5,
    "repeat_last_n": 9, "presence_penalty": 0.5, "frequency_penalty": 0.25, "dry_multiplier": 0.5, "dry_base": 2.0,
    "dry_allowed_length": 4, "dry_penalty_last_n": 17, "dry_sequence_breakers": ["a"], "mirostat": 2,
    "mirostat_tau": 4.0, "mirostat_eta": 0.5, "adaptive_target": 0.5, "adaptive_decay": 0.5, "min_keep": 2,
    "samplers": ["top_k", "temperature"], "seed": 11, "n_probs": 1, "post_sampling_probs": True, "n_keep": 3,
    "n_discard": 4, "n_indent": 0, "t_max_predict_ms": 99, "stop": ["zz"], "n_predict": 2, "ignore_eos": False,
    "cache_prompt": False, "timings_per_token": True, "preserved_tokens": ["<|im_end|>"], "n_cache_reuse": 1,
}  # fmt: skip


async def test_every_parameter_is_echoed_as_it_is_in_force(
    make_model: Callable[..., Path], make_binding: Any, ask: Any
) -> None:
    make_model()
    binding = await make_binding()
    grammar = {
        "grammar": 'root ::= "b"',
        "grammar_lazy": True,
        "grammar_triggers": [{"type": 1, "value": "b"}],
    }
    bias = {"logit_bias": [[5, 1.5], [6, False]]}
    chunks = await ask(binding, raw_prompt="a", want_tokens=True, parameters={**ECHOED, **grammar, **bias})
    echoed = chunks[-1].metadata["engine"]["generation_settings"]
    assert {name: echoed[name] for name in ECHOED} == ECHOED
    assert echoed["max_tokens"] == 2
    assert echoed["logit_bias"] == [{"token": 5, "bias": 1.5}, {"token": 6, "bias": None}]
    assert {name: echoed[name] for name in grammar} == grammar
    assert echoed["lora"] == []
