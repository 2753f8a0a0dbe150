"""The flags of llama.cpp's `llama-server`: those that mean something here, and those that are only accepted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path)
_COUNT = click.IntRange(0, 2**31 - 1)
_OR_AUTO = click.IntRange(-1, 2**31 - 1)
POOLING = ("none", "mean", "cls", "last", "rank")
REASONING = ("none", "auto", "deepseek", "deepseek-legacy")


def _env(name: str) -> dict[str, Any]:
    return {"envvar": f"LLAMA_ARG_{name}"}


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("-m", "--model", type=_FILE, metavar="FILE", help="GGUF file to serve.", **_env("MODEL")),
    click.option(
        "-hf",
        "-hfr",
        "--hf-repo",
        metavar="USER/REPO[:QUANT]",
        help="Model of a hub, downloaded once.",
        **_env("HF_REPO"),
    ),
    click.option("-hff", "--hf-file", metavar="FILE", help="File of that repository.", **_env("HF_FILE")),
    click.option("--offline", is_flag=True, help="Download nothing.", **_env("OFFLINE")),
    click.option("-a", "--alias", metavar="NAME", help="Name of the model in answers.", **_env("ALIAS")),
    click.option("--host", default="127.0.0.1", metavar="HOST", show_default=True, **_env("HOST")),
    click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True, **_env("PORT")),
    click.option("--api-key", metavar="KEY[,KEY]", help="Keys that open it.", envvar="LLAMA_API_KEY"),
    click.option("--api-key-file", type=_FILE, metavar="FILE", help="File with one key in each line."),
    click.option(
        "-c", "--ctx-size", type=_COUNT, help="Context in tokens; 0: the model's.", **_env("CTX_SIZE")
    ),
    click.option("-np", "--parallel", type=_OR_AUTO, help="Number of slots.", **_env("N_PARALLEL")),
    click.option("-b", "--batch-size", type=click.IntRange(1, 65536), **_env("BATCH")),
    click.option("-ub", "--ubatch-size", type=click.IntRange(1, 65536), **_env("UBATCH")),
    click.option("-t", "--threads", type=_OR_AUTO, **_env("THREADS")),
    click.option("-tb", "--threads-batch", type=_OR_AUTO, **_env("THREADS_BATCH")),
    click.option("-n", "--predict", "--n-predict", "n_predict", type=_OR_AUTO, **_env("N_PREDICT")),
    click.option(
        "-ngl",
        "--gpu-layers",
        "--n-gpu-layers",
        "n_gpu_layers",
        metavar="N",
        help="Layers on the GPU; a number, auto or all.",
        **_env("N_GPU_LAYERS"),
    ),
    click.option("--embedding", "--embeddings", "embeddings", is_flag=True, **_env("EMBEDDINGS")),
    click.option("--rerank", "--reranking", "reranking", is_flag=True, **_env("RERANKING")),
    click.option("--pooling", type=click.Choice(POOLING), **_env("POOLING")),
    click.option("--metrics", is_flag=True, help="Answer /metrics.", **_env("ENDPOINT_METRICS")),
    click.option("--slots/--no-slots", default=True, help="Answer /slots.", **_env("ENDPOINT_SLOTS")),
    click.option("--props", is_flag=True, help="Answer POST /props.", **_env("ENDPOINT_PROPS")),
    click.option("--slot-save-path", type=_FILE, metavar="DIR", help="Folder of saved slots."),
    click.option(
        "--context-shift/--no-context-shift",
        default=False,
        help="Go on when the context is full.",
        **_env("CONTEXT_SHIFT"),
    ),
    click.option(
        "-kvu/-no-kvu", "--kv-unified/--no-kv-unified", "kv_unified", default=None, **_env("KV_UNIFIED")
    ),
    click.option("--cache-reuse", type=_COUNT, **_env("CACHE_REUSE")),
    click.option("-cram", "--cache-ram", type=_OR_AUTO, metavar="MIB", **_env("CACHE_RAM")),
    click.option("--jinja/--no-jinja", default=True, **_env("JINJA")),
    click.option("--chat-template", metavar="TEMPLATE", **_env("CHAT_TEMPLATE")),
    click.option("--chat-template-file", type=_FILE, metavar="FILE", **_env("CHAT_TEMPLATE_FILE")),
    click.option("--temp", "--temperature", "temperature", type=float, metavar="N"),
    click.option("-s", "--seed", type=click.IntRange(-1, 2**32 - 1)),
    click.option(
        "--lora", multiple=True, type=_FILE, metavar="FILE", help="LoRA adapter; several are possible."
    ),
    click.option("--lora-scaled", multiple=True, metavar="FILE:SCALE", help="LoRA adapter with its scale."),
    click.option(
        "--lora-init-without-apply", is_flag=True, help="Begin with scale 0; POST /lora-adapters changes it."
    ),
    click.option("-mm", "--mmproj", type=_FILE, metavar="FILE", help="Projector for images and sound."),
    click.option("--cors-origins", default="*", metavar="ORIGINS", show_default=True),
    click.option("--reasoning-format", type=click.Choice(REASONING), **_env("THINK")),
    click.option(
        "--no-repack", "-nr", "no_repack", is_flag=True, help="Use weights as they lie in the file."
    ),
    click.option("--sse-ping-interval", type=click.FloatRange(-1, 3600), metavar="SECONDS"),
    click.option("-v", "--verbose", "--log-verbose", "verbose", is_flag=True),
)

_SAMPLING: dict[str, tuple[tuple[str, ...], Any]] = {
    "top_k": (("--top-k",), int),
    "top_p": (("--top-p",), float),
    "min_p": (("--min-p",), float),
    "top_n_sigma": (("--top-nsigma", "--top-n-sigma"), float),
    "xtc_probability": (("--xtc-probability",), float),
    "xtc_threshold": (("--xtc-threshold",), float),
    "typical_p": (("--typical", "--typical-p"), float),
    "repeat_last_n": (("--repeat-last-n",), int),
    "repeat_penalty": (("--repeat-penalty",), float),
    "presence_penalty": (("--presence-penalty",), float),
    "frequency_penalty": (("--frequency-penalty",), float),
    "dry_multiplier": (("--dry-multiplier",), float),
    "dry_base": (("--dry-base",), float),
    "dry_allowed_length": (("--dry-allowed-length",), int),
    "dry_penalty_last_n": (("--dry-penalty-last-n",), int),
    "dynatemp_range": (("--dynatemp-range",), float),
    "dynatemp_exponent": (("--dynatemp-exp",), float),
    "mirostat": (("--mirostat",), int),
    "mirostat_eta": (("--mirostat-lr",), float),
    "mirostat_tau": (("--mirostat-ent",), float),
    "adaptive_target": (("--adaptive-target",), float),
    "adaptive_decay": (("--adaptive-decay",), float),
    "n_keep": (("--keep",), int),
    "samplers": (("--samplers",), str),
    "sampler_letters": (("--sampler-seq", "--sampling-seq"), str),
    "grammar": (("--grammar",), str),
    "json_schema": (("-j", "--json-schema"), str),
}
"""Defaults of requests, by the name of the parameter."""

_SWITCHES = """
--no-warmup --warmup --mlock --no-mmap --mmap --direct-io -dio --no-direct-io -ndio --cont-batching -cb
--no-cont-batching -nocb --no-context-shift-warning --special -sp --escape -e --no-escape --perf --no-perf --no-ui
--webui --no-webui --ui --repack --check-tensors --no-host --no-kv-offload -nkvo --kv-offload -kvo --no-op-offload
--op-offload --swa-full --no-slots-debug --cache-prompt --no-cache-prompt --no-prefill-assistant --prefill-assistant
--log-disable --log-prefix --log-timestamps --log-colors-off --completion-bash --simple-io --spm-infill
--cpu-moe -cmoe --cpu-moe-draft -cmoed --no-mmproj --mmproj-auto --no-mmproj-offload --mmproj-offload --models-autoload
--no-models-autoload --backend-sampling -bs --embd-bge-small-en-default --embd-e5-small-en-default
--embd-gte-small-default --fim-qwen-1.5b-default --fim-qwen-3b-default --fim-qwen-7b-default --fim-qwen-7b-spec
--fim-qwen-14b-spec --fim-qwen-30b-default --gpt-oss-20b-default --gpt-oss-120b-default --vision-gemma-4b-default
--vision-gemma-12b-default --no-cache-idle-slots --cache-idle-slots --no-log-prefix --no-log-timestamps --no-clear-idle
--clear-idle --cors-credentials --no-cors-credentials --tools-all --agent --no-agent --flash-attn-off
""".split()

_VALUES = """
--threads-http --timeout -to --numa --prio --prio-batch --poll --poll-batch --cpu-mask -C --cpu-range -Cr
--cpu-strict --cpu-mask-batch -Cb --cpu-range-batch -Crb --cpu-strict-batch --flash-attn -fa --prompt -p
--rope-scaling --rope-scale --rope-freq-base --rope-freq-scale --yarn-orig-ctx --yarn-ext-factor --yarn-attn-factor
--yarn-beta-slow --yarn-beta-fast --cache-type-k -ctk --cache-type-v -ctv --cache-type-k-draft -ctkd
--cache-type-v-draft -ctvd --defrag-thold -dt --rpc --device -dev --override-tensor -ot --override-tensor-draft -otd
--n-cpu-moe -ncmoe --n-cpu-moe-draft -ncmoed --split-mode -sm --tensor-split -ts --main-gpu -mg --fit -fit
--fit-target -fitt --fit-ctx -fitc --override-kv --control-vector --control-vector-scaled
--control-vector-layer-range --model-url -mu --docker-repo -dr --hf-repo-draft -hfd -hfrd --hf-repo-v -hfv -hfrv
--hf-file-v -hffv --hf-token -hft --log-file --log-colors --verbosity -lv --log-verbosity --logit-bias -l
--reverse-prompt -r --mmproj-url -mmu --image-min-tokens --image-max-tokens --ctx-checkpoints -ctxcp
--swa-checkpoints --checkpoint-every-n-tokens -cpent --checkpoint-min-step --path --api-prefix --ssl-key-file
--ssl-cert-file --chat-template-kwargs --reasoning-budget --reasoning-budget-message --reasoning -rea
--slot-prompt-similarity -sps --threads-draft -td --threads-batch-draft -tbd --draft-max --draft --draft-n
--draft-min --draft-n-min --draft-p-split --draft-p-min --ctx-size-draft -cd --device-draft -devd
--n-gpu-layers-draft --gpu-layers-draft -ngld --model-draft -md --spec-replace --spec-type --spec-ngram-size-n
--spec-ngram-size-m --spec-ngram-min-hits --spec-draft-n-max --spec-draft-n-min --spec-draft-p-min --model-vocoder
-mv --tags --webui-config --webui-config-file --ui-config --ui-config-file --models-dir --models-max --models-preset
--sleep-idle-seconds --media-path --tools --cors-methods --cors-headers --grp-attn-n -gan --grp-attn-w -gaw
--log-prompts-dir --embd-output-format --embd-separator --cache-list -cl
""".split()


def flags(command: Command) -> Command:
    """All options; what is only accepted arrives as `accepted`, the flags that were given."""
    for option in reversed((*_OPTIONS, *_sampling(), *_accepted())):
        command = option(command)
    return command


def _sampling() -> list[Callable[[Any], Any]]:
    def note(context: click.Context, option: click.Parameter, value: object) -> None:
        if value is not None and value != ():
            context.meta.setdefault(SAMPLING, {})[str(option.name).removeprefix("sampling_")] = value

    shared: dict[str, Any] = {"hidden": True, "expose_value": False, "callback": note}
    return [
        *(
            click.option(*names, f"sampling_{name}", type=kind, **shared)
            for name, (names, kind) in _SAMPLING.items()
        ),
        click.option("--dry-sequence-breaker", "sampling_dry_sequence_breakers", multiple=True, **shared),
        click.option("--ignore-eos", "sampling_ignore_eos", is_flag=True, default=None, **shared),
        click.option("--grammar-file", "sampling_grammar_file", type=_FILE, **shared),
        click.option("-jf", "--json-schema-file", "sampling_json_schema_file", type=_FILE, **shared),
    ]


def _accepted() -> list[Callable[[Any], Any]]:
    def note(context: click.Context, option: click.Parameter, value: object) -> None:
        if value:
            context.meta.setdefault(ACCEPTED, []).append(option.opts[0])

    shared: dict[str, Any] = {"hidden": True, "expose_value": False, "callback": note}
    switches = [
        click.option(name, f"ignored_{n}", is_flag=True, **shared) for n, name in enumerate(_SWITCHES)
    ]
    values = [
        click.option(name, f"ignored_value_{n}", multiple=True, type=click.UNPROCESSED, **shared)
        for n, name in enumerate(_VALUES)
    ]
    return [*switches, *values]


ACCEPTED = "lollms_transport_wingman.accepted"
"""Where the context of the command keeps the flags that have no effect."""

SAMPLING = "lollms_transport_wingman.sampling"
"""And where the parameters that requests get unless they say otherwise."""
