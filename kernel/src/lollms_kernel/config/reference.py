"""`python -m lollms_kernel.config.reference` prints docs/configuration.md, made from the schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

import click
import msgspec

from .describe import describe
from .formats import FORMATS
from .plain import MAX_DEPTH
from .schema import MODEL_FOLDERS, ApiKeyEntry, MainConfig
from .secrets import is_secret

_TITLES = {"yaml": "YAML", "toml": "TOML", "json": "JSON", "sqlite": "SQLite"}


def _introduction() -> str:
    return f"""\
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
- `LOLLMS_HOST` and `LOLLMS_PORT` win over `server.host` and `server.port`; `--host` and `--port` win over both.
- An unknown key, a wrong type or a value out of range is an error that names file, place, value, what is allowed and
  the nearest known key, for all mistakes of a file at once. Values of secret keys are never shown.
- A section that is there without content (null) has its defaults.
- An API key that looks like a number needs quotes: `"12345"`.
- On an address that others can reach (anything but loopback) the server starts only if `security.allowed_api_keys` is
  not empty or `server.allow_insecure_bind` is true.
- At start the server creates the folders for personalities and functions, and in the models folder
  {", ".join(f"`{name}`" for name in MODEL_FOLDERS)}.
- `__version__` says which schema wrote a file. Files of lollms_server 0.2 and 0.3 load as they are:
  [migration.md](migration.md).

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

## Formats

The extension chooses the format: {_formats()}.

All mean the same and give the same errors; main file and instance files may differ. Two files for the same thing are
an error. A file may be 1 MiB large and {MAX_DEPTH} levels deep, and each key may be there once.
`lollms config convert toml` rewrites the main file in another format.

- TOML has no null: leave the key out where null is its default, elsewhere write `"${{null}}"`.
- SQLite files have one table, `config(key TEXT PRIMARY KEY, value TEXT NOT NULL)`: a row for each key, named as in
  `server.port` or `bindings_map."my.model"`, with its value as JSON; a list is one value. A row `__version__` is the
  version. Files that lollms_server's ConfigGuard wrote have the same table.

## Changes

`lollms config set PATH VALUE` and its siblings ([cli.md](cli.md)) keep the comments of YAML and TOML files. Whatever
writes a file checks the result first, writes it beside the old one and renames it, so that a crash never leaves half a
file, and keeps the previous version as `NAME.bak`. Who tries to save what somebody else has changed in the meantime is
told, and nothing is lost. New files can be read by their owner only.

A running server takes changes of `security.allowed_api_keys` over within seconds. A file that cannot be read or is not
valid is logged and changes nothing.

Editors complete and check `main_config.yaml` with [the JSON Schema](schema/main_config.schema.json), e.g. after a first
line `# yaml-language-server: $schema=PATH/main_config.schema.json`. `lollms config schema` prints it, and with the name
of a binding type the one of its instance files.

## Environment variables

`${{NAME}}` in any value stands for an environment variable, also where a number or a truth value belongs, and stays as
it is when a file is saved. A variable that is not set is an error that names it. `$${{` is a plain `${{`. Listings show
`${{NAME}}`, not its value.

## Secrets

With a key in `LOLLMS_ENCRYPTION_KEY` (or in `security.encryption_key`), every save encrypts the secrets of the file
that it writes, value by value: `enc:` and a Fernet token. Secret are the fields that the tables mark so, and in
sections without a table every key that reads like one (`api_key`, `hub_token`, `password`, …). What stands in clear
still works; `lollms config encrypt` encrypts all of it, backups included. A missing or wrong key makes only the
instances fail that need it.

`lollms config rotate-key` moves everything to another key; the first time it makes one. Keep the key out of the file
that it protects where you can:

```console
$ lollms config rotate-key
$ lollms config get security.encryption_key --reveal
$ lollms config unset security.encryption_key
```

then delete `main_config.yaml.bak`, which still has the key, and start the server with `LOLLMS_ENCRYPTION_KEY` set to
it. Several keys, separated by commas, may be set: the first one encrypts, all decrypt.

## API keys

`lollms keys add NAME` makes a key, prints it once and keeps its SHA-256. A made key has 256 random bits, so its hash
can be neither guessed nor looked up, and checking it costs nothing. An entry of `security.allowed_api_keys` is a key, a
hash (`sha256:` and 64 digits), or has a name and, if wanted, limits:

| Key | Allowed | Default | Meaning |
|---|---|---|---|
{_key_entries()}

A request over a limit gets 429 with `Retry-After`, one for another binding or personality 403. A generation over a
WebSocket counts as a request, like every HTTP request. `lollms keys list` shows who has a key, and
`lollms keys revoke NAME` takes it away: answers under way with it end, and open connections cannot start another one.

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
    return "\n".join([_introduction(), *_sections()])


def _formats() -> str:
    """The extensions of each format."""
    return "; ".join(
        f"{_TITLES[form.name]} ({', '.join(f'`{extension}`' for extension in form.extensions)})"
        for form in FORMATS
    )


def _key_entries() -> str:
    """The rows of an API key's entry."""
    return "\n".join("| " + " | ".join(_escaped(row)) + " |" for row in _rows(ApiKeyEntry, ""))


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
        default = ""
        if not field.required:
            value = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
            default = f"`{msgspec.json.format(msgspec.json.encode(value), indent=0).decode()}`"
        secret = "Secret. " if is_secret(field.type) else ""
        yield (
            f"`{prefix}{field.encode_name}`",
            describe(field.type),
            default,
            secret + description(field.type),
        )


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
        yield "| " + " | ".join(_escaped(row)) + " |"
    yield ""


def _escaped(row: tuple[str, ...]) -> Iterator[str]:
    return (cell.replace("|", "\\|") for cell in row)


if __name__ == "__main__":
    click.echo(reference().rstrip("\n"))
