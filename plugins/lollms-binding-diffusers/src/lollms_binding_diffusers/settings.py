"""What an instance file of type `diffusers_binding` may say."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta

from lollms_kernel.contracts import InstanceSettings

DEFAULT_SCHEDULER: Final = "DPMSolverMultistepScheduler"

SchedulerName = Literal[
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LCMScheduler",
    "DDIMScheduler",
    "DDPMScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
    "FlowMatchEulerDiscreteScheduler",
]


class DiffusersSettings(InstanceSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of one diffusers instance; the first block has the names of the published binding."""

    models_folder: Annotated[
        str,
        Meta(description="Folder with models: diffusers folders (model_index.json) and .safetensors files."),
    ] = "models/diffusers_models/"
    controlnet_models_folder: Annotated[str | None, Meta(description="Folder with ControlNet models.")] = (
        "models/controlnet/"
    )
    device: Annotated[
        Literal["auto", "cuda", "mps", "cpu"], Meta(description="auto: cuda, else mps, else cpu.")
    ] = "auto"
    use_fp16: Annotated[bool, Meta(description="Half precision on cuda and mps; a CPU always gets fp32.")] = (
        True
    )
    use_bf16: Annotated[
        bool, Meta(description="bfloat16 where the device has it, the CPU included; goes before use_fp16.")
    ] = False
    scheduler_type: Annotated[
        SchedulerName | None,
        Meta(
            description="Scheduler; a notice tells where a model cannot use it. The default gives way to what a model "
            "names; null: each model's own. A request may name another."
        ),
    ] = DEFAULT_SCHEDULER
    vae_path: Annotated[str | None, Meta(description="Folder of a VAE to use instead of the model's.")] = None
    lora_paths: Annotated[
        list[str],
        Meta(description="LoRA files (.safetensors) that are put onto every model of this instance."),
    ] = []
    controlnet_model_paths: Annotated[
        list[str],
        Meta(description="ControlNet folders anywhere on this machine; the first one is the default."),
    ] = []
    enable_safety_checker: Annotated[
        bool | None,
        Meta(
            description="null: use a model's safety checker where it has one; true: also tell where it has none; "
            "false: never."
        ),
    ] = None
    use_compel: Annotated[
        bool, Meta(description="Of older versions (prompt weights with compel); has no effect.")
    ] = False
    default_strength: Annotated[
        float, Meta(ge=0, le=1, description="How much an input image is changed: 0 not at all, 1 completely.")
    ] = 0.8
    default_controlnet_scale: Annotated[
        float, Meta(ge=0, le=2, description="Weight of the control image.")
    ] = 0.75

    lora_scales: Annotated[
        list[float], Meta(description="Weight of each LoRA of lora_paths; those left out have 1.")
    ] = []
    allow_downloads: Annotated[
        bool,
        Meta(description="Fetch what `hub_models` names from the Hugging Face hub; else nothing is fetched."),
    ] = False
    hub_models: Annotated[
        list[str],
        Meta(
            description="Hub ids (owner/name) that are fetched when they are needed and allow_downloads is set."
        ),
    ] = []
    max_size: Annotated[
        int,
        Meta(ge=64, le=8192, description="Largest width and height in pixels that a request may ask for."),
    ] = 2048
    max_images: Annotated[int, Meta(ge=1, le=64, description="Most images of one request.")] = 8
    max_steps: Annotated[int, Meta(ge=1, le=1000, description="Most steps of one request.")] = 150
    max_input_megapixels: Annotated[
        float, Meta(gt=0, le=256, description="Largest input image, in millions of pixels.")
    ] = 16.0
    max_batch: Annotated[
        int, Meta(ge=1, le=64, description="Most images drawn at once; 1: requests are never put together.")
    ] = 4
    batch_window: Annotated[
        float,
        Meta(ge=0, le=1, description="Seconds that the first of several requests waits for others like it."),
    ] = 0.01
    threads: Annotated[
        int,
        Meta(ge=0, le=1024, description="CPU threads; 0: one for small models, else one per physical core."),
    ] = 0
