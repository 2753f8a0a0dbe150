"""Kinds of messages, with the numbers of the years 2023 and 2024."""

from __future__ import annotations

from enum import Enum


class MSG_TYPE(Enum):
    """What a text that a script reports is."""

    MSG_TYPE_CHUNK = 0
    MSG_TYPE_FULL = 1
    MSG_TYPE_CONTENT = 1
    MSG_TYPE_FULL_INVISIBLE_TO_AI = 2
    MSG_TYPE_FULL_INVISIBLE_TO_USER = 3
    MSG_TYPE_EXCEPTION = 4
    MSG_TYPE_WARNING = 5
    MSG_TYPE_INFO = 6
    MSG_TYPE_STEP = 7
    MSG_TYPE_STEP_START = 8
    MSG_TYPE_STEP_PROGRESS = 9
    MSG_TYPE_STEP_END = 10
    MSG_TYPE_JSON_INFOS = 11
    MSG_TYPE_REF = 12
    MSG_TYPE_CODE = 13
    MSG_TYPE_UI = 14
    MSG_TYPE_NEW_MESSAGE = 15
    MSG_TYPE_FINISHED_MESSAGE = 17


class MSG_OPERATION_TYPE(Enum):
    """The same since August 2024."""

    MSG_OPERATION_TYPE_ADD_CHUNK = 0
    MSG_OPERATION_TYPE_SET_CONTENT = 1
    MSG_OPERATION_TYPE_SET_CONTENT_INVISIBLE_TO_AI = 2
    MSG_OPERATION_TYPE_SET_CONTENT_INVISIBLE_TO_USER = 3
    MSG_OPERATION_TYPE_EXCEPTION = 4
    MSG_OPERATION_TYPE_WARNING = 5
    MSG_OPERATION_TYPE_INFO = 6
    MSG_OPERATION_TYPE_STEP = 7
    MSG_OPERATION_TYPE_STEP_START = 8
    MSG_OPERATION_TYPE_STEP_PROGRESS = 9
    MSG_OPERATION_TYPE_STEP_END_SUCCESS = 10
    MSG_OPERATION_TYPE_STEP_END_FAILURE = 11
    MSG_OPERATION_TYPE_JSON_INFOS = 12
    MSG_OPERATION_TYPE_REF = 13
    MSG_OPERATION_TYPE_CODE = 14
    MSG_OPERATION_TYPE_UI = 15
    MSG_OPERATION_TYPE_NEW_MESSAGE = 16
    MSG_OPERATION_TYPE_FINISHED_MESSAGE = 17


class SENDER_TYPES(Enum):
    """Who speaks."""

    SENDER_TYPES_USER = 0
    SENDER_TYPES_AI = 1
    SENDER_TYPES_SYSTEM = 2


class GenerationPresets:
    """Parameters for kinds of answers."""

    @staticmethod
    def deterministic_preset() -> dict[str, float]:
        """The same answer each time."""
        return {"temperature": 0.1, "top_k": 1, "top_p": 1.0, "repeat_penalty": 1.0}

    @staticmethod
    def creative_preset() -> dict[str, float]:
        """A different answer each time."""
        return {"temperature": 0.9, "top_k": 50, "top_p": 0.95, "repeat_penalty": 1.1}
