"""How every command of the package starts, fails and stops: quick help, one-line errors, exit status 0, 1, 2 or 130."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator

from absl import flags, logging
from tqdm import tqdm

from neural_midi_synth.errors import DataError

_NO_ROOM = "No space left on device"  # As the system says it, and TensorFlow and others after it.

# Flags that functions of this module define are those of the command that calls them.
flags.disclaim_key_flags()


class UsageError(Exception):
    """Flags that do not go together: exit status 2."""


def define_module_flag() -> flags.FlagHolder[list[str]]:
    """Defines `--module` for a command that loads an instrument."""
    return flags.DEFINE_multi_string(
        "module",
        [],
        "A Python module of your own that the instrument's config imports; only for instruments that you trust.",
        allow_override=True,
    )


def run(main: Callable[..., None], usage: str, takes_files: bool = False) -> None:
    """Parses the flags of `sys.argv`, runs `main` and exits.

    Args:
      main: What the command does. Its module defines the flags; it imports TensorFlow inside, so that `--help` and
        wrong flags are answered at once.
      usage: What the command is for, printed by `--help`.
      takes_files: Whether words that are not flags are given to `main`, as a list; otherwise there may be none.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.set_verbosity(logging.WARNING)
    program = os.path.basename(sys.argv[0])
    module = sys.modules[main.__module__]
    if {"-h", "-help", "--help", "--helpshort", "--helpfull"} & set(sys.argv[1:]):
        print(f"{usage}\n\n{flags.FLAGS.module_help(module)}")
        sys.exit(0)
    try:
        rest = flags.FLAGS(sys.argv)
    except flags.Error as error:
        print(f"{program}: {' '.join(str(error).split())} (see {program} --help)", file=sys.stderr)
        sys.exit(2)
    if len(rest) > 1 and not takes_files:
        print(f"{program}: unexpected argument {rest[1]!r} (see {program} --help)", file=sys.stderr)
        sys.exit(2)
    try:
        main(*([rest[1:]] if takes_files else []))
    except DataError as error:
        # Where an error passes through a configurable, gin adds lines that tell which.
        print(f"{program}: {str(error).splitlines()[0]}", file=sys.stderr)
        sys.exit(1)
    except UsageError as error:
        print(f"{program}: {error} (see {program} --help)", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"\n{program}: stopped", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if not _is_full_disk(error):
            raise
        print(f"{program}: the disk is full. Make room, and run the same command again.", file=sys.stderr)
        sys.exit(1)


def _is_full_disk(error: Exception) -> bool:
    """Whether an error is that a disk, or somebody's share of it, is full."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or _NO_ROOM in str(error)


def style(text: str) -> tuple[str, float]:
    """Reads what `--style` says, such as openness=127: name and value.

    Raises:
      UsageError: It says something else.
    """
    name, _, value = text.partition("=")
    try:
        return name.strip(), float(value)
    except ValueError as error:
        raise UsageError(f"--style {text}: write a name and a value, such as openness=127") from error


@contextlib.contextmanager
def progress_bar(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Shows a progress bar while something is done step by step.

    Args:
      what: What is done, in a word.
      unit: What a step is.

    Yields:
      What has to be told how many steps are done, and how many there are.
    """
    with tqdm(desc=what, unit=f" {unit}", disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
