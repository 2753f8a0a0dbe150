"""Answers whose end only their length tells: numbers, spelled names, addresses, dates and times."""

from __future__ import annotations

import random
from collections.abc import Callable

from lollms_transport_ws_chat.turn_detection.history import Expected

from .grammar import COMPLETE, OPEN, SILENT, Grammar, Word

DIGIT_WORDS = ["oh", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth fifteenth".split()
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
DOMAINS = ["com", "org", "net", "co dot uk", "de", "edu", "io"]
LEAD_INS = [
    "it's",
    "it is",
    "my number is",
    "the number is",
    "sure it's",
    "um",
    "okay",
    "yes it's",
    "that's",
    "let me see it's",
]
Answer = tuple[list[Word], Expected]


def _open(words: list[str]) -> list[Word]:
    return [Word(word, OPEN) for word in words]


def _ended(words: list[Word]) -> list[Word]:
    return [*words[:-1], Word(words[-1].text, COMPLETE)]


def _lead_in(rng: random.Random, chance: float = 0.3) -> list[Word]:
    return _open(rng.choice(LEAD_INS).split()) if rng.random() < chance else []


def _digits(rng: random.Random, count: int) -> list[Word]:
    words: list[str] = []
    zero = rng.choice(["oh", "zero"])
    left = count
    while left:
        if left >= 2 and rng.random() < 0.06:
            words += ["double", rng.choice(DIGIT_WORDS[1:])]
            left -= 2
        elif left >= 2 and rng.random() < 0.06:
            words.append(rng.choice(TEENS))
            left -= 2
        else:
            words.append(rng.choice([zero, *DIGIT_WORDS[1:]]))
            left -= 1
    return _open(words)


def _number(rng: random.Random) -> list[str]:
    kind = rng.random()
    if kind < 0.25:
        return [rng.choice(DIGIT_WORDS[1:] + TEENS)]
    if kind < 0.45:
        return [rng.choice(TENS)]
    if kind < 0.7:
        return [rng.choice(TENS), rng.choice(DIGIT_WORDS[1:])]
    if kind < 0.8:
        return [rng.choice(DIGIT_WORDS[1:]), "hundred"]
    if kind < 0.95:
        return [rng.choice(DIGIT_WORDS[1:]), "hundred", "and", rng.choice(TENS)]
    return [rng.choice(DIGIT_WORDS[1:]), "thousand", rng.choice(DIGIT_WORDS[1:]), "hundred"]


def phone(rng: random.Random, grammar: Grammar) -> Answer:
    """Seven, ten or eleven digits."""
    words = _lead_in(rng) + _digits(rng, rng.choice([7, 10, 10, 11]))
    # Seven digits of eleven may be a whole number of the same town.
    ends = [Word(w.text, SILENT) if _count(words[: n + 1]) == 7 else w for n, w in enumerate(words)]
    return _ended(ends), rng.choice([Expected.PHONE] * 5 + [Expected.ANYTHING])


def _count(words: list[Word]) -> int:
    from lollms_transport_ws_chat.turn_detection.features import digits_at_end

    return digits_at_end([w.text for w in words])


def postcode(rng: random.Random, grammar: Grammar) -> Answer:
    """Five digits, or letters and digits as in Britain."""
    if rng.random() < 0.25:
        words = [rng.choice(LETTERS), rng.choice(LETTERS), *_texts(_digits(rng, 1)), *_texts(_digits(rng, 1))]
        words += [rng.choice(LETTERS), rng.choice(LETTERS)]
        return _ended(_lead_in(rng) + _open(words)), Expected.POSTCODE
    return _ended(_lead_in(rng) + _digits(rng, rng.choice([5, 5, 5, 4]))), Expected.POSTCODE


def _texts(words: list[Word]) -> list[str]:
    return [word.text for word in words]


def code(rng: random.Random, grammar: Grammar) -> Answer:
    """From four to eight digits, with a letter at times; from the fourth on it may be whole."""
    words = _digits(rng, rng.randint(4, 8))
    if rng.random() < 0.3:
        words.insert(0, Word(rng.choice(LETTERS), OPEN))
    words = [Word(w.text, SILENT) if _count(words[: n + 1]) >= 4 else w for n, w in enumerate(words)]
    return _ended(_lead_in(rng) + words), Expected.CODE


def card(rng: random.Random, grammar: Grammar) -> Answer:
    """Sixteen digits."""
    return _ended(_lead_in(rng) + _digits(rng, 16)), Expected.CARD


def year(rng: random.Random, grammar: Grammar) -> Answer:
    """Two pairs, or two thousand and so many."""
    first, second = rng.choice([["nineteen"], ["twenty"]]), rng.choice([[rng.choice(TENS)], [rng.choice(TEENS)],
                                [rng.choice(TENS), rng.choice(DIGIT_WORDS[1:])]])  # fmt: skip
    words = first + second if rng.random() < 0.8 else ["two", "thousand", rng.choice(DIGIT_WORDS[1:])]
    marked = [Word(w, SILENT if n else OPEN) for n, w in enumerate(words)]
    return _ended(_lead_in(rng) + marked), Expected.YEAR


def date(rng: random.Random, grammar: Grammar) -> Answer:
    """A birthday with its year, or a day of this one."""
    month = rng.choice(_texts([w for n in grammar.entries["MONTH"] for w in _open(list(map(str, n[1])))]))
    day = rng.choice([[rng.choice(ORDINALS)], ["twenty", rng.choice(ORDINALS[:9])]])
    words = [month, *day] if rng.random() < 0.7 else ["the", *day, "of", month]
    words += ["nineteen", *rng.choice([[rng.choice(TENS)], [rng.choice(TENS), rng.choice(DIGIT_WORDS[1:])]])]
    at = [Word(w, SILENT if w in TENS else OPEN) for w in words]
    return _ended(_lead_in(rng) + at), Expected.DATE


def clock(rng: random.Random, grammar: Grammar) -> Answer:
    """A time of the day."""
    hour = rng.choice(DIGIT_WORDS[1:] + TEENS[:3])
    words, silent = rng.choice([
        (["half", "past", hour], False), (["quarter", "to", hour], False), ([hour, "thirty"], True), ([hour], True),
        ([hour, "o'clock"], True), (["at", hour], False), ([hour, "in", "the", "morning"], True), ([hour, "pm"], True),
        (["around", hour], False), (["between", hour, "and", rng.choice(DIGIT_WORDS[1:])], False),
        (["a", "quarter", "past", hour], False), (["ten", "to", hour], False),
    ])  # fmt: skip
    marked = [Word(w, SILENT if silent and not n else OPEN) for n, w in enumerate(words)]
    return _ended(_lead_in(rng, 0.15) + marked), rng.choice([Expected.CLOCK] * 3 + [Expected.ANYTHING])


def amount(rng: random.Random, grammar: Grammar) -> Answer:
    """How much, how many, how old."""
    unit = rng.choice("dollars euros years people guests minutes pounds kilos hours tickets percent".split())
    number = _number(rng)
    words = [Word(w, OPEN if w == "and" else SILENT) for w in number]
    if rng.random() < 0.5:
        words = [*words, Word(unit, OPEN)]
    lead = _open(rng.choice([[], [], [], ["just"], ["about"], ["there", "will", "be"], ["i'm"], ["she's", "almost"],
                             ["it", "was"], ["around"], ["maybe"], ["i", "need"], ["at", "least"]]))  # fmt: skip
    return _ended(lead + words), Expected.AMOUNT


def spelling(rng: random.Random, grammar: Grammar) -> Answer:
    """A name letter by letter; from the fourth on it may be whole."""
    entries = grammar.entries["SURNAME"] + grammar.entries["NAME"]
    name = (
        str(rng.choice(entries)[1][0])
        if rng.random() < 0.5
        else "".join(rng.choices(LETTERS, k=rng.randint(4, 9)))
    )
    words = [Word(letter, OPEN if n < 3 else SILENT) for n, letter in enumerate(name)]
    lead = _open(rng.choice([[], [], ["it's"], ["that's"], ["it's", "spelled"], ["yes"], ["sure"], [name]]))
    return _ended(lead + words), rng.choice([Expected.SPELLING] * 5 + [Expected.ANYTHING])


def plate(rng: random.Random, grammar: Grammar) -> Answer:
    """Letters, digits and letters."""
    words = (
        _open(rng.choices(LETTERS, k=2)) + _digits(rng, 3) + _open(rng.choices(LETTERS, k=rng.randint(0, 2)))
    )
    words = [Word(w.text, OPEN if n < 4 else SILENT) for n, w in enumerate(words)]
    return _ended(_lead_in(rng, 0.1) + words), Expected.SPELLING


def email(rng: random.Random, grammar: Grammar) -> Answer:
    """An address with its dots and its at."""
    name, surname = _any(rng, grammar, "NAME"), _any(rng, grammar, "SURNAME")
    local = rng.choice(
        [
            [name],
            [name, "dot", surname],
            [name, surname],
            [name[0], "dot", surname],
            ["info"],
            ["contact"],
            [name, "underscore", surname],
            [name, *_texts(_digits(rng, 2))],
            [surname, "dash", name],
        ]
    )
    host = rng.choice(
        [["gmail"], ["hotmail"], ["yahoo"], ["outlook"], [surname], [_any(rng, grammar, "N")], ["icloud"]]
    )
    words = [*local, "at", *host, "dot", *rng.choice(DOMAINS).split()]
    if rng.random() < 0.15:
        words = ["www", "dot", *host, "dot", *rng.choice(DOMAINS).split()]
        if rng.random() < 0.5:
            words = ["w", "w", "w", *words[1:]]
    lead = rng.choice(
        [[], [], [], ["it's"], ["my", "email", "is"], ["it's", "all", "lowercase"], ["the", "website", "is"]]
    )
    return _ended(_open([*lead, *words])), rng.choice([Expected.EMAIL] * 5 + [Expected.ANYTHING])


def _any(rng: random.Random, grammar: Grammar, name: str) -> str:
    return str(rng.choice(grammar.entries[name])[1][0])


def sum_(rng: random.Random, grammar: Grammar) -> Answer:
    """Arithmetic, prices and the like, asked or said without a question before."""
    one, two = _number(rng), _number(rng)
    words = rng.choice([
        ["what's", *one, rng.choice(["times", "plus", "minus"]), *two], ["what", "is", *one, "percent", "of", *two],
        ["divide", *one, "by", *two], ["multiply", *one, "by", *two], [*one, "times", *two],
        ["how", "much", "is", *one, "divided", "by", *two], ["it", "costs", *one, "dollars"],
        ["the", "total", "is", *one, "dollars"], ["set", "it", "to", *one, "degrees"],
        ["it's", *one, "degrees", "outside"], ["convert", *one, "pounds", "to", "kilos"],
        ["the", "code", "is", *_texts(_digits(rng, 4))], ["my", "number", "is", *_texts(_digits(rng, 10))],
        ["the", "serial", "number", "is", *_texts(_digits(rng, 8))], ["page", *one], ["room", *one],
    ])  # fmt: skip
    number_words = {*DIGIT_WORDS, *TEENS, *TENS, "hundred", "thousand"}
    silent_from = (
        len(words) - len(two)
        if any(w in words for w in ("times", "plus", "minus", "of", "by"))
        else len(words)
    )
    marked = []
    for n, word in enumerate(words):
        ambiguous = word in number_words and n >= silent_from
        marked.append(Word(word, SILENT if ambiguous else OPEN))
    return _ended(marked), Expected.ANYTHING


KINDS: list[tuple[Callable[[random.Random, Grammar], Answer], float]] = [
    (phone, 4), (postcode, 3), (code, 4), (card, 2), (year, 2), (date, 3), (clock, 3), (amount, 4), (spelling, 4),
    (plate, 1), (email, 4), (sum_, 4),
]  # fmt: skip


def answer(rng: random.Random, grammar: Grammar) -> Answer:
    """A random answer of these kinds."""
    (kind,) = rng.choices([kind for kind, _ in KINDS], [weight for _, weight in KINDS])
    return kind(rng, grammar)
