"""How good a detector is on the sets written by hand, beside the rule, with 95 % intervals from the bootstrap."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lollms_transport_ws_chat.turn_detection.detector import TurnDetector
from lollms_transport_ws_chat.turn_detection.embedded import EmbeddedDetector, embedded_model
from lollms_transport_ws_chat.turn_detection.normalise import normalised
from lollms_transport_ws_chat.turn_detection.rule import RuleDetector

from .data import examples_of
from .sets import EVALUATION, HERE, LANGUAGES, Labelled, read_set

SAMPLES = 2000
SAME = "FPR at the rule's TPR"
FIGURES = HERE / "figures.json"
REFERENCE = HERE / "reference.json"
Scores = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]
Metric = Callable[[Scores, Labels, float], float]


def accuracy(scores: Scores, labels: Labels, threshold: float) -> float:
    """Share of turns judged right."""
    return float(np.mean((scores >= threshold) == labels))


def true_positives(scores: Scores, labels: Labels, threshold: float) -> float:
    """Share of complete turns that count as complete."""
    return float(np.mean(scores[labels] >= threshold))


def true_negatives(scores: Scores, labels: Labels, threshold: float) -> float:
    """Share of unfinished turns that count as unfinished."""
    return float(np.mean(scores[~labels] < threshold))


def area(scores: Scores, labels: Labels, threshold: float = 0.0) -> float:
    """Area under the ROC curve: how often a complete turn scores higher than an unfinished one."""
    complete, unfinished = scores[labels], np.sort(scores[~labels])
    below = np.searchsorted(unfinished, complete, "left")
    upto = np.searchsorted(unfinished, complete, "right")
    share: float = np.mean(below + upto).item() / 2 / len(unfinished)
    return share


def false_positives_at(rate: float) -> Metric:
    """Share of unfinished turns that count as complete where the threshold lets `rate` of the complete ones pass."""

    def metric(scores: Scores, labels: Labels, threshold: float = 0.0) -> float:
        complete = np.sort(scores[labels])
        at = complete[math.floor(len(complete) * (1 - rate) + 1e-9)]
        return float(np.mean(scores[~labels] >= at))

    return metric


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "TPR": true_positives,
    "TNR": true_negatives,
    "AUC": area,
    "FPR at TPR 95 %": false_positives_at(0.95),
    "FPR at TPR 99 %": false_positives_at(0.99),
}


def scores(detector: TurnDetector, turns: Sequence[Labelled], language: str | None) -> Scores:
    """The probabilities of all turns."""
    return np.array([detector.probability(turn.turns, language) for turn in turns])


def measured(found: Scores, labels: Labels, threshold: float) -> dict[str, list[float]]:
    """Each metric: the value, and the ends of its interval."""
    rng = np.random.default_rng(1)
    samples = [rng.integers(0, len(labels), len(labels)) for _ in range(SAMPLES)]
    samples = [chosen for chosen in samples if 0 < labels[chosen].sum() < len(labels)]
    report = {}
    for name, metric in METRICS.items():
        values = [metric(found[chosen], labels[chosen], threshold) for chosen in samples]
        low, high = np.percentile(values, [2.5, 97.5])
        report[name] = [round(float(v), 4) for v in (metric(found, labels, threshold), low, high)]
    return report


def mcnemar(one: Labels, other: Labels) -> float:
    """The exact two-sided p of McNemar's test: whether two detectors are right equally often."""
    wins, losses = int(np.sum(one & ~other)), int(np.sum(other & ~one))
    total = wins + losses
    tail = sum(math.comb(total, k) for k in range(min(wins, losses) + 1)) / 2.0**total
    return min(1.0, 2 * tail)


def evaluate() -> dict[str, Any]:
    """All figures of the committed model and the rule on the frozen sets."""
    embedded, rule = EmbeddedDetector(), RuleDetector()
    report: dict[str, Any] = {"threshold": embedded.threshold, "languages": {}}
    for language in LANGUAGES:
        turns = read_set(EVALUATION / f"{language}.txt")
        labels = np.array([turn.complete for turn in turns])
        by_rule = scores(rule, turns, language)
        entry: dict[str, Any] = {
            "complete": int(labels.sum()),
            "unfinished": int((~labels).sum()),
            "rule": measured(by_rule, labels, rule.threshold),
        }
        if language == "en":
            by_network = scores(embedded, turns, language)
            entry["embedded"] = measured(by_network, labels, embedded.threshold)
            right, rule_right = (
                (by_network >= embedded.threshold) == labels,
                (by_rule >= rule.threshold) == labels,
            )
            entry["p (McNemar)"] = mcnemar(right, rule_right)
            same = false_positives_at(true_positives(by_rule, labels, rule.threshold))
            entry[SAME] = round(same(by_network, labels, 0.0), 4)
            entry["accepted at 0.0009"] = round(float(np.mean(by_network[~labels] >= 0.0009)), 4)
            entry["buckets"] = dict(_buckets(turns, labels, right, rule_right))
        report["languages"][language] = entry
    return report


