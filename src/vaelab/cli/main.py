"""The ``vaelab`` command: every subcommand parses, calls one function and prints.

Nothing here imports torch at the top: ``vaelab --help`` must answer at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from itertools import pairwise
from typing import Any, NoReturn

import typer

from vaelab.cli import augment, classify, explore, export, inspect, score, study, train, tune
from vaelab.cli.output import output
from vaelab.cli.reading import reads_others, takes_others
from vaelab.cli.streams import prepare, quit_while_importing
from vaelab.errors import VaelabError

app = typer.Typer(
    name="vaelab",
    help="Variational autoencoders on your own images: train, measure, understand, generate.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (train, explore, augment, score, export, study, tune, inspect):
    for command in module.COMMANDS:
        app.command()(reads_others(command) if takes_others(command) else command)
app.add_typer(classify.app)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"vaelab {version('vaelab')}")
        raise typer.Exit


@app.callback()
def main(
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Print errors only."),
    json: bool = typer.Option(False, "--json", help="Print one JSON object on standard output."),
    debug: bool = typer.Option(False, "--debug", help="Show tracebacks of errors."),
    version: bool = typer.Option(
        False, "--version", is_eager=True, callback=_version, help="Print the version."
    ),
) -> None:
    """Set what every command prints."""
    first = os.environ.get("RANK", "0") == "0"  # of several processes, one speaks
    output.quiet, output.json, output.debug = quiet or not first, json and first, debug


_ANYWHERE = ("--quiet", "-q", "--json", "--debug")


def run(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line; flags for the output are accepted anywhere."""
    quit_while_importing()
    prepare()
    given = sys.argv[1:] if arguments is None else arguments
    flags = [text for text in given if text in _ANYWHERE]
    rest = [text for text in given if text not in _ANYWHERE]
    code = _guarded([*flags, *rest], "--debug" in flags)
    try:
        sys.stdout.flush()
    except OSError as error:  # such as a full disk
        print(f"error: standard output: {error.strerror}.", file=sys.stderr)
        code = 1
    sys.exit(code)


def _guarded(arguments: list[str], debug: bool) -> int:
    """Run, and turn every error into one line and an exit code."""
    try:
        result = app(arguments, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        if debug:
            traceback.print_exc()
        print("Stopped.", file=sys.stderr)
        return 130
    except Exception as error:
        if hasattr(error, "show") and hasattr(
            error, "exit_code"
        ):  # usage, from click or typer's own
            _quote(error, arguments)
            error.show()
            return int(error.exit_code)
        if debug:
            traceback.print_exc()
        else:
            print(f"error: {_told(error)}", file=sys.stderr)
        return 1


def _quote(error: Any, arguments: list[str]) -> None:
    """Add to the message about an option the value that it was given, unless it is there."""
    for name in getattr(getattr(error, "param", None), "opts", []):
        given = [after for before, after in pairwise(arguments) if before == name]
        given += [text.partition("=")[2] for text in arguments if text.startswith(f"{name}=")]
        if given and given[-1] not in error.message:
            error.message = f"{error.message.rstrip('.')} (got {given[-1]})."


_OUT_OF_MEMORY = (
    "out of memory: more was needed at once than there is. Lower the batch size (train: "
    "--batch-size 32), the size of the images (train: --size 64) or of the networks "
    "(model.encoder.widths, model.latent_dim); elsewhere the number of images (--limit, --n)."
)
_NO_MEMORY = (
    "out of memory",
    "defaultcpuallocator",
    "alloc_failed",
    "bad_alloc",
    "cannot allocate",
)


def _is_about_memory(error: BaseException) -> bool:
    """Tell whether memory ran out: PyTorch says so by the text of a RuntimeError alone."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY)


def _told(error: Exception) -> str:
    if isinstance(error, VaelabError):
        return str(error)
    if _is_about_memory(error):
        return _OUT_OF_MEMORY
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'system'}: {error.strerror}."
    kind = type(error).__name__
    return f"unexpected {kind}: {error}. Run again with --debug to see where, and please report it."
