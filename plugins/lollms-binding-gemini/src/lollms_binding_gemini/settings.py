"""What instance files of type `gemini_binding` and `gemini_image_binding` may say."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from lollms_kernel.contracts import Secret
from lollms_kernel.upstream import UpstreamSettings

Threshold = Literal["BLOCK_NONE", "BLOCK_ONLY_HIGH", "BLOCK_MEDIUM_AND_ABOVE", "BLOCK_LOW_AND_ABOVE"]
"""From which probability of harm on something is blocked."""

AspectRatio = Literal["1:1", "3:4", "4:3", "9:16", "16:9"]

Library = Literal["google-genai", "google-generativeai"]


class ServiceSettings(UpstreamSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the service is, who asks, and what it may say."""

    google_api_key: Annotated[
        Secret | None,
        Meta(
            description="The key. null: the environment variable GOOGLE_API_KEY, which is only sent to Google."
        ),
    ] = None
    base_url: Annotated[
        str | None,
        Meta(
            description="Address of a gateway that speaks Google's protocol, without /v1beta; null: Google."
        ),
    ] = None
    safety_setting_harassment: Annotated[
        Threshold, Meta(description="From which probability on harassment is blocked.")
    ] = "BLOCK_MEDIUM_AND_ABOVE"
    safety_setting_hate_speech: Annotated[
        Threshold, Meta(description="From which probability on hate speech is blocked.")
    ] = "BLOCK_MEDIUM_AND_ABOVE"
    safety_setting_sexually_explicit: Annotated[
        Threshold, Meta(description="From which probability on sexually explicit content is blocked.")
    ] = "BLOCK_MEDIUM_AND_ABOVE"
    safety_setting_dangerous_content: Annotated[
        Threshold, Meta(description="From which probability on dangerous content is blocked.")
    ] = "BLOCK_MEDIUM_AND_ABOVE"

    @property
    def safety(self) -> dict[str, str]:
        """Google's name of each kind of harm, and its threshold."""
        return {
            "HARM_CATEGORY_HARASSMENT": self.safety_setting_harassment,
            "HARM_CATEGORY_HATE_SPEECH": self.safety_setting_hate_speech,
            "HARM_CATEGORY_SEXUALLY_EXPLICIT": self.safety_setting_sexually_explicit,
            "HARM_CATEGORY_DANGEROUS_CONTENT": self.safety_setting_dangerous_content,
        }


class GeminiSettings(ServiceSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of one instance of `gemini_binding`."""

    default_model: Annotated[
        str | None,
        Meta(
            description="null, or the untouched default once Google has retired it: a flash model that is there."
        ),
    ] = "gemma-3-27b-it"
    auto_detect_limits: Annotated[
        bool, Meta(description="Take the context size and the longest answer of each model from the service.")
    ] = True
    ctx_size: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Context size in tokens where it is not detected."),
    ] = 30_720
    max_output_tokens: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Longest answer in tokens where it is not detected."),
    ] = 2048
    include_thoughts: Annotated[
        bool, Meta(description="Ask models that think for a summary of their thoughts.")
    ] = True
    embedding_model: Annotated[
        str | None, Meta(description="Model for vectors; null: the first one of the service.")
    ] = None
    sdk: Annotated[
        Literal["auto"] | Library,
        Meta(description="Which of Google's libraries to use; auto: google-genai if it is installed."),
    ] = "auto"


class GeminiImageSettings(ServiceSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of one instance of `gemini_image_binding`."""

    default_model: Annotated[
        str | None,
        Meta(
            description="null, or the untouched default once Google has retired it: an image model that is there."
        ),
    ] = "imagen-3.0-generate-002"
    default_number_of_images: Annotated[
        int, Meta(ge=1, le=4, description="How many images where a request does not say.")
    ] = 1
    default_aspect_ratio: Annotated[
        AspectRatio, Meta(description="Width to height where a request does not say.")
    ] = "1:1"
    default_person_generation: Annotated[
        Literal["ALLOW_ADULT", "DONT_ALLOW"], Meta(description="Whether Imagen may show people.")
    ] = "ALLOW_ADULT"
