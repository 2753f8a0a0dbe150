"""The prompt that asks a model to fill a gap, as llama-server makes it of prefix, suffix and context."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lollms_kernel.errors import NotSupported
from lollms_kernel.types import Infill

if TYPE_CHECKING:  # imports llama.cpp
    from .native import Vocabulary

_NEEDED = {"pre": "prefix", "suf": "suffix", "mid": "middle"}
_SNIPPET = "\n\n--- snippet ---\n\n"


def missing_infill_token(vocabulary: Vocabulary) -> str | None:
    """Which of the tokens that infill needs the model lacks; None if it has all."""
    tokens = vocabulary.infill_tokens()
    return next((name for key, name in _NEEDED.items() if tokens[key] < 0), None)


def infill_tokens(
    vocabulary: Vocabulary, gap: Infill, *, n_batch: int, n_ctx: int, n_predict: int
) -> list[int]:
    """The prompt's tokens. Raises NotSupported where the model was not made for it.

    The prefix keeps its end and the suffix its beginning where they are too long for a batch; what is left of the
    context goes to `extra`, of which the end is kept.
    """
    missing = missing_infill_token(vocabulary)
    if missing is not None:
        raise NotSupported(
            f"Infill is not supported by this model: {missing} token is missing.",
            hint="Use a model that was trained to fill gaps.",
        )
    marks = vocabulary.infill_tokens()

    def plain(text: str) -> list[int]:
        return vocabulary.tokenize(text, special=False)

    prompt = plain(gap.prompt)
    prefix, suffix = plain(gap.prefix), plain(gap.suffix)
    prefix = prefix[max(0, len(prefix) - 3 * (n_batch // 4)) :]
    suffix = suffix[: max(0, n_batch // 4 - (2 + len(prompt)))]
    extra: list[int] = []
    if marks["rep"] >= 0:
        extra += [marks["rep"], *plain("myproject\n")]
    for name, text in gap.extra:
        extra += [marks["sep"], *plain(f"{name}\n")] if marks["sep"] >= 0 else plain(_SNIPPET)
        extra += plain(text)
    if marks["sep"] >= 0:
        extra += [marks["sep"], *plain("filename\n")]
    room = max(0, n_ctx - n_batch - 2 * max(n_predict, 0))
    extra = extra[max(0, len(extra) - room) :]
    bos = [vocabulary.bos] if vocabulary.add_bos and vocabulary.bos >= 0 else []
    return [*extra, *bos, marks["pre"], *prefix, *prompt, marks["suf"], *suffix, marks["mid"]]
