"""Chooses tokens: the sampling parameters as a chain of llama.cpp's samplers, in llama-server's order."""

from __future__ import annotations

import ctypes
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import llama_cpp.llama_cpp as llama
import numpy as np

from lollms_kernel.types import TokenProbability

from .candidates import Candidates, everything, largest, log_probabilities
from .grammar import Grammar
from .native import Vocabulary
from .parameters import Sampling

_MIROSTAT_M = 100
_GROWTH = 8


class Sampler:
    """Chooses the next token of one generation. Raises InvalidRequest for a grammar or a bias that cannot be used.

    `cut` false makes it look at the whole vocabulary always; what it chooses is the same.
    """

    def __init__(
        self,
        sampling: Sampling,
        vocabulary: Vocabulary,
        seed: int,
        n_ctx: int,
        grammar: str | None = None,
        cut: bool = True,
    ) -> None:
        self._sampling = sampling
        self._vocabulary = vocabulary
        self.biases = tuple(_biases(sampling, vocabulary))
        self._window = _window(sampling, n_ctx)
        self._recent: deque[int] = deque(maxlen=self._window)
        self._cut = _candidates_needed(sampling) if cut else None
        self._greedy = cut and _is_greedy(sampling) and not self.biases and not self._window
        lazy = sampling.grammar_triggers if sampling.grammar_lazy else ()
        self._grammar = Grammar(grammar, vocabulary, lazy) if grammar else None
        self._chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        for sampler in _samplers(sampling, vocabulary, n_ctx, seed):
            llama.llama_sampler_chain_add(self._chain, sampler)
        self._chosen: Candidates | None = None
        self.preserved = frozenset(_preserved(sampling, vocabulary))
        """Control tokens whose names are shown in the text."""
        self._closed = False

    def see(self, tokens: Sequence[int]) -> None:
        """Let the repetition penalties know the prompt."""
        if not self._window:
            return
        for token in tokens[max(0, len(tokens) - self._window) :]:
            llama.llama_sampler_accept(self._chain, token)
            self._recent.append(token)

    def sample(self, logits: Any) -> int | None:
        """The next token; None where the grammar is complete and allows none. The logits are left as they are."""
        grammar = self._grammar
        token = self._choose(logits)
        # Asking the grammar about every token of a large vocabulary is slow, so it is first asked about the one that
        # would be chosen without it, which nearly always fits.
        if grammar is not None and grammar.binds and not (token >= 0 and grammar.fits(token)):
            token = self._choose_within(logits, grammar)
            if token < 0 or not grammar.fits(token):
                return None
        if token < 0:
            return None
        if grammar is not None:
            grammar.accept(token)
        if not self._greedy:
            llama.llama_sampler_accept(self._chain, token)
            if self._window:
                self._recent.append(token)
        return token

    def probability(self, token: int, logits: Any) -> TokenProbability:
        """How likely the token was that `sample` just gave, with the likeliest alternatives."""
        count = self._sampling.n_probs
        if self._sampling.post_sampling_probs:
            left = self._chosen.probabilities() if self._chosen is not None else [(token, 1.0)]
            own = next((p for id, p in left if id == token), 0.0)
            top = [(id, math.log(p)) for id, p in left[:count] if p > 0]
            return self._told(token, math.log(own) if own > 0 else -math.inf, top)
        top, total = log_probabilities(logits, count)
        return self._told(token, float(logits[token]) - total, top)

    def close(self) -> None:
        """Give the samplers' memory back."""
        if self._closed:
            return
        self._closed = True
        llama.llama_sampler_free(self._chain)
        if self._grammar is not None:
            self._grammar.close()

    def __del__(self) -> None:
        if hasattr(self, "_closed"):  # a job that was never started
            self.close()

    def _told(self, token: int, logprob: float, top: Iterable[tuple[int, float]]) -> TokenProbability:
        piece = self._vocabulary.piece
        others = tuple(TokenProbability(id, piece(id), value) for id, value in top)
        return TokenProbability(token, piece(token), logprob, others)

    def _choose(self, logits: Any) -> int:
        if self._greedy:
            self._chosen = None
            return int(np.argmax(logits))
        chosen = None if self._cut is None else largest(logits, self._needed(self._cut), self._touched())
        return self._run(chosen or everything(logits))

    def _choose_within(self, logits: Any, grammar: Grammar) -> int:
        keep = 1 if self._greedy else self._cut
        count = 0 if keep is None else self._needed(keep) * _GROWTH
        while count:
            chosen = largest(logits, count, self._touched())
            if chosen is None:
                break
            chosen.apply(grammar.pointer)
            if chosen.allowed >= self._needed(keep or 1):
                return self._run(chosen)
            count *= _GROWTH
        chosen = everything(logits)
        chosen.apply(grammar.pointer)
        return self._run(chosen)

    def _run(self, candidates: Candidates) -> int:
        candidates.bias(self.biases)
        candidates.apply(self._chain)
        self._chosen = candidates
        return candidates.selected

    def _needed(self, keep: int) -> int:
        """How many of the largest logits are sure to have `keep` among them that nothing touches."""
        return keep + len(self._touched())

    def _touched(self) -> set[int]:
        """Tokens whose logits are changed before the candidates are cut."""
        return {*self._recent, *(token for token, _ in self.biases)}


