"""Measures the GGUF through llama.cpp on the question sets, greedily, with the file's own chat template.

`stranger.yaml` is frozen: only its counts are ever shown. `dev.yaml` may be read while phrases are written.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import yaml

from .material import GUIDE, load

NAMES = (
    "Anna",
    "Maria",
    "Tom",
    "David",
    "Sophie",
    "Ahmed",
    "Priya",
    "James",
    "Elena",
    "Carlos",
    "Yuki",
    "Emma",
)
RARE_NAMES = (
    "Oluwaseun",
    "Thorvald",
    "Anneliese",
    "Xiomara",
    "Bogdan",
    "Saoirse",
    "Kwabena",
    "Ludmilla",
    "Zebulon",
    "Ottoline",
)
NAME_ASKED = ("what's my name?", "Do you remember my name?", "who am i")
NAME_GIVEN = ("I'm {}", "hi, my name is {}", "Call me {}.", "Hello, I am {}!")
BETWEEN = ("how do I list the bindings?", "which port does it use?", "thanks", "can it use my gpu?")
PLAIN_PROMPTS = (
    "how do I start the server?", "tell me a joke", "explain step by step how to add a binding", "who are you?",
    "what is the capital of Italy?", "where is the config file?", "list the steps to update", "can you stream?",
    "I think something is wrong", "what do you think about cats?", "count to 5", "do I need a GPU?", "hello",
    "give me step by step instructions for pancakes", "what does a personality do?",
)  # fmt: skip
PLAIN_SYSTEMS = (
    "", "You are a helpful assistant.", "Describe every step in order. Answer directly, without thinking aloud.",
    "You are a pirate. Always be brief. The user likes step-by-step guides.",
)  # fmt: skip
GATE_TOKENS = 12
GATES = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Reply:
    """What the model said and how sure it was of its first tokens."""

    text: str
    probability: float


@dataclass(frozen=True)
class Verdict:
    """One judged question."""

    kind: str
    question: str
    reply: Reply
    right: bool
    refused: bool


class Examiner:
    """Asks the model and compares with the canonical answers."""

    def __init__(self, path: Path) -> None:
        self.material = load()
        self.llama = llama_cpp.Llama(str(path), n_ctx=2048, n_threads=1, logits_all=True, verbose=False)
        self.refusal = self.material.answer("refusal")

    def ask(self, messages: Sequence[dict[str, str]]) -> Reply:
        """Return the greedy answer to a conversation."""
        response: Any = self.llama.create_chat_completion(list(messages), temperature=0.0, max_tokens=160)
        first = response["usage"]["prompt_tokens"] - 1
        scores = self.llama.scores[first : min(first + GATE_TOKENS, self.llama.n_tokens)].astype(np.float64)
        top = scores.max(axis=1)
        log_probability = -np.log(np.exp(scores - top[:, None]).sum(axis=1)).sum()
        return Reply(response["choices"][0]["message"]["content"].strip(), math.exp(log_probability))

    def judge(self, entry: dict[str, Any], system: str = "") -> Verdict:
        """Return whether the answer to one entry of a question set is right."""
        system = entry.get("system", system)
        messages = [{"role": "system", "content": system}] if system else []
        messages += entry.get("history", [])
        reply = self.ask([*messages, {"role": "user", "content": entry["question"]}])
        kind, answer = entry["kind"], reply.text
        thought = re.match(r"<think>.*?</think>\s*", answer, re.DOTALL)
        if kind == "think":
            right = thought is not None
        elif kind == "skill":
            right = (
                re.search(rf"(?<!\w){re.escape(str(entry['expect']))}(?!\w)", answer, re.IGNORECASE)
                is not None
            )
        elif kind == "out_of_scope":
            right = answer == self.refusal
        else:
            right = answer in self._accepted(entry)
        return Verdict(kind, entry["question"], reply, right, answer == self.refusal)

    def _accepted(self, entry: dict[str, Any]) -> set[str]:
        name = str(entry.get("expect", ""))
        topics = [topic for topic in entry["topics"] if not (topic == "name_asked" and not name)]
        accepted = {self.material.answer(topic).replace("{name}", name) for topic in topics}
        return accepted | (
            {self.material.answer("name_unknown")} if len(topics) < len(entry["topics"]) else set()
        )


def _counts(verdicts: Sequence[Verdict]) -> str:
    total = Counter(verdict.kind for verdict in verdicts)
    right = Counter(verdict.kind for verdict in verdicts if verdict.right)
    return ", ".join(f"{kind} {right[kind]}/{total[kind]}" for kind in total)


def _gate(verdicts: Sequence[Verdict]) -> Iterator[str]:
    inside = [v for v in verdicts if v.kind in ("server", "social", "skill")]
    outside = [v for v in verdicts if v.kind == "out_of_scope"]
    for threshold in (0.0, *GATES):
        passed = [v for v in inside if v.reply.probability >= threshold and not v.refused]
        right = sum(v.right for v in inside if v.reply.probability >= threshold)
        refused = sum(v.refused or v.reply.probability < threshold for v in outside)
        wrong = sum(not v.right for v in passed)
        yield f"p >= {threshold:.2f}: {right}/{len(inside)} right, {wrong} wrong, {refused}/{len(outside)} refused"


def _names(examiner: Examiner, names: Sequence[str]) -> int:
    good = 0
    for i, name in enumerate(names):
        talk = [{"role": "user", "content": NAME_GIVEN[i % len(NAME_GIVEN)].format(name)}]
        for question in (
            *[BETWEEN[(i + j) % len(BETWEEN)] for j in range(i % 3)],
            NAME_ASKED[i % len(NAME_ASKED)],
        ):
            talk += [
                {"role": "assistant", "content": examiner.ask(talk).text},
                {"role": "user", "content": question},
            ]
        good += examiner.ask(talk).text == examiner.material.answer("name_asked").replace("{name}", name)
    return good


def _false_thoughts(examiner: Examiner) -> tuple[int, int]:
    prompts = [(system, question) for system in PLAIN_SYSTEMS for question in PLAIN_PROMPTS]
    thoughts = 0
    for system, question in prompts:
        messages = [{"role": "system", "content": system}] if system else []
        reply = examiner.ask([*messages, {"role": "user", "content": question}])
        thoughts += reply.text.startswith("<think>")
    return thoughts, len(prompts)


def _speed(path: Path) -> tuple[float, float]:
    started = time.perf_counter()
    llama = llama_cpp.Llama(str(path), n_ctx=2048, n_threads=1, verbose=False)
    loaded = time.perf_counter() - started
    tokens, started = 0, time.perf_counter()
    for question in ("how do I start the server?", "how do I add a personality?", "hello", "add a binding"):
        response: Any = llama.create_chat_completion(
            [{"role": "user", "content": question}], temperature=0.0, max_tokens=160
        )
        tokens += response["usage"]["completion_tokens"]
    return loaded * 1e3, tokens / (time.perf_counter() - started)


def evaluate(path: Path, checkpoint: Path, *, show_failures: bool = False, write: bool = False) -> list[str]:
    """Return the figures as lines of text; with `write`, store them in RESULTS.md as well."""
    examiner = Examiner(path)
    lines = [f"file: {path.stat().st_size:,} bytes"]
    for name in ("stranger", "dev"):
        entries = yaml.safe_load((GUIDE / "questions" / f"{name}.yaml").read_text(encoding="utf-8"))
        verdicts = [examiner.judge(entry) for entry in entries]
        lines.append(f"{name}.yaml: {_counts(verdicts)}")
        asked = [entry for entry in entries if entry["kind"] != "think"]
        system = [
            examiner.judge(entry, "You are a helpful and honest assistant of a small company.")
            for entry in asked
        ]
        lines.append(f"{name}.yaml with an unseen system prompt: {_counts(system)}")
        thoughts = sum(v.reply.text.startswith("<think>") for v in (*verdicts, *system) if v.kind != "think")
        lines.append(f"{name}.yaml: {thoughts} answers with thoughts nobody asked for")
        lines += [f"{name}.yaml, gate {line}" for line in _gate(verdicts)]
        if show_failures and name == "dev":
            lines += [
                f"  wrong: {v.kind}: {v.question!r} -> {v.reply.text[:70]!r} p={v.reply.probability:.2f}"
                for v in verdicts
                if not v.right
            ]
    lines.append(
        f"name recalled: common {_names(examiner, NAMES)}/{len(NAMES)},"
        f" rare {_names(examiner, RARE_NAMES)}/{len(RARE_NAMES)}"
    )
    thoughts, total = _false_thoughts(examiner)
    lines.append(f"thoughts nobody asked for on {total} plain prompts: {thoughts}")
    loaded, speed = _speed(path)
    lines.append(f"load {loaded:.0f} ms, chat {speed:.0f} tokens/s with one thread")
    hello = examiner.ask([{"role": "user", "content": "hello"}]).text
    lines.append(f"hello -> {hello}")
    if write:
        _write_results(lines, checkpoint)
    return lines


def _write_results(lines: Sequence[str], checkpoint: Path) -> None:
    stages: list[dict[str, Any]] = []
    stage = checkpoint
    while stage.name != "None":
        stages.insert(0, json.loads(stage.with_suffix(".json").read_text(encoding="utf-8")))
        stage = checkpoint.with_name(str(stages[0]["plan"]["start"]))
    recipe = (GUIDE / "RESULTS.in.md").read_text(encoding="utf-8")
    figures = "\n".join(f"- {line}" for line in lines if not line.startswith("  "))
    text = recipe.replace("@FIGURES@", figures).replace("@TRAINING@", "\n".join(map(json.dumps, stages)))
    (GUIDE / "RESULTS.md").write_text(text, encoding="utf-8")
