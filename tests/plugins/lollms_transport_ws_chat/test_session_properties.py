"""What holds for a session whatever happens to it and in whatever order."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lollms_transport_ws_chat.events import (
    CancelTimer,
    Connected,
    Detach,
    Detect,
    Detected,
    Disconnected,
    EndOfTurn,
    Event,
    Forget,
    Generate,
    Interrupt,
    Outgoing,
    PlaybackFinished,
    PlaybackStarted,
    Refuse,
    Replied,
    ReplyFailed,
    ReplyGrew,
    Send,
    SetTimer,
    StopGenerating,
    Suspended,
    TimerFired,
    UserInput,
    UserSpeaks,
)
from lollms_transport_ws_chat.messages import FEATURES
from lollms_transport_ws_chat.session import Rules, Session
from lollms_transport_ws_chat.snapshot import decoded, encoded, restored, taken

WALL = 1_000_000.0


class AnySession(RuleBasedStateMachine):
    """Carries out a session's commands in every order that real timers, models and networks may produce."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.links = 0
        self.open: set[int] = set()
        self.timers: dict[str, tuple[int, float]] = {}
        self.waiting_for: str | None = None
        self.detections: list[int] = []
        self.words = 0
        self.refused: Counter[str] = Counter()
        self.asked: dict[str, list[str]] = {}
        self.outcomes: Counter[str] = Counter()
        self.stopped: set[str] = set()
        self.given_back: Counter[str] = Counter()
        self.postponed: set[str] = set()
        self.unsent: dict[int, list[Outgoing]] = {}
        self.forgotten = False

    @initialize(
        silence=st.sampled_from([0.0, 1.0, 5.0]),
        most=st.integers(1, 4),
        evaluate=st.booleans(),
        replace=st.booleans(),
        from_backend=st.booleans(),
    )
    def begin(self, silence: float, most: int, evaluate: bool, replace: bool, from_backend: bool) -> None:
        self.rules_ = Rules(
            duration=lambda text: 0.5 + len(text) / 10,
            silence=silence,
            max_incomplete=most,
            evaluate_on_playback_end=evaluate,
            replace=replace,
            welcome="welcome",
            welcome_from_backend=from_backend,
            ttl=1000.0,
            buffer_limit=8,
        )
        self.session = Session("u", "s", self.rules_)
        self.connect(True)

    # --- carrying out ---

    def happen(self, event: Event) -> None:
        for command in self.session.handle(event, self.now):
            match command:
                case Send(link, message):
                    self.send(link, message)
                case SetTimer(kind, number, at):
                    assert at >= self.now
                    self.timers[kind] = (number, at)
                case CancelTimer(kind):
                    del self.timers[kind]
                case Detect(number, lines):
                    assert lines[-1].role == "user"
                    self.detections.append(number)
                case Generate(response, lines, reason):
                    assert self.waiting_for is None, "two backend calls at once"
                    self.waiting_for = response
                    assert response not in self.asked, "a reply is asked for twice"
                    self.asked[response] = [] if reason == "welcome" else lines[-1].content.split()
                case StopGenerating(response):
                    assert self.waiting_for == response
                    self.waiting_for = None
                    self.stopped.add(response)
                    if isinstance(event, Suspended):
                        self.postponed.add(response)
                case Detach(link) | Refuse(link):
                    self.open.discard(link)
                case Forget():
                    self.forgotten = True

    def send(self, link: int, message: Outgoing) -> None:
        payload = message.payload
        if message.type == "ERROR" and payload["code"] in ("buffer_full", "session_taken"):
            self.refused[payload["text"]] += 1
            return
        assert link in self.open, "a message for a closed connection"
        if message.type in ("AI_RESPONSE", "ERROR") and "response_id" in payload:
            self.unsent.setdefault(link, []).append(message)

    def arrive(self, link: int) -> None:
        """What was sent on a connection reaches its client."""
        for message in self.unsent.pop(link, []):
            self.outcomes[message.payload["response_id"]] += 1
            if message.type == "ERROR":
                self.given_back.update(message.payload.get("text", "").split())

    # --- what may happen ---

    @rule(everything=st.booleans())
    def connect(self, everything: bool) -> None:
        for link in list(self.unsent):
            self.arrive(link)
        self.links += 1
        self.open.add(self.links)
        self.happen(Connected(self.links, FEATURES if everything else frozenset()))

    @precondition(lambda self: self.open)
    @rule(broken=st.booleans())
    def disconnect(self, broken: bool) -> None:
        link = min(self.open)
        self.open.discard(link)
        lost = self.unsent.pop(link, []) if broken else []
        if not broken:
            self.arrive(link)
        self.happen(Disconnected(link, tuple(lost)))

    @precondition(lambda self: self.open)
    @rule()
    def say(self) -> None:
        self.words += 1
        link = self.session.link if self.session.link is not None else min(self.open)
        self.happen(UserInput(link, f"w{self.words}", "u", FEATURES))

    @rule()
    def say_through_another_connection(self) -> None:
        self.words += 1
        self.links += 1
        self.open.add(self.links)
        self.happen(UserInput(self.links, f"w{self.words}", "other"))
        if self.session.link != self.links:
            self.open.discard(self.links)

    @precondition(lambda self: self.detections)
    @rule(complete=st.booleans(), late=st.booleans())
    def judge(self, complete: bool, late: bool) -> None:
        self.happen(Detected(self.detections.pop(0 if late else -1), complete, 0.5, 0.5))

    @precondition(lambda self: self.waiting_for)
    @rule(how=st.sampled_from(["ok", "empty", "fail", "stopping"]))
    def answer(self, how: str) -> None:
        response, self.waiting_for = self.waiting_for, None
        assert response is not None
        if how == "ok":
            self.happen(ReplyGrew(response, "a b "))
            self.happen(Replied(response, "a b c d e f"))
        elif how == "empty":
            self.happen(Replied(response, " "))
        elif how == "fail":
            self.happen(ReplyFailed(response, "generation_failed", "no"))
        else:
            self.postponed.add(response)
            self.happen(ReplyFailed(response, "shutting_down", "no"))

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.7, 2.0, 6.0]))
    def time_passes(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [(at, kind, number) for kind, (number, at) in self.timers.items() if at <= end]:
            at, kind, number = min(due)
            self.now = max(self.now, at)
            del self.timers[kind]
            self.happen(TimerFired(kind, number))  # type: ignore[arg-type]
            if self.waiting_for:
                return  # an answer takes time; the rest of the timers with it
        self.now = end

    @precondition(lambda self: self.open)
    @rule(
        what=st.sampled_from(["interrupt", "end", "started", "finished", "speaks", "stale"]),
        seconds=st.sampled_from([0.0, 0.3, 50.0]),
    )
    def client_tells(self, what: str, seconds: float) -> None:
        link = self.session.link or 0
        spoken = self.session.spoken.response if self.session.spoken else "none"
        if what == "interrupt":
            self.happen(Interrupt(link, None, seconds))
        elif what == "end":
            self.happen(EndOfTurn(link))
        elif what == "started":
            self.happen(PlaybackStarted(link, spoken, seconds))
        elif what == "finished":
            self.happen(PlaybackFinished(link, spoken))
        elif what == "speaks":
            self.happen(UserSpeaks(link))
        else:
            self.happen(Interrupt(0, spoken, seconds))

    @rule()
    def server_restarts(self) -> None:
        for link in list(self.unsent):
            self.arrive(link)
        self.happen(Suspended())
        assert not self.timers, "a timer is left"
        assert self.waiting_for is None
        snapshot = decoded(encoded(taken(self.session, self.now, WALL + self.now)))
        session = restored(snapshot, self.rules_, self.now, WALL + self.now)
        assert session is not None
        self.session, self.detections = session, []
        self.open.clear()
        self.connect(True)

    # --- what holds ---

    @invariant()
    def timers_are_those_that_the_session_knows(self) -> None:
        assert self.session.timers == set(self.timers)

    @invariant()
    def one_outcome_for_each_question_at_most(self) -> None:
        assert all(count == 1 for count in self.outcomes.values())
        assert not self.stopped & set(self.outcomes)

    @invariant()
    def nothing_waits_for_ever(self) -> None:
        session = self.session
        if session.buffer and session.link is not None and not self.postponed:
            assert session.generating or session.detecting or "silence" in self.timers

    def teardown(self) -> None:
        if not hasattr(self, "session"):
            return
        self.come_back()
        for _ in range(100):
            if self.waiting_for:
                self.answer("ok")
            elif self.detections:
                self.judge(True, False)
            elif self.session.buffer or self.timers:
                self.time_passes(6.0)
                if self.session.buffer and self.nothing_is_under_way():
                    self.come_back()  # a question that had to wait for the server is asked again
            else:
                break
        for link in list(self.unsent):
            self.arrive(link)
        assert not self.session.buffer
        self.every_word_was_asked_once_or_came_back()
        self.every_question_had_one_outcome()
        self.happen(Disconnected(self.session.link or 0))
        self.time_passes(2000.0)
        assert self.forgotten
        assert not self.timers, "a timer is left"

    def nothing_is_under_way(self) -> bool:
        return not (self.timers or self.waiting_for or self.detections)

    def come_back(self) -> None:
        while self.open:
            self.disconnect(False)
        self.connect(False)

    def every_word_was_asked_once_or_came_back(self) -> None:
        final = [response for response in self.asked if response not in self.postponed]
        asked = Counter(word for response in final for word in self.asked[response])
        said = Counter(f"w{number}" for number in range(1, self.words + 1))
        assert asked + self.refused == said

    def every_question_had_one_outcome(self) -> None:
        for response in self.asked:
            ended = self.outcomes[response] + (response in self.stopped) + (response in self.postponed)
            assert ended == 1 + (response in self.stopped and response in self.postponed), response


AnySession.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestAnySession = AnySession.TestCase
