"""Chooses tokens: the sampling parameters as a chain of llama.cpp's samplers."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any

import llama_cpp.llama_cpp as llama
import numpy as np

from lollms_kernel.errors import InvalidRequest

from .native import Context, Vocabulary, complaints
from .parameters import Sampling

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
_MIROSTAT_M = 100


class Sampler:
    """Chooses the next token of one generation. Raises InvalidRequest for a grammar or a bias that cannot be used."""

    def __init__(self, sampling: Sampling, vocabulary: Vocabulary, seed: int, n_ctx: int) -> None:
        self._last_n = n_ctx if sampling.repeat_last_n < 0 else min(sampling.repeat_last_n, n_ctx)
        biases = list(_biases(sampling, vocabulary))
        grammar = _grammar(sampling)
        self._grammar = _init_grammar(grammar, vocabulary) if grammar else None
        self._n_vocab = vocabulary.size
        parameters = llama.llama_sampler_chain_default_params()
        self._chain = llama.llama_sampler_chain_init(parameters)
        for sampler in _samplers(sampling, vocabulary.size, biases, self._last_n, seed):
            llama.llama_sampler_chain_add(self._chain, sampler)

    def see(self, tokens: Sequence[int]) -> None:
        """Let the repetition penalties know the prompt."""
        for token in tokens[max(0, len(tokens) - self._last_n) :]:
            llama.llama_sampler_accept(self._chain, token)

    def sample(self, context: Context) -> int | None:
        """The next token after the last decoded one; None where the grammar is complete and allows none."""
        if self._grammar is None:
            return int(llama.llama_sampler_sample(self._chain, context.pointer, -1))  # this accepts it too
        # Asking the grammar about every token of a large vocabulary is slow, so it is first asked about the one
        # that would be chosen without it, which nearly always fits.
        token = self._choose(context, within_grammar=False)
        if not self._fits(token):
            token = self._choose(context, within_grammar=True)
            if not self._fits(token):
                return None
        llama.llama_sampler_accept(self._grammar, token)
        llama.llama_sampler_accept(self._chain, token)
        return token

    def close(self) -> None:
        """Give the samplers' memory back."""
        llama.llama_sampler_free(self._chain)
        if self._grammar is not None:
            llama.llama_sampler_free(self._grammar)

    def _choose(self, context: Context, within_grammar: bool) -> int:
        pointer = llama.llama_get_logits_ith(context.pointer, -1)
        candidates = np.zeros(self._n_vocab, _CANDIDATE)
        candidates["id"] = np.arange(self._n_vocab, dtype=np.int32)
        candidates["logit"] = np.ctypeslib.as_array(pointer, (self._n_vocab,))
        array = _as_llama_array(candidates)
        if within_grammar:
            llama.llama_sampler_apply(self._grammar, ctypes.byref(array))
        llama.llama_sampler_apply(self._chain, ctypes.byref(array))
        return int(array.data[array.selected].id)

    def _fits(self, token: int) -> bool:
        single = np.zeros(1, _CANDIDATE)
        single["id"] = token
        array = _as_llama_array(single)
        llama.llama_sampler_apply(self._grammar, ctypes.byref(array))
        return bool(np.isfinite(single["logit"][0]))


def _as_llama_array(candidates: Any) -> Any:
    data = candidates.ctypes.data_as(ctypes.POINTER(llama.llama_token_data))
    return llama.llama_token_data_array(data=data, size=len(candidates), selected=-1, sorted=False)


def _samplers(
    sampling: Sampling, n_vocab: int, biases: Sequence[tuple[int, float]], last_n: int, seed: int
) -> Iterator[Any]:
    """In llama.cpp's order: biases, penalties, what cuts candidates, temperature, the draw."""
    if biases:
        entries = (llama.llama_logit_bias * len(biases))(*biases)
        yield llama.llama_sampler_init_logit_bias(n_vocab, len(biases), entries)
    repeat, frequency, presence = (
        sampling.repeat_penalty,
        sampling.frequency_penalty,
        sampling.presence_penalty,
    )
    if last_n and (repeat, frequency, presence) != (1.0, 0.0, 0.0):
        yield llama.llama_sampler_init_penalties(n_vocab, last_n, repeat, frequency, presence)
    if sampling.temperature == 0:
        yield llama.llama_sampler_init_greedy()
    elif sampling.mirostat == 1:
        yield llama.llama_sampler_init_temp(sampling.temperature)
        tau, eta = sampling.mirostat_tau, sampling.mirostat_eta
        yield llama.llama_sampler_init_mirostat(n_vocab, seed, tau, eta, _MIROSTAT_M)
    elif sampling.mirostat == 2:
        yield llama.llama_sampler_init_temp(sampling.temperature)
        yield llama.llama_sampler_init_mirostat_v2(seed, sampling.mirostat_tau, sampling.mirostat_eta)
    else:
        if sampling.top_k > 0:
            yield llama.llama_sampler_init_top_k(sampling.top_k)
        if sampling.typical_p < 1:
            yield llama.llama_sampler_init_typical(sampling.typical_p, 1)
        if sampling.top_p < 1:
            yield llama.llama_sampler_init_top_p(sampling.top_p, 1)
        if sampling.min_p > 0:
            yield llama.llama_sampler_init_min_p(sampling.min_p, 1)
        yield llama.llama_sampler_init_temp(sampling.temperature)
        yield llama.llama_sampler_init_dist(seed)


def _biases(sampling: Sampling, vocabulary: Vocabulary) -> Iterator[tuple[int, float]]:
    for token, bias in sampling.logit_bias:
        if isinstance(token, int):
            vocabulary.check(token)
            yield token, bias
        else:
            for part in vocabulary.tokenize(token, special=True):
                yield part, bias
    if sampling.ignore_eos:
        for token in sorted(vocabulary.end_tokens):
            yield token, -float("inf")


def _grammar(sampling: Sampling) -> str | None:
    if sampling.json_schema is None:
        return sampling.grammar
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    try:
        return str(json_schema_to_gbnf(sampling.json_schema))
    except Exception as error:  # the converter raises whatever its own assertions and lookups raise
        raise InvalidRequest(
            f"parameters.json_schema cannot be made a grammar: {type(error).__name__}: {str(error)[:200]}",
            hint="Use a JSON schema without remote references; or give a GBNF grammar as `grammar`.",
        ) from error


def _init_grammar(grammar: str, vocabulary: Vocabulary) -> Any:
    complaints()
    sampler = llama.llama_sampler_init_grammar(
        vocabulary.pointer, grammar.encode("utf-8", "replace"), b"root"
    )
    if not sampler:
        reason = "; ".join(complaints()[:2]) or "it has no rule `root`"
        raise InvalidRequest(
            f"parameters.grammar cannot be used: {reason}", hint="It must be GBNF with a rule named `root`."
        )
    return sampler
