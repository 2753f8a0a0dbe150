"""Loads a model with extra buffers, evaluates a few tokens and ends: whoever started it learns whether it lives.

`python -m lollms_binding_llamacpp.probe FILE` ends with 0 if it worked, 1 if the model cannot be loaded anyway,
and by a signal if llama.cpp crashes. See `extra_buffers`.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path


def main(path: Path) -> int:
    """Try the model at `path`."""
    with suppress(ImportError):  # not on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is an expected answer, not worth a dump

    from .context import Context, ContextOptions
    from .native import LoadFailed, Model, start_backend

    start_backend(verbose=False)
    try:
        model = Model(path, extra_buffers=True)
        if model.can_generate:
            Context(model, ContextOptions(n_ctx=64, batch_size=64)).warm_up()
    except LoadFailed:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
