"""Figures for Prometheus, of one server."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.0001, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_SHARES = (0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)


class Metrics:
    """What happened, counted; never who said what."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        name = "lollms_ws_chat_"
        self.sessions = Gauge(f"{name}sessions", "Sessions in memory.", registry=self.registry)
        self.connections = Gauge(f"{name}connections", "Open connections.", registry=self.registry)
        self.inputs = Counter(
            f"{name}inputs", "What users said, by what was decided.", ["decision"], registry=self.registry
        )
        self.turns = Counter(
            f"{name}turns", "Answers that were asked for, by reason.", ["reason"], registry=self.registry
        )
        self.replies = Counter(
            f"{name}replies", "Answers that ended, by outcome.", ["outcome"], registry=self.registry
        )
        self.dropped = Counter(
            f"{name}dropped", "Messages and connections given up.", ["what"], registry=self.registry
        )
        self.errors = Counter(f"{name}errors", "ERROR messages, by code.", ["code"], registry=self.registry)
        self.probability = Histogram(
            f"{name}turn_probability",
            "What the turn detector said.",
            ["detector"],
            buckets=_SHARES,
            registry=self.registry,
        )
        self.detecting = Histogram(
            f"{name}turn_detection_seconds",
            "Time until the turn detector answered.",
            ["detector"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.replying = Histogram(
            f"{name}reply_seconds",
            "Time until an answer was complete.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.saves = Counter(
            f"{name}session_saves", "Sessions stored, by outcome.", ["outcome"], registry=self.registry
        )

    def watch(self, sessions: Callable[[], int], connections: Callable[[], int]) -> None:
        """Where the gauges get their values."""
        self.sessions.set_function(sessions)
        self.connections.set_function(connections)

    def text(self) -> bytes:
        """All figures in Prometheus's text format 0.0.4."""
        return generate_latest(self.registry)
