"""`python -m lollms_kernel.config.reference` prints docs/configuration.md, made from the schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

import click
import msgspec

from .describe import describe
from .formats import EXTENSIONS
from .schema import MODEL_FOLDERS, MainConfig

INTRODUCTION = f"""\
# Configuration

Written by `make docs` from the schema in `kernel/src/lollms_kernel/config/schema.py`.

No file is needed: every key has a default, and without any configuration the server listens on 127.0.0.1:9601 with
the built-in instances of the installed plugins.

## Files

```
lollms_configs/            the configuration folder
  main_config.yaml         everything below
  bindings/NAME.yaml       settings of the binding instance NAME of bindings_map
```

- The folder is the one of `--config-dir`, else of the environment variable `LOLLMS_CONFIG_DIR`, else `lollms_configs`
  in the current directory. Relative paths in the files are relative to its parent.
- Files are read with one of these extensions: {", ".join(f"`{extension}`" for extension in EXTENSIONS)}. Two files for
  the same thing are an error. A file may be 1 MiB large; in YAML each key may be there once.
- `LOLLMS_HOST` and `LOLLMS_PORT` win over `server.host` and `server.port`; `--host` and `--port` win over both.
- An unknown key, a wrong type or a value out of range is an error that names file, place, value, what is allowed and
  the nearest known key, for all mistakes of a file at once. Values of secret keys are never shown.
- A section that is there without content (null) has its defaults. A key `__version__` is accepted; it has no effect
  yet.
- An API key that looks like a number needs quotes: `"12345"`.
- On an address that others can reach (anything but loopback) the server starts only if `security.allowed_api_keys` is
  not empty or `server.allow_insecure_bind` is true.
- At start the server creates the folders for personalities and functions, and in the models folder
  {", ".join(f"`{name}`" for name in MODEL_FOLDERS)}.

```yaml
server:
  port: 9700
defaults:
  ttt_binding: my_model
bindings_map:
  my_model: llamacpp_binding
personalities_config:
  some_folder:
    enabled: false
```

## Binding instances

`bindings_map` gives each instance its name and binding type. Its settings are in `NAME.yaml` in the folder
`paths.instance_bindings_folder`. Without that file all its settings have their defaults, so only a binding with a
required setting needs one. Every instance file may hold the keys here; each binding type adds its own.

| Key | Allowed | Default | Meaning |
|---|---|---|---|
| `type` | text | the type in `bindings_map` | The binding type; must be the one in `bindings_map`. |
| `binding_instance_name` | text | the file's name | The instance's name; must be the file's name. |
| `default_model` | text or null | `null` | The model for requests that name none. |
"""


def reference() -> str:
    """The whole page as Markdown."""
    return "\n".join([INTRODUCTION, *_sections()])


def _sections() -> Iterator[str]:
    for section in msgspec.structs.fields(MainConfig):
        yield f"## `{section.name}`"
        yield ""
        kind = get_args(section.type)[0] if get_origin(section.type) is Annotated else section.type
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            yield str(kind.__doc__)
            yield from _table(_rows(kind, ""))
        else:
            yield description(section.type)
            yield from _table(_entries(*get_args(kind)))


def _entries(key_type: Any, value_type: Any) -> Iterator[tuple[str, ...]]:
    """The rows of a section whose keys are names that the user chooses."""
    if isinstance(value_type, type) and issubclass(value_type, msgspec.Struct):
        yield from _rows(value_type, "NAME.")
    else:
        yield "`NAME`", describe(value_type), "", f"One entry for each; `NAME` is {describe(key_type)}."


def _rows(section: type[msgspec.Struct], prefix: str) -> Iterator[tuple[str, ...]]:
    for field in msgspec.structs.fields(section):
        default = msgspec.json.format(msgspec.json.encode(field.default), indent=0).decode()
        yield f"`{prefix}{field.encode_name}`", describe(field.type), f"`{default}`", description(field.type)


def description(type_: Any) -> str:
    """What an annotated type says of itself, "" if nothing."""
    metas = get_args(type_)[1:] if get_origin(type_) is Annotated else ()
    return next(
        (meta.description for meta in metas if isinstance(meta, msgspec.Meta) and meta.description), ""
    )


def _table(rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    yield ""
    yield "| Key | Allowed | Default | Meaning |"
    yield "|---|---|---|---|"
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
    yield ""


if __name__ == "__main__":
    click.echo(reference().rstrip("\n"))
