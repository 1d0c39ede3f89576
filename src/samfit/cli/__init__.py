"""The command line: the table of commands, and how errors become messages and exit statuses.

Exit statuses: 0 success, 1 the machine failed, 2 the user's mistake, 130 Ctrl-C, 143 SIGTERM.
Results go to stdout, messages and progress to stderr.
"""

import contextlib
import errno
import io
import logging
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType

import click

from samfit import __version__
from samfit.errors import DataError, SamfitError, nearest, unknown_name
from samfit.progress import is_first_process

logger = logging.getLogger("samfit")

_FAULTS_SHOWN = 20


@dataclass(frozen=True)
class CommandRow:
    """One command: the module under `samfit.cli` whose `command` it is, and its line in `--help`."""

    name: str
    module: str
    summary: str


COMMANDS: Mapping[str, CommandRow] = MappingProxyType(
    {
        row.name: row
        for row in (
            CommandRow("train", "train", "adapt a backbone to a data set"),
            CommandRow("plan", "plan", "say how much memory a training takes, before it runs"),
            CommandRow("evaluate", "evaluate", "score a run, the base model without adaptation beside it"),
            CommandRow("compare", "compare", "train and score every combination of a recipe; one report"),
            CommandRow("predict", "predict", "segment new images with a run"),
            CommandRow("merge", "merge", "write a run as plain weights of its backbone"),
            CommandRow("import", "importing", "make a run of a checkpoint that a published code wrote"),
            CommandRow("export", "export", "write a run as the published code saves it"),
            CommandRow("doctor", "doctor", "list every fault of a data set, and how its masks are read"),
            CommandRow("list", "listing", "show backbones, methods, datasets, recipes and more"),
            CommandRow("demo", "demo", "adapt sam-tiny to drawn images in two ways, and compare"),
        )
    }
)


class _Commands(click.Group):
    """A group that imports a command's module when the command is used, not for `--help`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return import_module(f"samfit.cli.{COMMANDS[cmd_name].module}").command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(unknown_name("command", args[0], COMMANDS), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(row.name, row.summary) for row in COMMANDS.values()])


class _Messages(logging.Handler):
    """Write messages to what is stderr at that moment: a progress bar takes its place while it shows."""

    def emit(self, record: logging.LogRecord) -> None:
        message = self.format(record)
        label = "samfit" if record.levelno == logging.INFO else f"samfit: {record.levelname.lower()}"
        print(f"{label}: {message}", file=sys.stderr)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="Adapt a Segment-Anything backbone to your own images, on the machine that you have.",
    epilog="Every command takes --help. A first try: samfit demo",
)
@click.version_option(__version__, prog_name="samfit", message="%(prog)s %(version)s")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but warnings, errors and results.")
@click.option("-v", "--verbose", is_flag=True, help="Say also what only helps to find a fault.")
def group(quiet: bool, verbose: bool) -> None:
    """Set how much is said before any command runs."""
    if quiet and verbose:
        raise click.UsageError("--quiet and --verbose: take one of them")
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    logger.setLevel(level if is_first_process() else logging.ERROR)
    logger.propagate = False
    if not any(isinstance(handler, _Messages) for handler in logger.handlers):
        logger.addHandler(_Messages())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status; `arguments` are the process's by default."""
    # Threads that wait awake take a shared machine from themselves: a step took up to ten times as long.
    # Read by torch's OpenMP when it is loaded, which no command has done yet.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        status = group.main(
            None if arguments is None else list(arguments), prog_name="samfit", standalone_mode=False
        )
        sys.stdout.flush()
    except (click.exceptions.Abort, KeyboardInterrupt):
        return _fail("interrupted", 130)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.ClickException as error:
        return _fail(_with_hint(error), 2)
    except SamfitError as error:
        logger.debug("where it was raised:", exc_info=True)
        return _fail(_shortened(error), error.exit_status)
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        _drop_output()
        return 1
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _drop_output()
            where = f" while writing {error.filename}" if error.filename else ""
            return _fail(f"the disk is full{where}; free some space and run the command again", 1)
        return _fail_unexpectedly()
    except Exception:
        return _fail_unexpectedly()
    return status if isinstance(status, int) else 0


def _fail(message: str, status: int) -> int:
    print(f"samfit: error: {message}", file=sys.stderr)
    return status


def _fail_unexpectedly() -> int:
    traceback.print_exc()
    return _fail("this is a fault of samfit itself; please report it with the lines above", 1)


def _with_hint(error: click.ClickException) -> str:
    """Return the message in our words, with the command whose `--help` says more."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f"\nTry '{context.command_path} --help'." if context else ""
    if isinstance(error, click.NoSuchOption):
        name = error.option_name
        return f"there is no flag {name}{nearest(name, error.possibilities or ())}{hint}"
    return error.format_message() + hint


def _shortened(error: SamfitError) -> str:
    """Return the message; of a data set with very many faults only the first."""
    if isinstance(error, DataError) and len(error.faults) > _FAULTS_SHOWN:
        left = len(error.faults) - _FAULTS_SHOWN
        return "\n".join([*error.faults[:_FAULTS_SHOWN], f"… and {left} more; samfit doctor lists them all"])
    return str(error)


def _drop_output() -> None:
    """Send what is left in stdout's buffer nowhere, so that the interpreter does not fail on it at exit."""
    with contextlib.suppress(io.UnsupportedOperation):  # a notebook's stdout has no file behind it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
