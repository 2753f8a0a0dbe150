"""What an instance file of type `llamacpp_binding` may say."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from lollms_kernel.contracts import InstanceSettings

DEFAULT_MODELS_FOLDER = "models/gguf"
DEFAULT_N_CTX = 4096

Pooling = Literal["none", "mean", "cls", "last", "rank"]


class LoraFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One LoRA adapter."""

    path: Annotated[str, Meta(description="GGUF file of the adapter.")]
    scale: Annotated[
        float, Meta(ge=-1e6, le=1e6, description="Its weight for requests that say nothing.")
    ] = 1.0


class LlamaCppSettings(InstanceSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of one llama.cpp instance; the names are those of the published binding, then llama-server's."""

    models_folder: Annotated[
        str, Meta(description="Folder with GGUF files. The default means `gguf` in `paths.models_folder`.")
    ] = DEFAULT_MODELS_FOLDER
    model_path: Annotated[
        str | None,
        Meta(description="One GGUF file anywhere on this machine, offered beside the folder's models."),
    ] = None
    n_gpu_layers: Annotated[
        int,
        Meta(
            ge=-1, description="Layers on the GPU; -1: all of them. A build without GPU support ignores it."
        ),
    ] = -1
    n_ctx: Annotated[
        int,
        Meta(
            ge=0,
            le=2**27,
            description="Context size in tokens; 0: the model's own. Never more than the model's own.",
        ),
    ] = DEFAULT_N_CTX
    parallel: Annotated[
        int,
        Meta(ge=1, le=64, description="Slots: requests that are worked on at once. More of them wait."),
    ] = 4
    batch_size: Annotated[int, Meta(ge=1, le=65536, description="Tokens evaluated in one step.")] = 512
    ubatch_size: Annotated[
        int,
        Meta(
            ge=1,
            le=65536,
            description="Tokens computed at once within a step; also the longest input of an embedding.",
        ),
    ] = 512
    kv_unified: Annotated[
        bool,
        Meta(
            description="One memory for all slots: each may use all of `n_ctx`, and prompts share what they have in "
            "common. false: each slot has its own part of `n_ctx`."
        ),
    ] = True
    cache_ram: Annotated[
        int,
        Meta(ge=0, le=2**24, description="MiB of host memory for prompts that no longer fit; 0: none."),
    ] = 0
    context_shift: Annotated[
        bool,
        Meta(
            description="Go on when the context is full, by dropping the middle of it; else the answer ends there."
        ),
    ] = False
    draft_max: Annotated[
        int,
        Meta(
            ge=0,
            le=64,
            description="Tokens to guess ahead from what was there before (prompt lookup); 0: none.",
        ),
    ] = 0
    embeddings: Annotated[
        bool | None,
        Meta(description="Serve embeddings; null: if the model was made for them."),
    ] = None
    reranking: Annotated[
        bool | None, Meta(description="Serve reranking; null: if the model was made for it.")
    ] = None
    pooling: Annotated[
        Pooling | None, Meta(description="How token embeddings become one vector; null: as the model says.")
    ] = None
    lora: Annotated[
        list[LoraFile], Meta(max_length=64, description="LoRA adapters, in the order of their ids.")
    ] = []
    mmproj: Annotated[
        str | None,
        Meta(description="GGUF file of the projector with which the model sees pictures or hears sound."),
    ] = None
    slot_save_path: Annotated[
        str | None, Meta(description="Folder into which slots may be saved; null: they cannot.")
    ] = None
    threads: Annotated[
        int,
        Meta(
            ge=0,
            le=1024,
            description="Threads that generate; 0: one per core, a single one for models under 20 MB.",
        ),
    ] = 0
    threads_batch: Annotated[
        int, Meta(ge=0, le=1024, description="Threads that read prompts; 0: as many as `threads`.")
    ] = 0
    tensor_split: Annotated[
        list[Annotated[float, Meta(ge=0)]] | None,
        Meta(description="Share of the model for each GPU, e.g. [3, 1]."),
    ] = None
    cache_type: Annotated[
        Literal["fp16", "q8_0", "q4_0"],
        Meta(description="Precision of the KV cache; the quantized ones save memory."),
    ] = "fp16"
    rope_freq_base: Annotated[float, Meta(ge=0, description="RoPE base frequency; 0: the model's own.")] = 0.0
    compress_pos_emb: Annotated[
        float,
        Meta(ge=1, description="Linear RoPE scaling: 2 doubles the context that the model can address."),
    ] = 1.0
    use_extra_bufts: Annotated[
        bool | None,
        Meta(
            description="Let llama.cpp repack weights for special CPU units (AMX and others); null: if that works."
        ),
    ] = None
    chat_template: Annotated[
        str | None, Meta(description="Jinja chat template, or the path of one, instead of the model's own.")
    ] = None
    chat_template_file: Annotated[
        str | None, Meta(description="Path of a Jinja chat template; `chat_template` wins over it.")
    ] = None
    reasoning_format: Annotated[
        Literal["auto", "none", "deepseek", "deepseek-legacy"],
        Meta(
            description="For the llama-server API; `none`: reasoning stays in the text, else it is told apart."
        ),
    ] = "auto"
    default_parameters: Annotated[
        dict[str, Any],
        Meta(
            description="Parameters of requests that do not set them, e.g. {temperature: 0.2, n_predict: -1}."
        ),
    ] = {}
    verbose: Annotated[bool, Meta(description="Log what llama.cpp says at INFO instead of DEBUG.")] = False
    server_path: Annotated[
        str | None, Meta(description="Of older versions, which started llama-server; has no effect.")
    ] = None
    additional_args: Annotated[
        dict[str, Any], Meta(description="Of older versions, which started llama-server; has no effect.")
    ] = {}
