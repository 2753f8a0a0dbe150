"""Slots and what is worked on in them."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Literal

from .answer_text import AnswerText
from .job import Job, MediaRun, Result
from .parameters import MAX_SEED, Sampling
from .prefix_tree import Path
from .sampling import Sampler
from .sequence_cache import Held
from .stream import Stream

State = Literal["waiting", "reading", "generating"]
"""A work waits for its sequence, or for a prefix that another one is reading; it reads its prompt; it answers."""


def chosen_seed(sampling: Sampling) -> int:
    """The seed that is asked for, or one by chance."""
    return sampling.seed if 0 <= sampling.seed <= MAX_SEED else secrets.randbelow(MAX_SEED + 1)


class Work:
    """One job from its start to its result."""

    def __init__(self, number: int, job: Job, stream: Stream[Result], sampler: Sampler, seed: int) -> None:
        self.number = number
        """Counts up; the smaller, the older."""
        self.job = job
        self.stream = stream
        self.sampler = sampler
        self.seed = seed
        self.text: AnswerText
        self.state: State = "waiting"
        self.tokens: list[int] = job.tokens
        """What has to be in the memory before the answer goes on: the prompt, and after a new beginning also what was
        answered so far."""
        self.public = job.public
        self.held: Held | None = None
        self.last: int | None = None
        """The token that was chosen last and is not evaluated yet."""
        self.draft: list[int] = []
        self.exact = True
        """Whether the memory holds what evaluating its tokens gives; moving cells makes it an approximation."""
        self.cached = 0
        self.drafted = self.accepted = self.parked = 0
        self.asked = time.perf_counter()
        self.started = 0.0
        self.first_token = 0.0
        self.last_token = 0.0

    @property
    def path(self) -> Path:
        """Its tokens for the cache."""
        return Path(self.tokens, self.public, self.job.tenant, self.job.adapters)

    @property
    def reusable(self) -> int:
        """How many leading tokens may come from the cache: never the last one of a prompt, whose logits are needed,
        and nothing from a picture on."""
        if not self.job.sampling.cache_prompt:
            return 0
        limit = len(self.tokens) - (self.last is None)
        return min(limit, self.job.media[0].start) if self.job.media else limit

    @property
    def done(self) -> int:
        """Tokens in the memory."""
        return 0 if self.held is None else len(self.held.tokens)

    @property
    def left(self) -> int:
        """Tokens that are still to be read."""
        return len(self.tokens) - self.done

    @property
    def next_media(self) -> MediaRun | None:
        """The picture or sound that comes next, if one is left."""
        return next((run for run in self.job.media if run.start >= self.done), None)

    def position(self, index: int) -> int:
        """Where the token at `index` stands; pictures may take more or fewer positions than tokens."""
        return index + sum(
            run.positions - run.length for run in self.job.media if run.start + run.length <= index
        )

    def result(self, slot: int) -> Result:
        """What the client is told in the end."""
        now = time.perf_counter()
        return Result(
            answer=self.text.answer(),
            slot=slot,
            seed=self.seed,
            prompt_tokens=len(self.job.tokens),
            cached_tokens=self.cached,
            tokens_in_cache=self.done,
            queue_seconds=self.started - self.asked,
            prompt_seconds=(self.first_token or now) - self.started,
            generate_seconds=max(0.0, self.last_token - self.first_token),
            drafted=self.drafted,
            drafts_accepted=self.accepted,
            parked=self.parked,
        )


class Slot:
    """A place for one work. `last` is the sequence of the work before, as long as it is kept."""

    def __init__(self, id: int) -> None:
        self.id = id
        self.work: Work | None = None
        self.last: Held | None = None
        self.used = 0.0
        self.task = -1
        """Number of the work that is or was in it last."""
        self.settings: dict[str, Any] = {}
        self.counts: dict[str, int] = {}


class Pending:
    """Jobs without a slot, tenant by tenant in turn, first come first served within one."""

    def __init__(self) -> None:
        self._tenants: dict[str, deque[Work]] = {}

    def __len__(self) -> int:
        return sum(len(works) for works in self._tenants.values())

    def __iter__(self) -> Iterator[Work]:
        """In the order in which they should get slots."""
        queues = [deque(works) for works in self._tenants.values()]
        while queues:
            for works in list(queues):
                yield works.popleft()
                if not works:
                    queues.remove(works)

    def add(self, work: Work) -> None:
        """Line up."""
        self._tenants.setdefault(work.job.tenant, deque()).append(work)

    def take(self, work: Work) -> None:
        """Remove one that got a slot; its tenant goes to the end of the line."""
        works = self._tenants.pop(work.job.tenant)
        works.remove(work)
        if works:
            self._tenants[work.job.tenant] = works

    def drop(self, work: Work) -> None:
        """Remove one that nobody wants any more."""
        works = self._tenants[work.job.tenant]
        works.remove(work)
        if not works:
            del self._tenants[work.job.tenant]