def with_overlap(report: dict[str, Any]) -> dict[str, Any]:
    """The figures, and how many frozen turns the text of the last stage has word for word; as slow as making that."""
    last = json.loads(REFERENCE.read_text("utf-8"))["stages"][-1]
    seen = {normalised(example.text) for example in examples_of(last["seed"], last["examples"])}
    detector, turns = EmbeddedDetector(), read_set(EVALUATION / "en.txt")
    right = [(detector.probability(t.turns, "en") >= detector.threshold) == t.complete for t in turns]
    new = [normalised(turn.turns[-1].content) not in seen for turn in turns]
    accuracy_of_new = sum(r for r, n in zip(right, new, strict=True) if n) / sum(new)
    return report | {"seen": len(new) - sum(new), "accuracy of the others": round(accuracy_of_new, 4)}


def _buckets(
    turns: Sequence[Labelled], labels: Labels, right: Labels, rule_right: Labels
) -> Iterator[tuple[str, list[float]]]:
    names = np.array([turn.bucket for turn in turns])
    for bucket in dict.fromkeys(names.tolist()):
        chosen = names == bucket
        yield (
            bucket,
            [
                int(chosen.sum()),
                round(float(right[chosen].mean()), 3),
                round(float(rule_right[chosen].mean()), 3),
            ],
        )


def write(report: dict[str, Any], file: Path = FIGURES) -> None:
    """figures.json, which a test compares with what the committed model does, and RESULTS.md."""
    file.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    text = (HERE / "RESULTS.in.md").read_text("utf-8")
    for mark, table in (
        ("@ENGLISH@", _english(report)),
        ("@BUCKETS@", _bucket_table(report)),
        ("@OTHERS@", _others(report)),
        ("@OVERLAP@", _overlap(report)),
        ("@TINY@", _tiny(report)),
        ("@TRAINING@", _training()),
        ("@SIZE@", _size()),
    ):
        text = text.replace(mark, "\n".join(table))
    (HERE / "RESULTS.md").write_text(text, encoding="utf-8")


def _shown(values: Sequence[float]) -> str:
    return "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * v for v in values))


def _english(report: dict[str, Any]) -> Iterator[str]:
    entry = report["languages"]["en"]
    complete, unfinished = entry["complete"], entry["unfinished"]
    yield f"{complete} complete and {unfinished} unfinished turns; all in %, with 95 % intervals."
    yield ""
    yield f"| figure | embedded at {report['threshold']:g} | rule |"
    yield "|---|---|---|"
    for name in METRICS:
        yield f"| {name} | {_shown(entry['embedded'][name])} | {_shown(entry['rule'][name])} |"
    rule = 100 - 100 * entry["rule"]["TNR"][0]
    yield f"| FPR where both have the rule's TPR | {100 * entry[SAME]:.1f} | {rule:.1f} |"
    yield ""
    yield f"McNemar's exact test, embedded against the rule: p = {entry['p (McNemar)']:.1g}."


def _bucket_table(report: dict[str, Any]) -> Iterator[str]:
    for name, (count, embedded, rule) in report["languages"]["en"]["buckets"].items():
        yield f"| {name} | {count} | {100 * embedded:.0f} % | {100 * rule:.0f} % |"


def _others(report: dict[str, Any]) -> Iterator[str]:
    yield "| language | turns | accuracy | TPR | TNR |"
    yield "|---|---|---|---|---|"
    for language, entry in report["languages"].items():
        if language != "en":
            shown = " | ".join(_shown(entry["rule"][name]) for name in ("accuracy", "TPR", "TNR"))
            yield f"| {language} | {entry['complete'] + entry['unfinished']} | {shown} |"


def _overlap(report: dict[str, Any]) -> Iterator[str]:
    share = 100 * report["accuracy of the others"]
    yield f"{report['seen']} of the turns occur word for word in the text of the last stage of training;"
    yield f"  without them the accuracy is {share:.1f} %."


def _tiny(report: dict[str, Any]) -> Iterator[str]:
    yield f"{100 * report['languages']['en']['accepted at 0.0009']:.0f} %"


def _training() -> Iterator[str]:
    for number, stage in enumerate(json.loads(REFERENCE.read_text("utf-8"))["stages"], 1):
        yield (
            f"  {number}. {stage['examples']:,.0f} different examples, {stage['epochs']:.0f} epochs, batches of "
            f"{stage['batch']:.0f}, AdamW with one cycle up to {stage['rate']:g}, label smoothing "
            f"{stage['smoothing']:g}, averaged weights, seed {stage['seed']:.0f}; {stage['words']:,.0f} words known."
        )


def _size() -> Iterator[str]:
    yield f"{len(embedded_model().read_bytes()):,} bytes"
