"""Coloured terminal output of the older programs, without the colours: what is printed goes to the server's log."""

from __future__ import annotations

import logging
import sys
import traceback
from logging import CRITICAL, DEBUG, ERROR, INFO, WARNING, Logger, basicConfig, getLogger
from typing import Any

__all__ = [
    "CRITICAL",
    "DEBUG",
    "ERROR",
    "INFO",
    "WARNING",
    "ASCIIColors",
    "Logger",
    "basicConfig",
    "critical",
    "debug",
    "error",
    "exception",
    "getLogger",
    "get_trace_exception",
    "info",
    "trace_exception",
    "warning",
]

logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")

debug, info, warning = logging.debug, logging.info, logging.warning
error, critical, exception = logging.error, logging.critical, logging.exception


def get_trace_exception(problem: BaseException) -> str:
    """The traceback as text."""
    return "".join(traceback.format_exception(problem))


def trace_exception(problem: BaseException) -> None:
    """Print the traceback."""
    sys.stderr.write(get_trace_exception(problem))


class _Printing(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("color_") or name.startswith("style_"):
            return ""
        if name.startswith("_"):
            raise AttributeError(name)

        def show(*texts: object, **_: Any) -> None:
            sys.stderr.write(" ".join(map(str, texts)) + "\n")

        return show


class ASCIIColors(metaclass=_Printing):
    """Every method prints its arguments."""
