"""Works on many requests at once: what each step evaluates, and what follows from it.

A step takes one token of each answer that goes on and fills up with prompts that are still to be read, so that a long
prompt never keeps answers waiting. Everything here runs in the engine's thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import msgspec

from lollms_kernel.errors import ContextOverflow, GenerationFailed, LollmsError

from .answer_text import AnswerText
from .context import Batch, CacheFull, Context
from .counters import Counters
from .drafting import draft
from .job import Job, Piece, Reading, Result, StopReason
from .native import Model, StopFlag, Stopped
from .prefix_tree import shareable
from .sampling import Sampler
from .sequence_cache import Held, SequenceCache
from .slot import Pending, Slot, Work, chosen_seed
from .stream import Ended, Outbox, Stream

WORTH_WAITING = 32
"""Tokens that another request must just be reading before it pays to wait for them."""
CALM = 0.25
"""Seconds that reading prompts may add to a step while answers go on."""
LEAST_READ = 64
"""Prompt tokens that are always read in a step, if there are so many."""


class Part(msgspec.Struct):
    """What a step evaluates of one work: `count` tokens, the first of them at index `start` of the batch."""

    work: Work
    start: int
    count: int
    reading: bool


class SchedulerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the work is shared out."""

    parallel: int = 1
    host_bytes: int = 0
    context_shift: bool = False
    draft_max: int = 0


