"""The command `lava-deploy`: parses, asks, prints, and turns errors into exit statuses."""

import os
import signal
import sys
from types import FrameType

import click

from lava_deploy import __version__
from lava_deploy.cli import host, instances, logs, restoring, routes, running, snapshots
from lava_deploy.cli.context import Context
from lava_deploy.errors import CommandFailed, DeployError, remedy

BUG, USAGE, INTERRUPTED = 1, 2, 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--root", default="", metavar="DIR", help="Work below DIR instead of /srv/lava.")
@click.version_option(__version__)
@click.pass_context
def lava_deploy(context: click.Context, root: str) -> None:
    """Install and run self-contained instances of LAVA on this machine.

    A bare Debian machine becomes a LAVA with a passed test job by `lava-deploy quickstart NAME`.
    """
    context.ensure_object(Context).root = root


for module in (host, instances, routes, snapshots, restoring, running, logs):
    for command in module.COMMANDS:
        lava_deploy.add_command(command)
# The name of 2012.
lava_deploy.add_command(routes.toggle_all, "toggle_all")


def main() -> None:
    """Run the command line and end with its exit status."""
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup(1) has it
        signal.signal(signal.SIGHUP, _interrupt)
    # what programs started by us write is readable to all only where we say so
    os.umask(0o022)
    context = Context()
    try:
        status = lava_deploy.main(standalone_mode=False, obj=context) or 0
    except click.exceptions.Exit as finished:
        status = finished.exit_code
    except click.ClickException as fault:
        fault.show()
        status = USAGE
    except (KeyboardInterrupt, click.Abort):
        if context.changing:
            hint = "`lava-deploy status` tells how things are."
            context.report.error("interrupted in the middle", hint)
        else:
            context.report.error("interrupted: nothing was changed")
        status = INTERRUPTED
    except BrokenPipeError:
        # the reader of our output has enough; what is left of it must not be flushed at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except DeployError as error:
        context.report.trace(error)
        context.report.error(str(error), error.hint)
        status = error.exit_status
    except Exception as bug:
        context.report.trace(bug)
        if remedy(bug):  # a full disk, which is nobody's bug
            context.report.error(str(bug), remedy(bug))
            status = CommandFailed.exit_status
        else:
            context.report.error(
                f"a bug in lava-deploy: {type(bug).__name__}: {bug}",
                "Please report it with the log's last lines.",
            )
            status = BUG
    sys.exit(status)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """SIGTERM and a closed terminal end a command as Ctrl-C does: what was begun is undone."""
    raise KeyboardInterrupt