def _window(sampling: Sampling, n_ctx: int) -> int:
    """How many of the last tokens the penalties look at."""
    if sampling.mirostat:
        return 0
    window = 0
    penalties = (sampling.repeat_penalty, sampling.frequency_penalty, sampling.presence_penalty)
    if "penalties" in sampling.samplers and penalties != (1.0, 0.0, 0.0):
        window = _last(sampling.repeat_last_n, n_ctx)
    if "dry" in sampling.samplers and sampling.dry_multiplier:
        window = max(window, _last(sampling.dry_penalty_last_n, n_ctx))
    return window


def _last(count: int, n_ctx: int) -> int:
    return n_ctx if count < 0 else min(count, n_ctx)


def _candidates_needed(sampling: Sampling) -> int | None:
    """The k of the top-k that comes before everything that looks at all candidates; None if there is none."""
    if sampling.mirostat:
        return None
    for name in sampling.samplers:
        if name in ("penalties", "dry") or (name == "top_n_sigma" and sampling.top_n_sigma <= 0):
            continue
        return sampling.top_k if name == "top_k" and sampling.top_k > 0 else None
    return None


def _is_greedy(sampling: Sampling) -> bool:
    """Whether the chain always takes the largest logit."""
    return (
        sampling.temperature <= 0
        and not sampling.mirostat
        and sampling.dynatemp_range <= 0
        and "temperature" in sampling.samplers
        and "infill" not in sampling.samplers
        and "adaptive_p" not in sampling.samplers
        and not (sampling.typical_p < 1 and "typ_p" in sampling.samplers)
        and not (sampling.xtc_probability > 0 and "xtc" in sampling.samplers)
        and not (sampling.n_probs and sampling.post_sampling_probs)
    )


def _samplers(sampling: Sampling, vocabulary: Vocabulary, n_ctx: int, seed: int) -> Iterator[Any]:
    """As llama-server builds its chain; biases are added before, in the same arithmetic."""
    tau, eta = sampling.mirostat_tau, sampling.mirostat_eta
    if sampling.mirostat == 1:
        yield llama.llama_sampler_init_temp(sampling.temperature)
        yield llama.llama_sampler_init_mirostat(vocabulary.size, seed, tau, eta, _MIROSTAT_M)
        return
    if sampling.mirostat == 2:
        yield llama.llama_sampler_init_temp(sampling.temperature)
        yield llama.llama_sampler_init_mirostat_v2(seed, tau, eta)
        return
    for name in sampling.samplers:
        if name != "adaptive_p":
            yield _sampler(name, sampling, vocabulary, n_ctx, seed)
    if "adaptive_p" in sampling.samplers:
        yield llama.llama_sampler_init_adaptive_p(sampling.adaptive_target, sampling.adaptive_decay, seed)
    else:
        yield llama.llama_sampler_init_dist(seed)


def _sampler(name: str, sampling: Sampling, vocabulary: Vocabulary, n_ctx: int, seed: int) -> Any:
    keep = sampling.min_keep
    match name:
        case "penalties":
            return llama.llama_sampler_init_penalties(
                vocabulary.size,
                _last(sampling.repeat_last_n, n_ctx),
                sampling.repeat_penalty,
                sampling.frequency_penalty,
                sampling.presence_penalty,
            )
        case "dry":
            breakers = [text.encode("utf-8", "replace") for text in sampling.dry_sequence_breakers]
            return llama.llama_sampler_init_dry(
                vocabulary.pointer,
                sampling.dry_multiplier,
                sampling.dry_base,
                sampling.dry_allowed_length,
                _last(sampling.dry_penalty_last_n, n_ctx),
                (ctypes.c_char_p * len(breakers))(*breakers),
                len(breakers),
            )
        case "top_n_sigma":
            return llama.llama_sampler_init_top_n_sigma(sampling.top_n_sigma)
        case "top_k":
            return llama.llama_sampler_init_top_k(sampling.top_k)
        case "typ_p":
            return llama.llama_sampler_init_typical(sampling.typical_p, keep)
        case "top_p":
            return llama.llama_sampler_init_top_p(sampling.top_p, keep)
        case "min_p":
            return llama.llama_sampler_init_min_p(sampling.min_p, keep)
        case "xtc":
            return llama.llama_sampler_init_xtc(sampling.xtc_probability, sampling.xtc_threshold, keep, seed)
        case "infill":
            return llama.llama_sampler_init_infill(vocabulary.pointer)
        case _:
            return llama.llama_sampler_init_temp_ext(
                sampling.temperature, sampling.dynatemp_range, sampling.dynatemp_exponent
            )


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
            yield token, -math.inf
    for token in vocabulary.suppressed:
        yield token, -math.inf


def _preserved(sampling: Sampling, vocabulary: Vocabulary) -> Iterator[int]:
    for entry in sampling.preserved_tokens:
        if isinstance(entry, int):
            vocabulary.check(entry)
            yield entry
        else:
            tokens = vocabulary.tokenize(entry, special=True)
            if len(tokens) == 1:
                yield tokens[0]
