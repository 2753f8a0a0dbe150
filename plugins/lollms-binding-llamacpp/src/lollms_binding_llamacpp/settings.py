"""What an instance file of type `llamacpp_binding` may say."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from lollms_kernel.contracts import InstanceSettings

DEFAULT_MODELS_FOLDER = "models/gguf"
DEFAULT_N_CTX = 4096


class LlamaCppSettings(InstanceSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of one llama.cpp instance; the names are those of the published binding."""

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
            ge=0, description="Context size in tokens; 0: the model's own. Never more than the model's own."
        ),
    ] = DEFAULT_N_CTX
    batch_size: Annotated[int, Meta(ge=1, le=65536, description="Prompt tokens evaluated in one step.")] = 512
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
    verbose: Annotated[bool, Meta(description="Log what llama.cpp says at INFO instead of DEBUG.")] = False
    server_path: Annotated[
        str | None, Meta(description="Of older versions, which started llama-server; has no effect.")
    ] = None
    additional_args: Annotated[
        dict[str, Any], Meta(description="Of older versions, which started llama-server; has no effect.")
    ] = {}
