"""Makes the demo guitar: twelve minutes of sampled electric guitar with its annotation, and four examples.

    python data_prep/make_demo_guitar.py

It needs Debian's `fluidsynth` and `fluid-soundfont-gm`, and is deterministic: the same versions make the same files.
What is played is in `guitar_session.py`; here it is turned into sound, MIDI files and Reaper projects.
"""

from __future__ import annotations

import bisect
import dataclasses
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence

import mido
import numpy as np
import soundfile
import tqdm
from absl import flags
from guitar_session import EXAMPLES, OPENNESS, POWER_CHORD, TICKS_PER_BEAT, Score, record_session

from neural_midi_synth.commands import command_line
from neural_midi_synth.errors import DataError
from neural_midi_synth.files import outputs
from neural_midi_synth.midi import reaper_writing

_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir",
    str(pathlib.Path(__file__).parent / "demo_guitar"),
    "Folder the takes and examples are written to.",
    allow_override=True,
)
_SOUNDFONT = flags.DEFINE_string("soundfont", "/usr/share/sounds/sf2/FluidR3_GM.sf2", "FluidR3 GM, as a .sf2 file.")
USAGE = "Makes the demo guitar data set (takes, annotations, Reaper projects, examples) with FluidSynth."

SAMPLE_RATE = 44100
BEND_RANGE = 2.0  # semitones, the MIDI default
CLOSED_PROGRAM, OPEN_PROGRAM = 28, 29  # palm-muted and overdriven guitar, General MIDI programs counted from 0
FLUIDSYNTH_GAIN = 1.0  # the same for every file; the loudest power chord stays below full scale
PLAYER_LATENCY = 0.0025  # s, how late FluidSynth plays on the average (it starts notes at blocks of 64 samples)
GAIN_SMOOTHING = 0.005  # s
MP3 = {"format": "MP3", "bitrate_mode": "VARIABLE", "compression_level": 0.25}

# --- Writing it down --------------------------------------------------------------------------------------------------


def messages(score: Score) -> list[tuple[int, mido.Message]]:
    """The score as MIDI messages with their ticks, in the order they are sent: a note ends before the next begins."""
    ranked = [(tick, 1, mido.Message("control_change", control=n, value=v)) for tick, n, v in score.controls]
    ranked += [(tick, 2, mido.Message("pitchwheel", pitch=wheel(semitones))) for tick, semitones in score.bends]
    for start, end, pitch, velocity in score.notes:
        ranked.append((start, 3, mido.Message("note_on", note=pitch, velocity=velocity)))
        ranked.append((end, 0, mido.Message("note_off", note=pitch)))
    return [(tick, message) for tick, _, message in sorted(ranked, key=lambda event: event[:2])]


def wheel(semitones: float) -> int:
    """The pitch wheel's position, -8192 to 8191, for a bend in semitones."""
    return min(round(semitones / BEND_RANGE * 8192), 8191)


def write_midi(timed_messages: Sequence[tuple[int, mido.Message]], tempo: int, name: str, path: pathlib.Path) -> None:
    """Writes a Standard MIDI file of type 0, with tempo and track name."""
    track = mido.MidiTrack([mido.MetaMessage("track_name", name=name)])
    track.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(tempo)))
    previous = 0
    for tick, message in timed_messages:
        track.append(message.copy(time=tick - previous))
        previous = tick
    mido.MidiFile(type=0, ticks_per_beat=TICKS_PER_BEAT, tracks=[track]).save(path)


def write_reaper_project(score: Score, name: str, path: pathlib.Path) -> None:
    """Writes a Reaper project: the recording and its annotation on two tracks, in the take's tempo."""
    audio = reaper_writing.audio_source(f"{name}.mp3")
    midi = reaper_writing.midi_source(messages(score), TICKS_PER_BEAT, score.ticks(score.duration))
    items = [
        (track, [reaper_writing.ReaperItem(item, score.duration, source)])
        for track, item, source in (("Guitar", f"{name}.mp3", audio), ("Annotation", f"{name}.mid", midi))
    ]
    reaper_writing.write_reaper_project(path, items, score.tempo, SAMPLE_RATE)


# --- Playing it -------------------------------------------------------------------------------------------------------


def render(score: Score, soundfont: str) -> np.ndarray:
    """Plays a score on the sampled guitar.

    The palm-muted and the overdriven guitar play the same notes; openness cross-fades between them at constant power.

    Args:
        score: What to play.
        soundfont: Path of FluidR3 GM.

    Returns:
        float32 [n], mono, at 44.1 kHz.
    """
    closed, opened = (render_layer(score, program, soundfont) for program in (CLOSED_PROGRAM, OPEN_PROGRAM))
    angle = np.pi / 2 * openness_curve(score, len(closed))
    return (np.cos(angle) * closed + np.sin(angle) * opened).astype(np.float32)


