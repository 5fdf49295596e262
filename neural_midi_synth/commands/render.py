"""nms_render: from MIDI files to sound."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from absl import flags
from tqdm import tqdm

from neural_midi_synth import environment
from neural_midi_synth.commands import command_line
from neural_midi_synth.errors import DataError
from neural_midi_synth.files.audio import AUDIO_SUFFIXES, write_audio
from neural_midi_synth.files.outputs import check_writable

if TYPE_CHECKING:
    from neural_midi_synth.instrument.instrument import Instrument
    from neural_midi_synth.midi.pieces import Piece
    from neural_midi_synth.midi.standard_midi_file import Part

USAGE = """Plays MIDI files with a trained instrument.

nms_render --midi riff.mid --output riff.wav
    with the guitar that comes with the package; wav, flac, mp3 or ogg, by the suffix
nms_render --instrument runs/my_guitar --midi riff.mid --output riff.wav
    with one that nms_train trained
nms_render --instrument runs/my_guitar --midi verse.mid --midi chorus.mid --output song/
    several files, into a folder as wav
nms_render --instrument runs/my_guitar --midi riff.mid --output open.wav --style openness=127
    with a style that holds throughout
nms_render --midi song.mid --output song.wav --all_tracks
    all instruments of a song; without --all_tracks, the one whose notes lie best in what was learnt"""

_INSTRUMENT = flags.DEFINE_string(
    "instrument",
    None,
    "Folder or .nms file of a trained instrument; the guitar of the package unless given.",
    allow_override=True,
)
_MIDI = flags.DEFINE_multi_string("midi", None, "MIDI file; may be repeated.", required=True, allow_override=True)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Sound file, or a folder; unless given, a wav file beside where you are, named like the MIDI file.",
    allow_override=True,
)
_STYLE = flags.DEFINE_multi_string(
    "style", [], "A style and its value, 0 to 127, such as openness=127; may be repeated.", allow_override=True
)
_SAMPLE_RATE = flags.DEFINE_integer(
    "sample_rate",
    None,
    "Hz of the sound file; the instrument's own unless given.",
    lower_bound=8000,
    upper_bound=192000,
    allow_override=True,
)
_TRACK = flags.DEFINE_string(
    "track", None, "Number (from 1) or name of the MIDI track to play, where there are several.", allow_override=True
)
_MIDI_CHANNEL = flags.DEFINE_integer(
    "midi_channel",
    None,
    "MIDI channel to play, 1 to 16, where there are several.",
    lower_bound=1,
    upper_bound=16,
    allow_override=True,
)
_ALL_TRACKS = flags.DEFINE_bool(
    "all_tracks",
    False,
    "Play all instruments of a MIDI file but for drums, not the one that fits best.",
    allow_override=True,
)
flags.DEFINE_alias("channel", "midi_channel")
_MODULE = command_line.define_module_flag()


def main() -> None:
    """Renders as the flags say."""
    styles = dict(command_line.style(text) for text in _STYLE.value)
    outputs = output_paths([pathlib.Path(path) for path in _MIDI.value], _OUTPUT.value)
    for output in outputs:
        check_writable(output)
    environment.import_tensorflow_quietly()

    from neural_midi_synth.instrument.loading import load
    from neural_midi_synth.instrument.rendering import TAIL_SECONDS
    from neural_midi_synth.midi.standard_midi_file import read_midi, read_parts

    # Every file is read before the first is played, so that a bad one is told of at once.
    chosen = _TRACK.value is not None or _MIDI_CHANNEL.value is not None or _ALL_TRACKS.value
    if chosen:
        pieces = [read_midi(path, _TRACK.value, _MIDI_CHANNEL.value, _ALL_TRACKS.value) for path in _MIDI.value]
        instrument = load(_INSTRUMENT.value, modules=_MODULE.value)
    else:
        files = [read_parts(path) for path in _MIDI.value]
        instrument = load(_INSTRUMENT.value, modules=_MODULE.value)
        pieces = [_fitting(path, parts, instrument) for path, parts in zip(_MIDI.value, files)]
    sample_rate = _SAMPLE_RATE.value or instrument.sample_rate
    seconds = sum(piece.duration + TAIL_SECONDS for piece in pieces)
    with tqdm(total=round(seconds), desc="Rendering", unit=" s", disable=None) as progress:
        for piece, output in zip(pieces, outputs):
            blocks = instrument.render_blocks(piece, styles, sample_rate)
            write_audio(output, _counted(blocks, sample_rate, progress), sample_rate)
            tqdm.write(str(output))


def _fitting(path: str, parts: list[Part], instrument: Instrument) -> Piece:
    """What plays of a file where nothing was chosen; tells where that is a choice."""
    from neural_midi_synth.midi.standard_midi_file import best_part

    part = best_part(parts, *instrument.pitch_range)
    if len(parts) > 1:
        print(
            f"{path}: {part.title} plays, which fits best of {len(parts)} instruments. Choose another with --track or "
            "--midi_channel, or play all of them with --all_tracks.",
            file=sys.stderr,
        )
    return part.piece


def _counted(blocks: Iterable[np.ndarray], sample_rate: int, progress: tqdm) -> Iterator[np.ndarray]:
    """The blocks, while the bar counts whole seconds of them."""
    n_samples = 0
    for block in blocks:
        yield block
        before, n_samples = n_samples, n_samples + len(block)
        progress.update(n_samples // sample_rate - before // sample_rate)


def output_paths(midi_paths: list[pathlib.Path], output: str | None) -> list[pathlib.Path]:
    """Says where each rendering goes.

    Args:
        midi_paths: The MIDI files.
        output: A sound file for a single MIDI file; a folder; or None for the current folder.

    Returns:
        A path for each, all different.

    Raises:
        DataError: Several MIDI files and one sound file, or a suffix that is no sound.
    """
    folder = pathlib.Path(output or ".")
    if folder.suffix and not folder.is_dir():
        if folder.suffix.lower() not in AUDIO_SUFFIXES:
            raise DataError(f"{folder}: unknown kind of sound. Choose one of {', '.join(sorted(AUDIO_SUFFIXES))}.")
        if len(midi_paths) > 1:
            raise DataError(f"{folder}: one sound file for {len(midi_paths)} MIDI files. Give a folder as --output.")
        return [folder]
    paths = [folder / f"{path.stem}.wav" for path in midi_paths]
    for path in paths:
        if paths.count(path) > 1:
            raise DataError(f"{path}: two MIDI files would be rendered to it. Rename one of them.")
    return paths


def run() -> None:
    """The console script."""
    # The decoder and the processors run side by side; with every core for each they would wait for each other.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(max((os.cpu_count() or 2) // 2, 1)))
    command_line.run(main, USAGE)


if __name__ == "__main__":
    run()
