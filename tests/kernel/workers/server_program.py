"""A server that does nothing but hold one worker: prints the worker's process id, then waits to be killed.

Arguments: what to ask of the worker, and the event loop to use.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvloop

from lollms_kernel.contracts import BindingContext
from lollms_kernel.workers.proxy import WorkerBinding
from worker_bindings import ScriptedBinding, ScriptedSettings
from worker_steps import PATIENT, ask, facts


async def main(prompt: str) -> None:
    """Open a worker, ask it, and tell its process id."""
    settings = ScriptedSettings(type="scripted_binding", binding_instance_name="w")
    context = BindingContext(models_folder=Path(), root=Path())
    binding = WorkerBinding(ScriptedBinding(settings, context), PATIENT, lambda event: None)
    pid = (await facts(binding))["pid"]
    chunks = binding.generate(ask(prompt, n=200))
    await anext(chunks)
    if prompt == "hang":
        answers = True
        while answers:  # until the worker's event loop is blocked
            done, _ = await asyncio.wait([asyncio.create_task(facts(binding))], timeout=0.5)
            answers = bool(done)
    sys.stdout.write(f"{pid}\n")
    sys.stdout.flush()
    if prompt == "count":
        rest = [chunk async for chunk in chunks]
        await binding.close()
        sys.stdout.write(f"{len(rest)}\n")
        return
    await asyncio.sleep(3600)


if __name__ == "__main__":
    run = uvloop.run if sys.argv[2] == "uvloop" else asyncio.run
    run(main(sys.argv[1]))
