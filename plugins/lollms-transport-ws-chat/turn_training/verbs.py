"""Forms of the verbs of lexicon.txt: `VT` gives `VT3` (buys), `VTPAST` (bought), `VTPP` (bought), `VTING` (buying)."""

from __future__ import annotations

from collections.abc import Mapping

VERB_LISTS = {
    "VT": "VT",
    "VI": "VI",
    "VSAY": "VSAY",
    "VTO": "VTO",
    "VING": "VING",
    "VIO": "VIO",
    "VLINK": "VL",
}
PARTICLES = {
    "up", "down", "off", "on", "out", "away", "back", "at", "to", "for", "about", "in", "of", "home", "asleep", "you",
    "rid", "care",
}  # fmt: skip
DOUBLED = {"stop", "plan", "get", "run", "swim", "sit", "cut", "put", "hit", "win", "forget", "plug", "set", "hang",
           "shut", "log", "begin", "let"}  # fmt: skip
PAST = {"get": "got got", "take": "took taken", "give": "gave given", "set": "set set", "wake": "woke woken",
        "find": "found found", "think": "thought thought", "pay": "paid paid", "throw": "threw thrown",
        "bring": "brought brought", "hang": "hung hung", "write": "wrote written", "tell": "told told"}  # fmt: skip


def with_forms(entries: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The entries with the verbs as base forms, and a further entry for each other form."""
    found = dict(entries)
    for name, prefix in VERB_LISTS.items():
        forms = [_forms(entry) for entry in entries[name]]
        keys = (name, f"{prefix}3", f"{prefix}PAST", f"{prefix}PP", f"{prefix}ING")
        for key, words in zip(keys, zip(*forms, strict=True), strict=True):
            found[key] = list(words)
    found["VASK"] = [_forms(entry)[0] for entry in entries["VASK"]]
    return found


def _forms(entry: str) -> tuple[str, str, str, str, str]:
    """Base, third person, past, participle and -ing; an entry names the irregular ones."""
    words = entry.split()
    head = words[0]
    size = 1
    while size < len(words) and words[size] in PARTICLES:
        size += 1
    rest = " ".join(words[1:size])
    given = words[size:]
    if given:
        assert len(given) == 2 * size, entry
        past, participle = " ".join(given[:size]), " ".join(given[size:])
    elif head in PAST:
        past, participle = (f"{form} {rest}".strip() for form in PAST[head].split())
    else:
        past = participle = f"{_regular(head)} {rest}".strip()
    third = "is" if head == "be" else "has" if head == "have" else _third(head)
    return (
        f"{head} {rest}".strip(),
        f"{third} {rest}".strip(),
        past,
        participle,
        f"{_ing(head)} {rest}".strip(),
    )


def _third(verb: str) -> str:
    if verb.endswith(("s", "x", "ch", "sh", "o")):
        return verb + "es"
    return verb[:-1] + "ies" if verb.endswith("y") and verb[-2] not in "aeou" else verb + "s"


def _regular(verb: str) -> str:
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in "aeou":
        return verb[:-1] + "ied"
    return verb + verb[-1] + "ed" if verb in DOUBLED else verb + "ed"


def _ing(verb: str) -> str:
    if verb == "die":
        return "dying"
    if verb in DOUBLED:
        return verb + verb[-1] + "ing"
    return verb[:-1] + "ing" if verb.endswith("e") and verb not in ("be", "see") else verb + "ing"
