"""What a pipeline makes, told by the name of its class, so that listings need not import the engine."""

from __future__ import annotations

import msgspec


class Kind(msgspec.Struct, frozen=True):
    """The modality that a pipeline makes, the model type of listings, and what it takes beside text."""

    output: str
    model_type: str
    takes_images: bool = False


IMAGES = Kind("image", "tti", takes_images=True)
VIDEO = Kind("video", "ttv")
MUSIC = Kind("audio", "ttm")
SPEECH = Kind("audio", "tts")

_VIDEO = (
    "Video AnimateDiff Allegro CogVideo Hunyuan Latte LTX Mochi Wan SkyReels EasyAnimate Cosmos T2V I2V TI2VA "
    "Kandinsky6 AnyFlow Helios LucyEdit ConsisID ChronoEdit SanaWM PIAPipeline"
).split()
_AUDIO = "AudioLDM MusicLDM StableAudio AudioDiffusion DanceDiffusion AceStep ACEStep LongCatAudio".split()
_SPEECH = "TTS Speech".split()
_STILL = ("HunyuanDiT", "HunyuanImage", "Cosmos2TextToImage")


def kind_of(class_name: str) -> Kind:
    """The kind of a pipeline class such as `StableDiffusionXLPipeline`."""
    if any(word in class_name for word in _SPEECH):
        return SPEECH
    if any(word in class_name for word in _AUDIO):
        return MUSIC
    if any(word in class_name for word in _VIDEO) and not class_name.startswith(_STILL):
        return VIDEO
    return IMAGES
