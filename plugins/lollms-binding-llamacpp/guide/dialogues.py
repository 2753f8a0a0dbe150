"""Generates the dialogues the guide model learns from: an endless, seeded stream of ChatML conversations."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from .grammar import tidy
from .material import Material, load, words
from .noise import HOLE, roughen

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = tuple(
    "January February March April May June July August September October November December".split()
)
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_KINDS = ("server", "social", "skill", "refusal", "name")
_WEIGHTS = (0.42, 0.11, 0.10, 0.32, 0.05)
_SKILLS = ("count", "days", "months", "opposites", "colours", "capitals", "sums", "repeat")
_SKILL_WEIGHTS = (0.09, 0.13, 0.10, 0.14, 0.12, 0.14, 0.12, 0.16)
_PLAIN_SHARE = 0.33
_PLAIN_QUESTIONS = ("", "", "", "", "how do i", "how can i", "how to", "can i", "i want to", "how do you")
CUT_SHARE = 0.75
"""Dialogues whose long answers end after a few tokens: see batches.CUT."""
_CONSONANTS = (
    "b",
    "d",
    "f",
    "g",
    "h",
    "j",
    "k",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "t",
    "v",
    "z",
    "ch",
    "sh",
    "kl",
    "br",
)
_ENDINGS = ("", "", "n", "r", "s", "l", "m", "t", "x", "nd")
_CODE = (
    "for {a} in {b}:\n    {c}({a})\n",
    "def {a}({b}, {c}):\n    return {b} + {c}\n",
    "{a} = {b}.{c}()\nprint({a})\n",
    "if {a} > {b}:\n    {c} = {a}\n",
    "import {a}\n\n{b} = {a}.{c}({b})\n",
    "const {a} = ({b}) => {c}({b});\n",
    "while {a} < {b}:\n    {a} += {c}\n",
    "class {a}:\n    def {b}(self):\n        return self.{c}\n",
)


@dataclass(frozen=True)
class Message:
    """One ChatML message; `cut` asks for the first tokens only, `muted` for no loss."""

    role: str
    content: str
    cut: bool = False
    muted: bool = False
    thought: str = ""


@dataclass
class Speaker:
    """What the simulated user has told so far."""

    name: str = ""
    introduced: bool = field(default=False)


class Dialogues:
    """A seeded source of conversations and of raw copying and infilling exercises."""

    def __init__(self, seed: int, material: Material | None = None) -> None:
        self.rng = random.Random(seed)
        self.material = material or load()
        kinds = {topic.id: topic.kind for topic in self.material.topics.values()}
        self._ids = {
            kind: [name for name in self.material.phrases if kinds[name] == kind]
            for kind in ("server", "social")
        }
        self._social_weights = [
            2.0 if name in ("hello", "who_are_you", "language") else 1.0 for name in self._ids["social"]
        ]

    def __iter__(self) -> Iterator[list[Message]]:
        """Yield conversations for ever."""
        while True:
            yield self.conversation()

    # --- conversations --------------------------------------------------------------------------------------------

    def conversation(self) -> list[Message]:
        """Return one conversation of 1 to 13 turns, sometimes with a system prompt."""
        rng = self.rng
        turns = rng.choices((1, 2, 3, rng.randint(4, 6), rng.randint(7, 13)), (62, 14, 10, 10, 4))[0]
        system, thinking = self._system_prompt()
        messages = [Message("system", system)] if system else []
        speaker = Speaker()
        cut = rng.random() < CUT_SHARE
        keep_thoughts = rng.random() < 0.5
        for turn in range(turns):
            question, topic, answer = self._turn(speaker)
            think_here = thinking
            if (
                not thinking
                and rng.random() < 0.025
                and topic not in ("repeat", "refusal")
                and turn == turns - 1
            ):
                question = self._fill("systems", "user_think").replace("{q}", question)
                think_here = True
            messages.append(Message("user", question))
            last = turn == turns - 1
            known = self.material.topics[topic]
            thought = known.thought if think_here and (last or keep_thoughts) else ""
            canonical = known.kind in ("server", "refusal") or topic in (
                "hello",
                "who_are_you",
                "what_can_you_do",
            )
            messages.append(
                Message("assistant", answer, cut and canonical, think_here and not thought, thought)
            )
        return messages

    def _turn(self, speaker: Speaker) -> tuple[str, str, str]:
        rng = self.rng
        kind = rng.choices(_KINDS, _WEIGHTS)[0]
        if speaker.introduced and rng.random() < 0.22:
            kind = "name"
        if kind == "server":
            topic = rng.choice(self._ids["server"])
            question = self._framed(topic)
            if rng.random() < 0.012:
                speaker.name, spelling = self._name()
                speaker.introduced = True
                greeting = self._fill("skills", "name_given").replace("{name}", HOLE)
                question = f"{roughen(greeting, rng, typos=False).rstrip('.!?')}. {question}".replace(
                    HOLE, spelling
                )
            return question, topic, self.material.answer(topic)
        if kind == "social":
            topic = rng.choices(self._ids["social"], self._social_weights)[0]
            return self._framed(topic), topic, self.material.answer(topic)
        if kind == "refusal":
            return self._out_of_scope(), "refusal", self.material.answer("refusal")
        if kind == "name":
            return self._name_turn(speaker)
        return self._skill()

    def _framed(self, topic: str) -> str:
        """Return a question about the topic that is not one of the development set."""
        while words(question := self._draft(topic)) in self.material.reserved:
            continue
        return question

    def _draft(self, topic: str) -> str:
        rng, material = self.rng, self.material
        phrase = self._phrase(topic)
        if not phrase.isascii():
            return phrase if rng.random() < 0.7 else phrase + rng.choice(("?", "!", "。", "..."))
        social = material.topics[topic].kind == "social"
        if not social and rng.random() < 0.07:
            second = self._phrase(topic)
            if second.isascii():
                phrase += rng.choice((", ", ". ", "? ", " and ", ", ", " - ", "; ", ": ")) + second
        if rng.random() < (0.03 if social else 0.10):
            phrase = (
                material.frames["before"].sample(rng, {}) + rng.choice((", ", ". ", ", ", " ", ": ")) + phrase
            )
        if rng.random() < (0.02 if social else 0.09):
            phrase = (
                phrase + rng.choice((" ", ", ", " ", ". ", "? ")) + material.frames["after"].sample(rng, {})
            )
        return roughen(phrase, rng)

    def _phrase(self, topic: str) -> str:
        rng, material = self.rng, self.material
        categories = material.phrases[topic]
        shares = {"verbs": 0.30, "nouns": 0.19, "says": 0.40, "bad": 0.16, "foreign": 0.08}
        names = list(categories)
        category = rng.choices(names, [shares[name] for name in names])[0]
        phrase = categories[category].sample(rng, material.macros)
        frame = {"verbs": ("verb", "{v}"), "nouns": ("noun", "{n}"), "bad": ("bad", "{b}")}.get(category)
        if frame and rng.random() < _PLAIN_SHARE:
            return f"{rng.choice(_PLAIN_QUESTIONS)} {phrase}".strip() if category == "verbs" else phrase
        if frame:
            phrase = tidy(material.frames[frame[0]].sample(rng, material.macros).replace(frame[1], phrase))
        return phrase

    def _out_of_scope(self) -> str:
        rng = self.rng
        if rng.random() < 0.07:
            a, b = rng.randint(0, 20), rng.randint(0, 99)
            sign = rng.choice(
                ("*", "-", "/", "x", "times", "minus", "divided by", "+", "plus", "+", "^", "%")
            )
            if sign in ("+", "plus") and a + b <= 10:
                b += 11
            start = rng.choice(("what is ", "", "calculate ", "how much is ", "what's ", "solve ", "whats "))
            return roughen(f"{start}{a} {sign} {b}", rng, typos=False)
        return self._framed("refusal")

    def _system_prompt(self) -> tuple[str, bool]:
        rng = self.rng
        thinking = rng.random() < 0.09
        if not thinking and rng.random() < 0.55:
            return "", False
        count = rng.choices((0, rng.randint(1, 3), rng.randint(3, 8), rng.randint(9, 17)), (40, 38, 16, 6))[0]
        parts = [self._fill("systems", "sentences") for _ in range(count)]
        if not count or rng.random() < 0.6:
            parts.insert(0, self._fill("systems", "roles"))
        if thinking:
            if count == 0 and rng.random() < 0.5:
                parts = []
            parts.insert(rng.randint(0, len(parts)), self._fill("systems", "think"))
        elif rng.random() < 0.25:
            parts.insert(rng.randint(0, len(parts)), self._fill("systems", "steps"))
        text = (
            rng.choice((" ", " ", " ", "\n"))
            .join(parts)
            .replace("{name}", rng.choice(self.material.skills["names"]))
        )
        return (text.lower() if rng.random() < 0.05 else text), thinking

    def _fill(self, group: str, name: str) -> str:
        phrases = getattr(self.material, group)[name]
        return tidy(phrases.sample(self.rng, self.material.macros))

    # --- names and skills -----------------------------------------------------------------------------------------

    def _name(self) -> tuple[str, str]:
        """Return a name and how the user spells it."""
        rng = self.rng
        if rng.random() < 0.25:
            name = self._invented().capitalize()
            return name, name
        name = rng.choice(self.material.skills["names"])
        return name, name.lower() if rng.random() < 0.15 else name

    def _invented(self) -> str:
        rng = self.rng
        syllables = (rng.choice(_CONSONANTS) + rng.choice("aeiou") for _ in range(rng.randint(1, 3)))
        return "".join(syllables) + rng.choice(_ENDINGS)

    def _name_turn(self, speaker: Speaker) -> tuple[str, str, str]:
        rng = self.rng
        if speaker.introduced or rng.random() < 0.3:
            question = roughen(self._fill("skills", "name_asked"), rng)
            if not speaker.introduced:
                return question, "name_unknown", self.material.answer("name_unknown")
            return question, "name_asked", self.material.answer("name_asked").replace("{name}", speaker.name)
        speaker.name, spelling = self._name()
        speaker.introduced = True
        question = self._fill("skills", "name_given").replace("{name}", HOLE)
        question = roughen(question, rng, typos=rng.random() < 0.2).replace(HOLE, spelling)
        return question, "name_given", self.material.answer("name_given").replace("{name}", speaker.name)

    def _skill(self) -> tuple[str, str, str]:
        rng, lists = self.rng, self.material.skills
        skill = rng.choices(_SKILLS, _SKILL_WEIGHTS)[0]
        if skill == "count":
            n = rng.randint(2, 10)
            said = str(n) if rng.random() < 0.75 else _NUMBERS[n]
            return self._asked("count", n=said), skill, ", ".join(map(str, range(1, n + 1))) + "."
        if skill in ("days", "months"):
            cycle, unit = (_DAYS, "day") if skill == "days" else (_MONTHS, "month")
            i, side = rng.randrange(len(cycle)), rng.choice(("after", "before"))
            result = cycle[(i + (1 if side == "after" else -1)) % len(cycle)]
            question = self._asked(f"{unit}_{side}", d=self._cased(cycle[i]), p=self._cased(cycle[i - 1]))
            return question, skill, f"The {unit} {side} {cycle[i]} is {result}."
        if skill == "opposites":
            word, result = rng.choice(lists["opposites"])
            said = f'"{word}"' if rng.random() < 0.08 else word
            return self._asked("opposite", w=said), skill, f"The opposite of {word} is {result}."
        if skill == "colours":
            thing, colour = rng.choice(lists["colours"])
            plural = thing in ("leaves", "bananas", "tomatoes", "carrots", "lemons")
            bare = thing.split(" ", 1)[1] if " " in thing and rng.random() < 0.25 else thing
            question = self._asked("colour", t=bare)
            if plural:
                question = question.replace(" is ", " are ").replace(" does ", " do ")
            return question, skill, f"{thing.capitalize()} {'are' if plural else 'is'} {colour}."
        if skill == "capitals":
            country, capital = rng.choice(list(lists["capitals"].items()))
            said = country.removeprefix("the ") if rng.random() < 0.4 else country
            said = said.title().replace("Uk", "UK").replace("Usa", "USA") if rng.random() < 0.6 else said
            name = country.title().replace("Uk", "UK").replace("Usa", "USA").replace("The ", "the ")
            return self._asked("capital", c=said), skill, f"The capital of {name} is {capital}."
        if skill == "sums":
            total = rng.randint(0, 10)
            a = rng.randint(0, total)
            b = total - a
            terms = (str(a), str(b)) if rng.random() < 0.8 else (_NUMBERS[a], _NUMBERS[b])
            question = self._asked("sum", a=terms[0], b=terms[1])
            return (
                question.replace(" + ", "+") if rng.random() < 0.3 else question,
                skill,
                f"{a} + {b} = {total}.",
            )
        word = self._invented() if rng.random() < 0.25 else rng.choice(lists["words"])
        if rng.random() < 0.1:
            word += " " + rng.choice(lists["words"])
        said = f'"{word}"' if rng.random() < 0.12 else word
        return self._asked("repeat", w=said), skill, f"Here you go: {word}"

    def _cased(self, word: str) -> str:
        return word if self.rng.random() < 0.6 else word.lower()

    def _asked(self, name: str, **values: str) -> str:
        """Return a skill's question with its values out of reach of the noise."""
        question = self._fill("skills", name)
        order: list[str] = []
        for key in sorted(values, key=lambda key: question.find("{" + key + "}")):
            if "{" + key + "}" in question:
                question = question.replace("{" + key + "}", HOLE)
                order.append(values[key])
        question = roughen(question, self.rng)
        for value in order:
            question = question.replace(HOLE, value, 1)
        return question.replace(HOLE, "")

    # --- exercises without a conversation -------------------------------------------------------------------------

    def code_parts(self) -> tuple[str, str, str]:
        """Return prefix, middle and suffix of a small piece of code, for infilling."""
        rng = self.rng
        code = "".join(
            rng.choice(_CODE).format(a=self._invented(), b=self._invented(), c=self._invented())
            for _ in range(rng.randint(1, 3))
        )
        start, end = sorted(rng.sample(range(1, len(code)), 2))
        return code[:start], code[start : min(end, start + 12)], code[min(end, start + 12) :]
