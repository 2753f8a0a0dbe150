"""`lollms doctor`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from . import options
from .opening import quiet
from .tables import format_json

_MARKS = {"ok": ("ok", "green"), "warning": ("warn", "yellow"), "error": ("FAIL", "red")}


@click.command()
@options.config_dir
@options.as_json
def doctor(config_dir: Path, as_json: bool) -> None:
    """Say what does not work, and its cure.

    Looks at machine, plugins, engines, configuration, folders and port; starts and changes nothing.

    The exit code is 1 when something that is wanted does not work, else 0.
    """
    from ..doctor import Finding, examine

    quiet()
    findings: list[Finding] = []
    for finding in examine(config_dir):
        findings.append(finding)
        if not as_json:
            _show(finding.level, finding.title, finding.text, finding.cure)
    if as_json:
        click.echo(format_json(findings))
    levels = [finding.level for finding in findings]
    if not as_json:
        errors, warnings = levels.count("error"), levels.count("warning")
        click.echo(f"\n{_count(errors, 'error')}, {_count(warnings, 'warning')}.")
    sys.exit(1 if "error" in levels else 0)


def _show(level: str, title: str, text: str, cure: str | None) -> None:
    mark, colour = _MARKS[level]
    click.echo(f"{click.style(f'{mark:<5}', fg=colour)} {title}: {text}")
    if cure and level != "ok":
        click.echo(f"      → {cure}")


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
