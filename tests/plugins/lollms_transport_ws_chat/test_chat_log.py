"""The published log format, and that nobody can forge it."""

from __future__ import annotations

import io
import logging
import re

import pytest

from lollms_kernel.config.concealment import remember
from lollms_kernel.logs import JsonFormatter
from lollms_transport_ws_chat.chat_log import LOGGER, ChatLog, DocumentFormatter, document_style, sanitised


def line(write: str, **options: object) -> str:
    stream = io.StringIO()
    with document_style(stream):
        log = ChatLog(show_text=bool(options.pop("show_text", True)))
        logging.getLogger(LOGGER).setLevel(logging.DEBUG)
        log.write(write, **options)  # type: ignore[arg-type]
        logging.getLogger(LOGGER).setLevel(logging.NOTSET)
    return stream.getvalue().rstrip("\n")


def test_the_documents_lines() -> None:
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} "
    new = line(
        "SESSION", client_id="user123", message="NEW SESSION: Creating session", total_sessions_before=0
    )
    assert re.fullmatch(
        stamp + r"\[SESSION\] 🔗 \(user123\): NEW SESSION: Creating session \| total_sessions_before=0", new
    )
    said = line(
        "USER_INPUT",
        client_id="user123",
        message="AI speaking. Buffering",
        text="Hello",
        current_buffer_size=1,
    )
    assert said.endswith("[USER_INPUT] 💬 (user123): AI speaking. Buffering: 'Hello' | current_buffer_size=1")
    sent = line(
        "AI_RESPONSE",
        client_id="user123",
        message="Response sent",
        text="Hello! How can I help you?",
        tts_duration="2.5s",
        playback_ends_at="1642248629.289",
    )
    assert sent.endswith(
        "[AI_RESPONSE] 🤖 (user123): Response sent: 'Hello! How can I help you?' | tts_duration=2.5s"
        " | playback_ends_at=1642248629.289"
    )


@pytest.mark.parametrize(
    ("level", "sign"),
    [("DEBUG", "🐛"), ("INFO", "ℹ️"), ("WARNING", "⚠️"), ("ERROR", "❌"), ("TIMEOUT", "⏱️")],  # noqa: RUF001
)
def test_every_level_has_its_sign(level: str, sign: str) -> None:
    assert line(level, client_id="", message="Something.").endswith(f" [{level}] {sign}: Something.")


def test_a_client_cannot_forge_a_line_or_command_a_terminal() -> None:
    written = line("INFO", client_id="a\nb", message="x", text="\x1b[2J\u2028\u202e\x85fine 👩‍💻", key="1\n2")
    assert "\n" not in written
    assert "(a\\nb): x: '\\x1b[2J\\u2028\\u202e\\x85fine 👩‍💻' | key=1\\n2" in written
    assert sanitised("\ud800") == "\\ud800"


def test_texts_are_shortened_or_left_out() -> None:
    assert len(line("INFO", client_id="u", message="x", text="y" * 500)) < 150
    assert "secret words" not in line(
        "INFO", client_id="u", message="x", text="secret words", show_text=False
    )


def test_a_known_secret_is_not_in_the_log() -> None:
    remember(["secret-of-the-log-test"])
    assert "secret-of-the-log-test" not in line("INFO", client_id="u", message="secret-of-the-log-test")


def test_colours_are_for_terminals() -> None:
    record = logging.LogRecord("x", 22, "", 0, "said", None, None)
    record.levelname = "AI_RESPONSE"
    assert "\x1b[34m[AI_RESPONSE]\x1b[0m" in DocumentFormatter(colours=True).format(record)
    assert "\x1b" not in DocumentFormatter().format(record)


def test_the_servers_own_log_gets_the_same_facts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ChatLog().write("SESSION", "u", "Something", "text", number=5)
    entry = JsonFormatter().format(caplog.records[-1])
    for part in ('"level":"SESSION"', '"client_id":"u"', '"number":5', "Something: 'text'"):
        assert part in entry