def openness_curve(score: Score, n_samples: int) -> np.ndarray:
    """Openness as it is heard, float64 [n_samples] in [0, 1]: CC55 held, its steps smoothed over 5 ms."""
    changes = sorted((tick, value) for tick, number, value in score.controls if number == OPENNESS)
    curve = np.zeros(n_samples)
    for tick, value in changes:
        curve[round(score.seconds(tick) * SAMPLE_RATE) :] = value / 127
    width = round(GAIN_SMOOTHING * SAMPLE_RATE) | 1
    padded = np.pad(curve, width // 2, mode="edge")
    return np.convolve(padded, np.full(width, 1 / width), mode="valid")


def render_layer(score: Score, program: int, soundfont: str) -> np.ndarray:
    """Plays all notes with one program, the fifths of power chords on a second MIDI channel, without effects."""
    fifths = dataclasses.replace(
        score, notes=[(s, e, pitch + 7, velocity) for s, e, pitch, velocity in score.notes if is_power_chord(score, s)]
    )
    timed = [(0, mido.Message("program_change", channel=channel, program=program)) for channel in (0, 1)]
    played = messages(score) + [(tick, message.copy(channel=1)) for tick, message in messages(fifths)]
    timed += sorted(played, key=lambda event: event[0])
    n_samples = round(score.duration * SAMPLE_RATE)
    timed.append((score.ticks(score.duration), mido.Message("control_change", control=110)))  # keeps the player going
    with tempfile.TemporaryDirectory() as folder:
        midi, wav = pathlib.Path(folder, "layer.mid"), pathlib.Path(folder, "layer.wav")
        write_midi(timed, score.tempo, "layer", midi)
        command = ["fluidsynth", "-niq", "-R", "0", "-C", "0", "-g", str(FLUIDSYNTH_GAIN), "-r", str(SAMPLE_RATE)]
        command += ["-O", "float", "-T", "wav", "-F", str(wav), soundfont, str(midi)]
        player = subprocess.run(command, capture_output=True, text=True, check=False)
        if player.returncode or not wav.exists() or "error" in player.stderr:
            raise DataError(f"{soundfont}: fluidsynth cannot play it ({player.stderr.strip()}). Give FluidR3_GM.sf2.")
        stereo, _ = soundfile.read(wav, dtype="float64", always_2d=True)
    first = round(PLAYER_LATENCY * SAMPLE_RATE)
    mono = stereo.mean(axis=1)[first : first + n_samples]
    return np.pad(mono, (0, n_samples - len(mono)))


def is_power_chord(score: Score, tick: int) -> bool:
    """Whether CC56 asks for a power chord at `tick`."""
    changes = sorted((at, value) for at, number, value in score.controls if number == POWER_CHORD)
    place = bisect.bisect_right(changes, (tick, 127)) - 1
    return place >= 0 and changes[place][1] >= 64


def write_take(score: Score, name: str, folder: pathlib.Path, soundfont: str) -> None:
    """Writes recording, annotation and Reaper project of a take."""
    write_audio(render(score, soundfont), folder / f"{name}.mp3", **MP3)
    write_midi(messages(score), score.tempo, name, folder / f"{name}.mid")
    write_reaper_project(score, name, folder / f"{name}.RPP")


def write_example(score: Score, name: str, folder: pathlib.Path, soundfont: str) -> None:
    """Writes the MIDI file of an example and its reference rendering."""
    write_audio(render(score, soundfont), folder / f"{name}.flac", format="FLAC", subtype="PCM_16")
    write_midi(messages(score), score.tempo, name, folder / f"{name}.mid")


def write_audio(samples: np.ndarray, path: pathlib.Path, **encoding: object) -> None:
    """Writes float [n] samples at 44.1 kHz; `encoding` goes to soundfile. Raises DataError if they clip."""
    peak = np.abs(samples).max()
    if peak >= 1:
        raise DataError(f"{path}: clips (peak {peak:.2f}). Lower FLUIDSYNTH_GAIN.")
    with outputs.write_aside(path) as aside:
        soundfile.write(aside, samples, SAMPLE_RATE, **encoding)


def check_tools(soundfont: str) -> None:
    """Raises DataError if FluidSynth or the soundfont is missing."""
    if shutil.which("fluidsynth") is None:
        raise DataError("fluidsynth: not installed. On Debian: apt-get install fluidsynth fluid-soundfont-gm.")
    if not pathlib.Path(soundfont).is_file():
        raise DataError(f"{soundfont}: no such soundfont. On Debian: apt-get install fluid-soundfont-gm.")


def main() -> None:
    """Writes all takes and examples."""
    check_tools(_SOUNDFONT.value)
    folder = pathlib.Path(_OUTPUT_DIR.value)
    (folder / "examples").mkdir(parents=True, exist_ok=True)
    examples = [(name, write_score()) for name, write_score in EXAMPLES.items()]
    takes = list(record_session())
    with tqdm.tqdm(total=len(takes) + len(examples), desc="demo guitar", unit="file") as progress:
        for name, score in takes:
            write_take(score, name, folder, _SOUNDFONT.value)
            progress.update()
        for name, score in examples:
            write_example(score, name, folder / "examples", _SOUNDFONT.value)
            progress.update()


if __name__ == "__main__":
    command_line.run(main, USAGE)
