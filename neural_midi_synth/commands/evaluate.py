"""nms_evaluate: from an instrument and recordings to a report."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

from absl import flags

from neural_midi_synth import environment
from neural_midi_synth.commands import command_line
from neural_midi_synth.errors import DataError

if TYPE_CHECKING:
    from neural_midi_synth.instrument.instrument import Instrument

USAGE = """Measures how close an instrument comes to recordings of what it plays.

nms_evaluate --instrument runs/my_guitar --output report/
    on the test split of the takes the instrument was trained on
nms_evaluate --instrument runs/my_guitar --midi_dir riffs/ --output report/
    on a folder of MIDI files with recordings of the same names

Writes report.html (open it in a browser), report.json, and the sounds and pictures as files. The verdict is written to
the instrument's folder, too, where nms_export finds it."""

# Several commands have these flags, and tests import several commands.
_INSTRUMENT = flags.DEFINE_string(
    "instrument", None, "Folder or .nms file of a trained instrument.", required=True, allow_override=True
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder the report is written to.", required=True, allow_override=True)
_MIDI_DIR = flags.DEFINE_string(
    "midi_dir", None, "Folder of MIDI files, each with a recording of the same name beside it.", allow_override=True
)
_DATA_SET = flags.DEFINE_string(
    "data_set",
    None,
    "Folder of a built data set; unless given, the one trained on. Its test split is played without --midi_dir, "
    "and its takes tell how alike the player plays a note twice.",
    allow_override=True,
)
_TRACK = flags.DEFINE_string(
    "track",
    None,
    "Number (from 1) or name of the track to play of each MIDI file of --midi_dir, where there are several.",
    allow_override=True,
)
_MIDI_CHANNEL = flags.DEFINE_integer(
    "midi_channel",
    None,
    "MIDI channel to play of each MIDI file of --midi_dir, 1 to 16, where there are several.",
    lower_bound=1,
    upper_bound=16,
    allow_override=True,
)
_ALL_TRACKS = flags.DEFINE_bool(
    "all_tracks", False, "Play all instruments of a MIDI file of --midi_dir but for drums.", allow_override=True
)
_PERCEIVED = flags.DEFINE_bool(
    "perceived",
    False,
    "Measure the perceived quality, too: it needs ViSQOL (pip install visqol-python), and a second for each of sound.",
    allow_override=True,
)
_MODULE = command_line.define_module_flag()


def main() -> None:
    """Evaluates the instrument that the flags name."""
    for flag in (_TRACK, _MIDI_CHANNEL, _ALL_TRACKS):
        if flag.value and not _MIDI_DIR.value:
            raise command_line.UsageError(f"--{flag.name} is for --midi_dir")
    environment.import_tensorflow_quietly()

    from neural_midi_synth.evaluation import comparing, examples
    from neural_midi_synth.instrument.loading import DATA_SET_NAME, keep_verdict, load, name_of

    instrument = load(_INSTRUMENT.value, modules=_MODULE.value)
    if _MIDI_DIR.value:
        played = examples.examples_in(
            _MIDI_DIR.value, instrument.sample_rate, _TRACK.value, _MIDI_CHANNEL.value, _ALL_TRACKS.value
        )
        takes = _DATA_SET.value or _if_there(_trained_on())
    else:
        # All are read before the first is played, so that what is wrong with them is told at once.
        takes = _DATA_SET.value or _trained_on()
        if takes is None:
            path = pathlib.Path(_INSTRUMENT.value) / DATA_SET_NAME
            raise DataError(f"{path}: does not tell what it was trained on. Give --data_set or --midi_dir.")
        played = list(examples.examples_of_test_split(takes, instrument.sample_rate))
    advice = [] if takes is None else _advice(takes, instrument)
    title = name_of(_INSTRUMENT.value)
    summary = comparing.evaluate(instrument, played, _OUTPUT.value, title, takes, _PERCEIVED.value, advice)
    keep_verdict(_INSTRUMENT.value, summary["verdict"])
    print(f"\nThe report: {pathlib.Path(_OUTPUT.value) / comparing.REPORT_PAGE}")


def _trained_on() -> str | None:
    """Returns the folder of the data set that the instrument was trained on, if it tells."""
    from neural_midi_synth.instrument.loading import trained_on

    return trained_on(_INSTRUMENT.value).get("folder")


def _if_there(folder: str | None) -> str | None:
    """Returns the folder of a data set if it is still there."""
    return folder if folder and pathlib.Path(folder).is_dir() else None


def _advice(takes: str, instrument: Instrument) -> list[str]:
    """Returns what the takes lack."""
    from neural_midi_synth.data_prep.note_coverage import cover
    from neural_midi_synth.evaluation.examples import pieces_of_takes

    return cover(pieces_of_takes(takes, instrument.sample_rate), instrument.styles).advice


def run() -> None:
    """The console script."""
    command_line.run(main, USAGE)


if __name__ == "__main__":
    run()
