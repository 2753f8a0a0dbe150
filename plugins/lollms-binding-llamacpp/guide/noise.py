"""Makes clean questions look typed by people: case, punctuation, contractions, dropped words, typos."""

from __future__ import annotations

import random
import re

HOLE = "\ue000"
"""Stands for a word that noise must not touch (a name, a number, a word to repeat)."""

_CONTRACTIONS = (
    ("do not", "don't"), ("does not", "doesn't"), ("cannot", "can't"), ("can not", "can't"), ("what is", "what's"),
    ("is not", "isn't"), ("i am", "i'm"), ("it is", "it's"), ("will not", "won't"), ("where is", "where's"),
    ("i have", "i've"), ("i would", "i'd"), ("did not", "didn't"), ("are not", "aren't"), ("what are", "whats"),
    ("you are", "you're"), ("that is", "that's"), ("how is", "how's"), ("don't", "dont"), ("what's", "whats"),
    ("can't", "cant"), ("i'm", "im"), ("doesn't", "doesnt"), ("won't", "wont"), ("it's", "its"),
)  # fmt: skip
_SYNONYMS = {
    "find": ("locate", "get to"), "use": ("utilize", "work with"), "show": ("display",), "change": ("modify", "alter"),
    "folder": ("directory",), "directory": ("folder",), "want": ("need", "would like"), "tell": ("let me know",),
    "computer": ("machine", "pc", "box"), "machine": ("computer", "pc"), "error": ("problem", "error message"),
    "command": ("cmd",), "configuration": ("config",), "config": ("configuration",), "please": ("pls", "plz"),
    "you": ("u",), "are": ("r",), "your": ("ur",), "thanks": ("thx",), "terminal": ("console", "shell"),
    "answer": ("reply", "response"), "answers": ("replies", "responses"), "reply": ("answer",), "send": ("pass",),
    "parameter": ("option", "param"), "documentation": ("docs",), "application": ("app",), "picture": ("pic", "image"),
    "information": ("info",), "because": ("bc",), "get": ("obtain", "have"), "set": ("define", "specify"),
    "need": ("require",), "quickly": ("fast",), "big": ("large",), "large": ("big",), "file": ("files",),
    "several": ("multiple", "many"), "multiple": ("several",), "laptop": ("notebook",), "internet": ("web", "net"),
    "error?": ("problem?",), "possible": ("doable",), "currently": ("now",), "and": ("&",), "with": ("w/",),
    "llm": ("language model", "model"), "models": ("llms",), "gpu": ("graphics card",), "wrong": ("incorrect",),
}  # fmt: skip
_STOP_WORDS = frozenset("the a an do i to is of my it does please can for that in are".split())
_PROPER = {
    word.lower(): word
    for word in (
        "GPU CUDA API CORS GGUF HTTP REST JSON YAML Python JavaScript Docker Windows Linux Ubuntu OpenAI Ollama Gemini "
        "ChatGPT Claude Llama Mistral Qwen Gemma Apache URL TTS STT SSE LLM AI VRAM NVIDIA AMD Mac English French "
        "German Spanish Italian Japanese Chinese Russian Monday Paris London Berlin Rome Tokyo Einstein Napoleon "
        "DeepSeek Git Java Rust PDF GPUs LLMs RAM CPU HTML CSS SQL Lollms LAN VPN IP Anthropic React Firefox Chrome"
    ).split()
}
_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEAR = {
    key: "".join(row[max(0, i - 1) : i] + row[i + 1 : i + 2]) for row in _KEYS for i, key in enumerate(row)
}


def _typo(word: str, rng: random.Random) -> str:
    i = rng.randrange(len(word) - 1)
    kind = rng.random()
    if kind < 0.35:
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    if kind < 0.65:
        return word[: i + 1] + word[i + 2 :] if i else word[0] + word[2:]
    if kind < 0.8:
        return word[: i + 1] + word[i:]
    near = _NEAR.get(word[i + 1].lower(), "")
    return word[: i + 1] + (rng.choice(near) if near else word[i + 1]) + word[i + 2 :]


def add_typos(text: str, count: int, rng: random.Random) -> str:
    """Return the text with up to `count` words misspelt."""
    words = text.split(" ")
    for _ in range(count):
        i = rng.randrange(len(words))
        if len(words[i]) > 3 and words[i].isalpha():
            words[i] = _typo(words[i], rng)
    return " ".join(words)


def _reword(text: str, rng: random.Random) -> str:
    if rng.random() < 0.3:
        for long, short in _CONTRACTIONS:
            if long in text and rng.random() < 0.7:
                text = re.sub(rf"\b{long}\b", short, text)
    if rng.random() < 0.22:
        words = text.split(" ")
        known = [i for i, word in enumerate(words) if word in _SYNONYMS]
        if known:
            i = rng.choice(known)
            words[i] = rng.choice(_SYNONYMS[words[i]])
            text = " ".join(words)
    if rng.random() < 0.14:
        words = text.split(" ")
        if len(words) > 3:
            share = rng.choice((0.3, 0.6, 1.0))
            kept = [word for word in words if word not in _STOP_WORDS or rng.random() > share]
            text = " ".join(kept) if len(kept) > 1 else text
    return text


def _sentence_case(text: str, rng: random.Random) -> str:
    text = re.sub(r"\bi\b", "I", text)
    if rng.random() < 0.7:
        text = " ".join(_PROPER.get(word, word) for word in text.split(" "))
    return text[:1].upper() + text[1:]


def roughen(text: str, rng: random.Random, typos: bool = True) -> str:
    """Return the text as somebody might have typed it; words marked with HOLE stay in place."""
    text = _reword(text, rng)
    style = rng.random()
    question = bool(
        re.match(r"(how|what|which|where|who|why|when|can|could|is|are|do|does|did|may|will|any)\b", text)
    )
    if style < 0.46:
        text = _sentence_case(text, rng)
        mark = "?" if question else rng.choice((".", ".", "", "", "!", "?"))
        text += mark if text[-1].isalnum() or text[-1] in f"{HOLE}`'\"" else ""
    elif style < 0.92:
        text += rng.choice(("?", "?", "", "", "")) if question else rng.choice(("", "", "", ".", "!", "?"))
    elif style < 0.95:
        text = text.upper()
    elif style < 0.97:
        text = text.title()
    else:
        text += rng.choice(("??", "???", " ?", "...", "!!", " pls", "!", " :)", ", thanks", " please?"))
    if typos and rng.random() < 0.24:
        text = add_typos(text, rng.choice((1, 1, 2)), rng)
    return text.strip()