class Scheduler:
    """All requests of one context."""

    def __init__(
        self, model: Model, context: Context, options: SchedulerOptions, outbox: Outbox, abort: StopFlag
    ) -> None:
        self.model = model
        self.context = context
        self.options = options
        self.slots = [Slot(id) for id in range(options.parallel)]
        self.counters = Counters()
        self.cache = SequenceCache(context, can_cut=model.can_cut, host_bytes=options.host_bytes)
        self.pending = Pending()
        self.adapt: Callable[[tuple[tuple[int, float], ...]], None] = lambda adapters: None
        """Puts LoRA adapters in force."""
        self.evaluate_media: Callable[[Work], int] | None = None
        """Evaluates the picture or sound that comes next; gives how many tokens it took."""
        self.free_media: Callable[[], None] = lambda: None
        self._outbox = outbox
        self._abort = abort
        self._vocabulary = model.vocabulary
        self._batch = Batch(max(context.batch_size, options.parallel * (1 + options.draft_max)))
        self._numbers = 0
        self._turn: dict[Hashable, int] = {}
        self._steps = 0
        self._most = self._batch.size
        """Tokens that a step may have; fewer after the memory was too full for more."""
        self._seconds_per_token = 0.0
        self._reading_now: frozenset[Stream[Result]] = frozenset()
        self._deferred: list[tuple[int, Callable[[], None], Callable[[BaseException], None]]] = []

    # --- from outside ---

    def add(self, job: Job, stream: Stream[Result], sampler: Sampler | None, seed: int | None) -> None:
        """Take a job in; it waits for a slot."""
        self.counters.requests_total += 1
        try:
            if seed is None:
                seed = chosen_seed(job.sampling)
            if sampler is None:
                sampler = Sampler(job.sampling, self._vocabulary, seed, self.context.n_ctx, job.grammar)
        except LollmsError as error:
            self.counters.requests_failed_total += 1
            self._outbox.put(stream, Ended(error))
            return
        work = Work(self._numbers, job, stream, sampler, seed)
        self._numbers += 1
        ends = frozenset() if job.sampling.ignore_eos else self._vocabulary.end_tokens
        want = job.want_tokens or job.sampling.n_probs > 0
        work.text = AnswerText(job.sampling, ends, want)
        self.pending.add(work)

    @property
    def busy(self) -> bool:
        """Whether there is something to do."""
        return bool(len(self.pending) or self._deferred) or any(slot.work for slot in self.slots)

    @property
    def processing(self) -> int:
        """Requests in slots."""
        return sum(slot.work is not None for slot in self.slots)

    def when_idle(
        self, slot: int, call: Callable[[], None], give_up: Callable[[BaseException], None]
    ) -> None:
        """Call something as soon as nothing is worked on in a slot, before the next work begins there."""
        self._deferred.append((slot, call, give_up))
        self._call_deferred()

    def _call_deferred(self) -> None:
        waiting, self._deferred = self._deferred, []
        for entry in waiting:
            if self.slots[entry[0]].work is None:
                entry[1]()
            else:
                self._deferred.append(entry)

    def hurry(self, stream: Stream[Any]) -> None:
        """Give the running step up if it is long because of this stream, which nobody wants any more. Any thread."""
        if stream in self._reading_now:
            self._abort.set()

    def stop_everything(self, error: Callable[[], BaseException]) -> None:
        """End all requests."""
        for work in list(self.pending):
            self.pending.drop(work)
            self._end(work, error())
        for slot in self.slots:
            if (running := slot.work) is not None:
                self._leave(slot, running, keep=False)
                self._end(running, error())
        for _, _, give_up in self._deferred:
            give_up(error())
        self._deferred = []

    # --- one step ---

    def step(self) -> None:
        """Go on with everything by one step."""
        self._abort.clear()
        self._steps += 1
        self._drop_stopped()
        if self._deferred:
            self._call_deferred()
        self._fill_slots()
        for slot in self._occupied():
            if slot.work is not None and slot.work.state == "waiting":
                self._begin(slot.work)
        if self.evaluate_media is not None:
            self._look_at_media()
        parts = self._plan()
        if parts:
            self._evaluate(parts)

    def _drop_stopped(self) -> None:
        for work in list(self.pending):
            if work.stream.flag.is_set():
                self.pending.drop(work)
                self._end(work, Stopped())
        for slot in self.slots:
            running = slot.work
            if running is not None and running.stream.flag.is_set():
                self._leave(slot, running)
                self._end(running, Stopped())

    def _fill_slots(self) -> None:
        if not len(self.pending):
            return
        idle = sorted((slot for slot in self.slots if slot.work is None), key=lambda slot: slot.used)
        wanted = {
            work.job.sampling.id_slot % len(self.slots)
            for work in self.pending
            if work.job.sampling.id_slot >= 0
        }
        for work in list(self.pending):
            if not idle:
                return
            slot = self._slot_for(work, idle, wanted)
            if slot is not None:
                idle.remove(slot)
                self.pending.take(work)
                slot.work = work
                slot.task = work.number
                slot.last = None
                work.started = time.perf_counter()

    def _slot_for(self, work: Work, idle: list[Slot], wanted: set[int]) -> Slot | None:
        asked = work.job.sampling.id_slot
        if asked >= 0:
            return next((slot for slot in idle if slot.id == asked % len(self.slots)), None)
        return next((slot for slot in idle if slot.id not in wanted), idle[0])

    def _begin(self, work: Work) -> None:
        """Give a work its sequence, unless it is better to wait for what another one is just reading."""
        limit = work.reusable
        path = work.path
        if limit:
            known = self.cache.known(path, limit)
            coming = max((min(limit, shareable(path, other.path)) for other in self._readers()), default=0)
            if coming >= known + WORTH_WAITING:
                return
        held = self.cache.take(path, limit)
        if held is None:
            return
        work.held = held
        if not work.parked:
            work.cached = len(held.tokens)
            self.counters.prompt_tokens_cached_total += work.cached
        work.state = "reading"
        if not work.left:
            work.state = "generating"

    def _readers(self) -> Iterator[Work]:
        for slot in self.slots:
            work = slot.work
            if work is not None and work.state == "reading" and work.job.sampling.cache_prompt:
                yield work

    def _occupied(self) -> list[Slot]:
        """Slots with a work, the oldest first."""
        return sorted((slot for slot in self.slots if slot.work), key=lambda slot: _age(slot))

    # --- what a step evaluates ---

    def _plan(self) -> list[Part]:
        self._batch.clear()
        works = [slot.work for slot in self._occupied() if slot.work is not None]
        works = [work for work in works if work.state != "waiting"]
        if not works:
            return []
        adapters = self._next_adapters(works)
        works = [work for work in works if work.job.adapters == adapters]
        answering = self._with_room([work for work in works if work.state == "generating"])
        parts = [self._add(work, [work.last, *work.draft], reading=False) for work in answering]
        readers = [work for work in works if work.state == "reading" and self._readable(work)]
        self._read(readers, parts)
        if not parts and readers:
            self._park_youngest()
        if parts:
            self.adapt(adapters)
        return parts

    def _next_adapters(self, works: list[Work]) -> tuple[tuple[int, float], ...]:
        """Only works with the same adapters can be evaluated together, so those take turns."""
        kinds = list(dict.fromkeys(work.job.adapters for work in works))
        kind = min(kinds, key=lambda kind: self._turn.get(kind, 0))
        self._turn = {known: self._turn.get(known, 0) for known in kinds}
        self._turn[kind] = self._steps
        return kind

    def _with_room(self, works: list[Work]) -> list[Work]:
        """Those that can go on, with their drafts, after making room for them."""
        works = works[: self._most]
        for work in works:
            self._draft(work)
            if work.done + 1 + len(work.draft) >= self.context.n_ctx:
                work.draft = []
                if work.done + 1 >= self.context.n_ctx:
                    self._shift(work)
        works = [work for work in works if work.state == "generating"]
        need = sum(1 + len(work.draft) for work in works)
        if not self.cache.make_room(need) or need > self._most:
            for work in works:
                work.draft = []
            while not self.cache.make_room(len(works)) and self._park_youngest():
                works = [work for work in works if work.state == "generating"]
        return works

    def _draft(self, work: Work) -> None:
        work.draft = []
        most = self.options.draft_max
        if not most or work.held is None or work.last is None:
            return
        if work.job.sampling.max_tokens > 0:
            most = min(most, work.job.sampling.max_tokens - work.text.count - 1)
        if most > 0:
            work.draft = draft(work.held.tokens, work.last, most)

    def _readable(self, work: Work) -> int:
        """Tokens that can be read before the next picture."""
        media = work.next_media
        return work.left if media is None else media.start - work.done

    def _read(self, readers: list[Work], parts: list[Part]) -> None:
        """Share what is left of the step: the oldest prompt gets a quarter at least, then the shortest go first."""
        budget = min(self._most, self.context.batch_size) - self._batch.count
        if parts and self._seconds_per_token:
            budget = min(budget, max(LEAST_READ, int(CALM / self._seconds_per_token)))
        budget = min(budget, sum(self._readable(work) for work in readers))
        if budget <= 0:
            return
        self.cache.make_room(self._batch.count + budget)
        budget = min(budget, self.cache.free - self._batch.count)
        if budget <= 0 or not readers:
            return
        shares = {readers[0].number: min(self._readable(readers[0]), max(1, budget // 4))}
        budget -= shares[readers[0].number]
        for work in sorted(readers, key=self._readable):
            more = min(budget, self._readable(work) - shares.get(work.number, 0))
            shares[work.number] = shares.get(work.number, 0) + more
            budget -= more
        for work in readers:
            if share := shares.get(work.number, 0):
                parts.append(self._add(work, work.tokens[work.done : work.done + share], reading=True))

    def _add(self, work: Work, tokens: list[Any], reading: bool) -> Part:
        assert work.held is not None
        outputs = len(tokens)
        if reading:
            outputs = int(work.left == len(tokens) and work.last is None)
        start = self._batch.add(work.held.id, tokens, work.position(work.done), outputs)
        return Part(work, start, len(tokens), reading)

    # --- evaluating it ---

    def _evaluate(self, parts: list[Part]) -> None:
        long = [part for part in parts if part.reading or len(parts) == 1]
        self._reading_now = frozenset(part.work.stream for part in long)
        if any(part.work.stream.flag.is_set() for part in parts):
            return  # it was stopped while this was planned
        began = time.perf_counter()
        try:
            self.context.decode(self._batch)
        except CacheFull:
            self._make_smaller(parts)
            return
        except Stopped:
            self._take_back(parts)
            return
        except GenerationFailed as error:
            self._take_back(parts)
            self._evaluate_alone(parts, error)
            return
        finally:
            self._reading_now = frozenset()
        seconds = time.perf_counter() - began
        self._count(parts, seconds)
        self._most = self._batch.size
        for part in parts:
            self._follow(part)

    def _count(self, parts: list[Part], seconds: float) -> None:
        counters = self.counters
        counters.n_decode_total += 1
        counters.decode_seconds_total += seconds
        counters.busy_slots_total += len(parts)
        counters.n_tokens_max = max(counters.n_tokens_max, *(part.work.done + part.count for part in parts))
        counters.prompt_tokens_total += sum(part.count for part in parts if part.reading)
        if self._batch.count >= LEAST_READ:
            rate = seconds / self._batch.count
            self._seconds_per_token = 0.7 * (self._seconds_per_token or rate) + 0.3 * rate

    def _make_smaller(self, parts: list[Part]) -> None:
        """The memory is full although it should not be: make room, else do less, else give the youngest up."""
        self._take_back(parts)
        if self.cache.drop_oldest():
            return
        if self._batch.count > 1:
            self._most = max(1, self._batch.count // 2)
            return
        self._most = self._batch.size
        if not self._park_youngest():
            work = parts[0].work
            self._fail(
                work,
                ContextOverflow(
                    f"The context is full: {self.context.cells} tokens.", hint="Raise `n_ctx`, or send less."
                ),
            )

    def _take_back(self, parts: list[Part]) -> None:
        for part in parts:
            if part.work.held is not None:
                self.context.remove(part.work.held.id, part.work.position(part.work.done), -1)

    def _evaluate_alone(self, parts: list[Part], error: GenerationFailed) -> None:
        """After a step failed: evaluate each part for itself, and fail those that fail alone too."""
        if len(parts) == 1:
            self._fail(parts[0].work, error)
            return
        for part in parts:
            try:
                self.context.decode(self._batch, part.start, part.count)
            except (CacheFull, Stopped):
                self._take_back([part])
            except GenerationFailed as own:
                self._take_back([part])
                self._fail(part.work, own)
            else:
                self._follow(msgspec.structs.replace(part, start=0))

    # --- what follows from it ---

    def _follow(self, part: Part) -> None:
        work = part.work
        try:
            if part.reading:
                self._have_read(work, part)
            else:
                self._have_answered(work, part)
        except LollmsError as error:
            self._fail(work, error)

    def _have_read(self, work: Work, part: Part) -> None:
        held = _held(work)
        self.cache.extend(held, work.tokens[work.done : work.done + part.count])
        if work.job.sampling.cache_prompt and not work.job.media:
            self.cache.publish(held)
        if work.job.sampling.return_progress:
            elapsed = (time.perf_counter() - work.started) * 1000
            self._outbox.put(work.stream, Reading(work.done, len(work.tokens), work.cached, elapsed))
        if work.left:
            return
        work.state = "generating"
        if work.last is None:
            self._choose(work, part.start + part.count - 1)

    def _have_answered(self, work: Work, part: Part) -> None:
        held = _held(work)
        assert work.last is not None
        self.cache.extend(held, [work.last, *work.draft])
        guesses = work.draft
        work.draft = []
        if guesses:
            self.counters.spec_decode_num_drafts_total += 1
            self.counters.spec_decode_num_draft_tokens_total += len(guesses)
            work.drafted += len(guesses)
        right = 0
        keep = len(held.tokens) - len(guesses)
        while True:
            self._choose(work, part.start + right, tokens_in_memory=keep + right)
            if work.text.reason is not None or right == len(guesses) or work.last != guesses[right]:
                break
            right += 1
        work.accepted += right
        self.counters.spec_decode_num_accepted_tokens_total += right

    def _choose(self, work: Work, index: int, tokens_in_memory: int | None = None) -> None:
        began = time.perf_counter()
        logits = self.context.logits(index)
        token = work.sampler.sample(logits)
        now = time.perf_counter()
        self.counters.sample_seconds_total += now - began
        if not work.first_token:
            work.first_token = now
            self.counters.prompt_seconds_total += now - work.started
        work.last_token = now
        done = work.done if tokens_in_memory is None else tokens_in_memory
        if token is None:
            self._finish(work, done, "grammar")
            return
        probability = None
        if work.job.sampling.n_probs:
            probability = work.sampler.probability(token, logits)
        data = self._vocabulary.piece(token, special=token in work.sampler.preserved)
        piece = work.text.add(token, data, probability)
        self.counters.tokens_predicted_total += 1
        if piece is not None:
            self._outbox.put(work.stream, piece)
        work.last = token
        if not self.options.context_shift and done + 1 >= self.context.n_ctx:
            work.text.truncated = True
            if work.text.reason is None:
                self._finish(work, done, "context")
                return
        if work.text.reason is not None:
            self._finish(work, done)
        elif done < work.done and not self._draft_goes_on(work, done):
            self.cache.cut(_held(work), done)

    def _draft_goes_on(self, work: Work, done: int) -> bool:
        """Whether the token just chosen is the one that was guessed and evaluated already."""
        return work.last == _held(work).tokens[done]

    def _finish(self, work: Work, done: int, reason: StopReason | None = None) -> None:
        if reason is not None:
            piece: Piece | None = work.text.end(reason)
            if piece is not None:
                self._outbox.put(work.stream, piece)
        if done < work.done:
            self.cache.cut(_held(work), done)
        self.counters.tokens_predicted_seconds_total += max(0.0, work.last_token - work.first_token)
        slot = self._slot_of(work)
        result = work.result(slot.id)
        self._leave(slot, work)
        work.sampler.close()
        self._outbox.put(work.stream, Ended(result))

    def _fail(self, work: Work, error: BaseException) -> None:
        self._leave(self._slot_of(work), work, keep=False)
        self._end(work, error)

    def _end(self, work: Work, error: BaseException) -> None:
        if isinstance(error, Stopped):
            self.counters.requests_cancelled_total += 1
        else:
            self.counters.requests_failed_total += 1
        work.sampler.close()
        self._outbox.put(work.stream, Ended(error))

    def _leave(self, slot: Slot, work: Work, keep: bool = True) -> None:
        """Take a work out of its slot; what it had in the memory is kept for later."""
        slot.work = None
        slot.used = time.perf_counter()
        held, work.held = work.held, None
        if held is None:
            return
        keep = keep and work.exact and not work.job.media
        self.cache.release(held, keep)
        slot.last = held if keep else None

    def _slot_of(self, work: Work) -> Slot:
        return next(slot for slot in self.slots if slot.work is work)

    # --- making room ---

    def _park_youngest(self) -> bool:
        """Let the youngest work begin again later, so that the others have room; False if there is only one."""
        works = [
            slot.work for slot in self._occupied() if slot.work is not None and slot.work.held is not None
        ]
        if len(works) < 2:
            return False
        work = works[-1]
        self._begin_again(work, list(_held(work).tokens) if work.state == "generating" else work.tokens)
        work.parked += 1
        self.counters.requests_parked_total += 1
        return True

    def _begin_again(self, work: Work, tokens: list[int]) -> None:
        held = _held(work)
        work.tokens = tokens
        work.held = None
        work.draft = []
        work.state = "waiting"
        self.cache.release(held, keep=work.exact and not work.job.media)
        work.exact = True

    def _shift(self, work: Work) -> None:
        """Take a part out of the middle of a work whose context is full."""
        held = _held(work)
        sampling = work.job.sampling
        size = len(held.tokens)
        keep = len(work.job.tokens) if sampling.n_keep < 0 else sampling.n_keep
        keep = min(keep + self._vocabulary.add_bos, self.context.n_ctx - 4, size - 1)
        keep = max(keep, 0)
        left = size - keep
        discard = min(max(sampling.n_discard or left // 2, 1), max(1, left - 1))
        work.text.truncated = True
        if self.context.can_shift and not work.job.media and self.cache.unshare(held, keep):
            self.cache.cut_out(held, keep, keep + discard)
            self.context.shift(held.id, keep + discard, -discard)
            work.exact = False
        else:
            work.public = min(work.public, keep)
            self._begin_again(work, held.tokens[:keep] + held.tokens[keep + discard :])

    # --- pictures and sounds ---

    def _look_at_media(self) -> None:
        for slot in self._occupied():
            work = slot.work
            if work is None or work.state != "reading" or work.next_media is None or self._readable(work):
                continue
            media = work.next_media
            if not self.cache.make_room(media.length):
                if not self._park_youngest():
                    self._fail(
                        work, ContextOverflow("There is no room for the picture.", hint="Raise `n_ctx`.")
                    )
                return
            assert self.evaluate_media is not None
            try:
                self.adapt(work.job.adapters)
                self.evaluate_media(work)
            except LollmsError as error:
                self._fail(work, error)
                return
            self.cache.extend(_held(work), work.tokens[media.start : media.start + media.length])
            return


def _held(work: Work) -> Held:
    assert work.held is not None
    return work.held


def _age(slot: Slot) -> int:
    return slot.work.number if slot.work is not None else -1
