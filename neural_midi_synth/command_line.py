"""How every command of the package starts, fails and stops: quick help, one-line errors, exit status 0, 1, 2 or 130."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from absl import app, flags, logging

from neural_midi_synth.errors import DataError


def run(main: Callable[[], None], usage: str) -> None:
    """Parses the flags of `sys.argv`, runs `main` and exits.

    Args:
      main: What the command does. Its module defines the flags; it imports TensorFlow inside, so that `--help` and
        wrong flags are answered at once.
      usage: What the command is for, printed by `--help`.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.set_verbosity(logging.WARNING)
    program = os.path.basename(sys.argv[0])
    module = sys.modules[main.__module__]
    app.define_help_flags()
    try:
        rest = flags.FLAGS(sys.argv)
    except flags.Error as error:
        print(f"{program}: {_one_line(error)} (see {program} --help)", file=sys.stderr)
        sys.exit(2)
    if any(flags.FLAGS[name].value for name in ("help", "helpfull", "helpshort") if name in flags.FLAGS):
        print(f"{usage}\n\n{flags.FLAGS.module_help(module)}")
        sys.exit(0)
    if len(rest) > 1:
        print(f"{program}: unexpected argument {rest[1]!r} (see {program} --help)", file=sys.stderr)
        sys.exit(2)
    try:
        main()
    except DataError as error:
        print(f"{program}: {_one_line(error)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"\n{program}: stopped", file=sys.stderr)
        sys.exit(130)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
