"""nms_render_corpus: from a folder of MIDI files to a corpus of sounds with the notes that made them."""

from __future__ import annotations

import importlib.util
import os
import pathlib

from absl import flags

from neural_midi_synth.commands import command_line
from neural_midi_synth.errors import DataError

USAGE = """Plays all MIDI files of a folder with instruments: sounds whose notes, styles and controls are known.

nms_render_corpus --midi_dir lakh/ --output corpus/
    with the guitar that comes with the package, on all processors of this machine
nms_render_corpus --midi_dir lakh/ --instrument a.nms --instrument runs/b --output corpus/ --vary openness=0..127
    each file by both, each time with an openness of its own
nms_render_corpus --midi_dir lakh/ --instrument a.nms --instrument runs/b --output corpus/ --vary instrument
    each file by one of them
nms_render_corpus --midi_dir lakh/ --output corpus/ --sound tfds
    and a TFDS data set in corpus/data_set/
nms_render_corpus --midi_dir lakh/ --output corpus/ -- --runner=DaskRunner --dask_client_address=tcp://head:8786
    on a cluster: what comes after -- is Apache Beam's; every worker has to see the folders under the same names

Writes sound/, notes/, manifest.jsonl, and not_played.jsonl with what could not be played and why. The same command goes
on where an earlier one was stopped, and plays what has come to the folder since."""

_MIDI_DIR = flags.DEFINE_string(
    "midi_dir", None, "Folder of MIDI files, in folders of any depth.", required=True, allow_override=True
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the corpus.", required=True, allow_override=True)
_INSTRUMENT = flags.DEFINE_multi_string(
    "instrument",
    [],
    "Folder or .nms file of a trained instrument; may be repeated; the guitar of the package unless given.",
    allow_override=True,
)
_SOUND = flags.DEFINE_enum(
    "sound",
    "flac",
    ["flac", "wav", "tfds"],
    "Kind of the sound files; tfds is flac and a data set.",
    allow_override=True,
)
_VARY = flags.DEFINE_multi_string(
    "vary",
    [],
    "A style and its range, such as openness=0..127, of which each file gets a value; or 'instrument', so that each is "
    "played by one of several; may be repeated.",
    allow_override=True,
)
_SEED = flags.DEFINE_integer("seed", 0, "Of what is drawn.", allow_override=True)
_ALL_TRACKS = flags.DEFINE_bool(
    "all_tracks",
    False,
    "Play all instruments of a file but for drums, not the one that fits best.",
    allow_override=True,
)
_MOST_MINUTES = flags.DEFINE_float(
    "most_minutes", 20.0, "Files that last longer are not played.", lower_bound=0.01, allow_override=True
)


def main(beam_arguments: list[str]) -> None:
    """Makes a corpus as the flags say.

    Args:
      beam_arguments: Those of Apache Beam, after `--`.
    """
    vary = dict(_range(text) for text in _VARY.value if text != "instrument")
    for argument in beam_arguments:
        if not argument.startswith("--"):
            raise command_line.UsageError(f"unexpected argument {argument!r}; Beam's own come after --")
    for module in ("apache_beam", "psutil"):
        if importlib.util.find_spec(module) is None:
            raise DataError(f"{module} is not installed: run `pip install 'neural_midi_synth[corpus]'`.")

    from neural_midi_synth.corpus import pipeline
    from neural_midi_synth.corpus.jobs import Settings, instruments_by_name
    from neural_midi_synth.instrument import portable

    pretrained = pathlib.Path(portable.__file__).resolve().parents[1] / "pretrained" / "demo_guitar"
    instruments = instruments_by_name(_INSTRUMENT.value or [os.fspath(pretrained)])
    _check_styles(instruments, vary)
    settings = Settings(
        midi_dir=os.path.abspath(_MIDI_DIR.value),
        output=os.path.abspath(_OUTPUT.value),
        instruments=instruments,
        sound=_SOUND.value,
        vary=vary,
        draws_instrument="instrument" in _VARY.value,
        seed=_SEED.value,
        all_tracks=_ALL_TRACKS.value,
        most_minutes=_MOST_MINUTES.value,
    )
    summary = pipeline.make_corpus(settings, beam_arguments, lambda line: print(line, flush=True))
    print(f"{summary.played} sounds: {os.path.join(_OUTPUT.value, pipeline.MANIFEST_NAME)}")
    if summary.not_played:
        where = os.path.join(_OUTPUT.value, pipeline.NOT_PLAYED_NAME)
        print(f"{summary.not_played} could not be played: {where} says why.")


def _range(text: str) -> tuple[str, tuple[int, int]]:
    """Reads what `--vary` says, such as openness=0..127: name, lowest and highest value."""
    name, _, ends = text.partition("=")
    low, dots, high = ends.partition("..")
    if not (dots and low.isdecimal() and high.isdecimal() and 0 <= int(low) <= int(high) <= 127):
        raise command_line.UsageError(f"--vary {text}: write a style and a range, such as openness=0..127")
    return name.strip(), (int(low), int(high))


def _check_styles(instruments: dict[str, str], vary: dict[str, tuple[int, int]]) -> None:
    """Loads each instrument, so that what is wrong with it is told at once, and finds the styles in one of them."""
    from neural_midi_synth import environment

    environment.import_tensorflow_quietly()
    from neural_midi_synth.instrument.loading import load

    known: set[str] = set()
    for path in instruments.values():
        known.update(load(path).styles)
    for style in vary:
        if style not in known:
            raise DataError(
                f"--vary {style}: no instrument has this style; they have {', '.join(sorted(known)) or 'none'}."
            )


def run() -> None:
    """The console script."""
    command_line.run(main, USAGE, takes_files=True)


if __name__ == "__main__":
    run()
