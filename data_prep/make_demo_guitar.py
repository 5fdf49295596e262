"""Makes the demo guitar: twelve minutes of sampled electric guitar with its annotation, and four examples.

    python data_prep/make_demo_guitar.py

It needs Debian's `fluidsynth` and `fluid-soundfont-gm`, and is deterministic: the same versions make the same files.
The plan is a recording session's. Every take is a string of short phrases. For each phrase the player draws a figure
(what to play), a style (how open, power chord or not), a root and a loudness, each from its own deck of cards; a deck
is shuffled and gone through before it is shuffled again, so that a little of everything is in every minute.
"""

from __future__ import annotations

import bisect
import dataclasses
import pathlib
import random
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence

import mido
import numpy as np
import rpp
import soundfile
import tqdm
from absl import flags

from neural_midi_synth import command_line, outputs
from neural_midi_synth.errors import DataError

_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir",
    str(pathlib.Path(__file__).parent / "demo_guitar"),
    "Folder the takes and examples are written to.",
    allow_override=True,
)
_SOUNDFONT = flags.DEFINE_string("soundfont", "/usr/share/sounds/sf2/FluidR3_GM.sf2", "FluidR3 GM, as a .sf2 file.")
USAGE = "Makes the demo guitar data set (takes, annotations, Reaper projects, examples) with FluidSynth."

SAMPLE_RATE = 44100
TICKS_PER_BEAT = 960
LOWEST_PITCH, HIGHEST_PITCH = 36, 64
SHORTEST_NOTE, LONGEST_NOTE = 0.1, 2.5  # s
TAIL = 1.0  # s, from the end of the last note to the end of the recording
OPENNESS, POWER_CHORD = 55, 56  # controller numbers
BEND_RANGE = 2.0  # semitones, the MIDI default
CLOSED_PROGRAM, OPEN_PROGRAM = 28, 29  # palm-muted and overdriven guitar, General MIDI programs counted from 0
FLUIDSYNTH_GAIN = 1.0  # the same for every file; the loudest power chord stays below full scale
PLAYER_LATENCY = 0.0025  # s, how late FluidSynth plays on the average (it starts notes at blocks of 64 samples)
GAIN_SMOOTHING = 0.005  # s
MP3 = {"format": "MP3", "bitrate_mode": "VARIABLE", "compression_level": 0.25}

TAKE_TEMPOS = (100, 120, 80, 150, 96, 125, 75, 128, 120, 100)  # beats per minute, one take each; whole µs per beat
TAKE_LENGTH = 73.0  # s; a take ends with the phrase that crosses it
STYLES = (  # (openness from, openness to, power chord): one card each, so single notes outnumber power chords
    *[(0, 0, False)] * 3,
    *[(127, 127, False)] * 3,
    *[(16, 111, False)] * 2,
    (0, 0, True),
    (127, 127, True),
    (16, 111, True),
)
LOUDNESSES = (48, 62, 76, 90, 104, 118)  # velocities around which a phrase is played


@dataclasses.dataclass
class Score:
    """What is played, written from left to right. Times are in ticks.

    Attributes:
      tempo: Beats per minute.
      cursor: Where the next note goes.
      notes: (start, end, pitch, velocity) of each note.
      controls: (tick, controller number, value).
      bends: (tick, semitones).
    """

    tempo: int
    cursor: int = 0
    notes: list[tuple[int, int, int, int]] = dataclasses.field(default_factory=list)
    controls: list[tuple[int, int, int]] = dataclasses.field(default_factory=list)
    bends: list[tuple[int, float]] = dataclasses.field(default_factory=list)

    def ticks(self, seconds: float) -> int:
        """Seconds to ticks, at the score's tempo."""
        return round(seconds * self.tempo / 60 * TICKS_PER_BEAT)

    def seconds(self, ticks: int) -> float:
        """Ticks to seconds, at the score's tempo."""
        return ticks / TICKS_PER_BEAT * 60 / self.tempo

    def style(self, openness: int, power_chord: bool | None = None) -> None:
        """Writes the style that holds from the cursor on."""
        self.controls.append((self.cursor, OPENNESS, openness))
        if power_chord is not None:
            self.controls.append((self.cursor, POWER_CHORD, 127 if power_chord else 0))

    def play(self, pitch: int, velocity: float, beats: float, sounding: float = 1.0) -> tuple[int, int]:
        """Plays one note and moves on by `beats`, of which the share `sounding` is heard (1 is legato).

        Returns:
          Start and end of the note.
        """
        slot = round(beats * TICKS_PER_BEAT)
        length = min(max(slot * sounding, self.ticks(SHORTEST_NOTE)), self.ticks(LONGEST_NOTE), slot)
        start, end = self.cursor, self.cursor + round(length)
        self.notes.append((start, end, pitch, round(min(max(velocity, 40), 127))))
        self.cursor += slot
        return start, end

    def rest(self, beats: float) -> None:
        """Moves on by `beats` without playing."""
        self.cursor += round(beats * TICKS_PER_BEAT)

    @property
    def duration(self) -> float:
        """End of the recording, in seconds."""
        return self.seconds(self.notes[-1][1]) + TAIL


# --- What is played in a phrase ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Phrase:
    """The cards drawn for one phrase: root pitch, openness, velocity to play around, and the dice for the details."""

    root: int
    openness: int
    velocity: int
    dice: random.Random
    long_pitches: Iterator[int]

    def pitch(self, interval: int) -> int:
        """The pitch `interval` semitones from the root, moved by octaves into the guitar's range."""
        pitch = self.root + interval
        while pitch > HIGHEST_PITCH:
            pitch -= 12
        while pitch < LOWEST_PITCH:
            pitch += 12
        return pitch

    def accent(self) -> float:
        """A velocity near the phrase's, different for each note."""
        return self.velocity + self.dice.uniform(-12, 12)


def play_run(score: Score, phrase: Phrase) -> None:
    """A scale up and down again, every note of the same length."""
    scale = phrase.dice.choice([(0, 2, 3, 5, 7, 8, 10, 12), (0, 3, 5, 6, 7, 10, 12), (0, 1, 2, 3, 4, 5, 6, 7)])
    beats = phrase.dice.choice([1 / 4, 1 / 3, 1 / 2])
    sounding = phrase.dice.choice([1.0, 1.0, 0.6])
    direction = phrase.dice.choice([1, -1])
    for interval in scale + scale[-2::-1]:
        score.play(phrase.pitch(direction * interval), phrase.accent(), beats, sounding)


def play_riff(score: Score, phrase: Phrase) -> None:
    """A rhythm on the root with answers above it, twice."""
    rhythm = phrase.dice.choice([(1, 1, 2, 1, 1, 2), (2, 1, 1, 3, 1), (3, 3, 2), (1, 1, 1, 1, 2, 2)])
    answers = [phrase.dice.choice([0, 3, 5, 7, 10, -2]) for _ in rhythm]
    sounding = phrase.dice.choice([0.45, 0.7, 0.9])
    for _ in range(2):
        for place, (length, interval) in enumerate(zip(rhythm, answers, strict=True)):
            accent = 12 if place == 0 else 0
            score.play(phrase.pitch(interval if place else 0), phrase.accent() + accent, length / 4, sounding)


def play_broken_chord(score: Score, phrase: Phrase) -> None:
    """Three chords, one note after another. The examples' chord, A minor, is never among them."""
    for _ in range(3):
        chord = phrase.dice.choice([(0, 4, 7), (0, 3, 7), (0, 5, 7), (0, 3, 6), (0, 4, 7, 12), (12, 7, 3, 0)])
        step = phrase.dice.choice([0, 2, 5, -2, 7])
        if 3 in chord and (phrase.root + step) % 12 == EXAMPLE_ROOT % 12:
            step += 1
        beats = phrase.dice.choice([1 / 4, 1 / 2, 1, 1.5])
        sounding = phrase.dice.choice([1.0, 1.0, 0.7, 0.3])
        for interval in chord:
            score.play(phrase.pitch(step + interval), phrase.accent(), beats, sounding)


def play_melody(score: Score, phrase: Phrase) -> None:
    """A tune in wide and narrow steps, in mixed lengths, legato but for a breath."""
    interval = 0
    for beats in phrase.dice.choice([(1, 1 / 2, 1 / 2, 1.5, 1 / 2, 2), (1.5, 1 / 4, 1 / 4, 1, 1), (2 / 3, 1 / 3) * 3]):
        score.play(phrase.pitch(interval), phrase.accent(), beats)
        interval += phrase.dice.choice([-12, -5, -3, -2, -1, 1, 2, 4, 5, 7, 9])
        if phrase.dice.random() < 0.15:
            score.rest(1 / 2)


def play_long_notes(score: Score, phrase: Phrase) -> None:
    """Notes held for one to two and a half seconds; over the session, each pitch in each style."""
    for length in phrase.dice.sample([1.0, 1.4, 1.8, 2.2, LONGEST_NOTE], 2) + [phrase.dice.choice([1.0, LONGEST_NOTE])]:
        score.play(next(phrase.long_pitches), phrase.accent() + 8, length * score.tempo / 60)
        score.rest(phrase.dice.choice([0, 1 / 4, 1 / 2]))


def play_crescendo(score: Score, phrase: Phrase) -> None:
    """One pitch, louder and louder, then one soft echo."""
    beats = phrase.dice.choice([1 / 4, 1 / 2])
    sounding = phrase.dice.choice([0.5, 0.8, 1.0])
    for velocity in (40, 52, 64, 76, 88, 100, 112, 127):
        score.play(phrase.pitch(0), velocity, beats, sounding)
    score.play(phrase.pitch(phrase.dice.choice([7, -5, 12, 3])), 45, 1)


def play_bends(score: Score, phrase: Phrase) -> None:
    """Bent notes: up and held, bent before the attack and let down, a fall at the end, vibrato."""
    for _ in range(3):
        depth = phrase.dice.choice([1.0, 2.0, -1.0])
        shape = phrase.dice.choice(
            [
                lambda x, depth=depth: depth * min(1.0, max(0.0, (x - 0.2) / 0.3)),
                lambda x, depth=depth: depth * min(1.0, max(0.0, (0.7 - x) / 0.4)),
                lambda x, depth=depth: -abs(depth) * max(0.0, (x - 0.6) / 0.4),
                lambda x: 0.4 * np.sin(2 * np.pi * 4 * x) * min(1.0, 2 * x),
            ]
        )
        interval = phrase.dice.choice([0, 3, 5, 7, 10])
        start, end = score.play(phrase.pitch(interval), phrase.accent() + 8, phrase.dice.choice([1, 1.5, 2]), 0.9)
        write_bend(score, start, end, shape)


def write_bend(score: Score, start: int, end: int, shape: Callable[[float], float]) -> None:
    """Bends the note just played by `shape`, from place in the note (0 to 1) to semitones; it ends with its slot."""
    for tick in range(start, end, score.ticks(0.01)):
        semitones = round(float(shape((tick - start) / (end - start))), 3)
        if semitones != (score.bends[-1][1] if score.bends else 0.0):
            score.bends.append((tick, semitones))
    score.bends.append((score.cursor, 0.0))


def play_opening(score: Score, phrase: Phrase) -> None:
    """The hand leaves the strings (or comes down on them): note by note, then within one long note."""
    values = [0, 24, 44, 64, 84, 104, 127]
    if phrase.dice.random() < 0.5:
        values.reverse()
    for value, interval in zip(values, (0, 0, 3, 5, 7, 5, 3), strict=True):
        score.style(value)
        score.play(phrase.pitch(interval), phrase.accent(), 1 / 2, phrase.dice.choice([0.6, 1.0]))
    start, end = score.play(phrase.pitch(0), phrase.accent() + 8, 3)
    for step in range(1, 33):
        value = round(values[-1] + (values[0] - values[-1]) * step / 32)
        score.controls.append((start + (end - start) * step // 40, OPENNESS, value))


FIGURES: tuple[Callable[[Score, Phrase], None], ...] = (
    play_run,
    play_riff,
    play_broken_chord,
    play_melody,
    play_long_notes,
    play_long_notes,
    play_crescendo,
    play_bends,
    play_opening,
)


# --- The session and the examples -------------------------------------------------------------------------------------


def deal(cards: Sequence, dice: random.Random) -> Iterator:
    """Deals `cards` without end, shuffling them each time they have all been dealt."""
    while True:
        hand = list(cards)
        dice.shuffle(hand)
        yield from hand


def record_session() -> Iterator[tuple[str, Score]]:
    """Plays the takes.

    Yields:
      Name and score of each take.
    """
    dice = random.Random("demo guitar")
    pitches = range(LOWEST_PITCH, HIGHEST_PITCH + 1)
    low_pitches = range(LOWEST_PITCH, LOWEST_PITCH + 12)  # most figures climb, so the low strings get a second card
    figures, styles, roots = deal(FIGURES, dice), deal(STYLES, dice), deal([*pitches, *low_pitches], dice)
    loudnesses = deal(LOUDNESSES, dice)
    long_pitches = {openness: deal(pitches, dice) for openness in sorted({style[:2] for style in STYLES})}
    for number, tempo in enumerate(TAKE_TEMPOS, start=1):
        score = Score(tempo)
        score.style(0, False)
        score.rest(1)
        while score.seconds(score.cursor) < TAKE_LENGTH:
            style = next(styles)
            openness = dice.randint(style[0], style[1])
            score.style(openness, style[2])
            next(figures)(score, Phrase(next(roots), openness, next(loudnesses), dice, long_pitches[style[:2]]))
            score.rest(dice.choice([1 / 4, 1 / 2, 1]))
        yield f"take_{number:02d}", score


EXAMPLE_ROOT = 45  # A2: the minor triads are A C E, then the same an octave higher
MINOR_TRIAD = (0, 3, 7)


def extra_long_open_closed() -> Score:
    """Two long notes, C2: the first closed, the second open."""
    score = Score(tempo=120)
    for openness in (0, 127):
        score.style(openness, False)
        score.play(36, 100, beats=4)
    return score


def long_short() -> Score:
    """A minor triad four times, in long and in short notes, the last two an octave higher; closed throughout."""
    score = Score(tempo=120)
    score.style(0, False)
    for octave, sounding in ((0, 1.0), (0, 0.3), (12, 1.0), (12, 0.3)):
        for interval in MINOR_TRIAD:
            score.play(EXAMPLE_ROOT + octave + interval, 100, beats=1, sounding=sounding)
    return score


def longer_open_closed() -> Score:
    """A minor triad four times in longer notes, the last two an octave higher; the 1st and 3rd open, others muted."""
    score = Score(tempo=80)
    for octave, openness in ((0, 127), (0, 0), (12, 127), (12, 0)):
        score.style(openness, False)
        for interval in MINOR_TRIAD:
            score.play(EXAMPLE_ROOT + octave + interval, 100, beats=1)
    return score


def riff() -> Score:
    """Twenty seconds in E minor: a muted riff, the same in power chords, an open answer, bends, a last long chord."""
    score = Score(tempo=120)
    score.style(0, False)
    cell = ((40, 1), (40, 1), (52, 2), (40, 1), (50, 1), (47, 2), (40, 1), (43, 1), (45, 2), (46, 2), (47, 2))
    for pitch, quarters in cell * 2:  # two bars
        score.play(pitch, 108 if quarters == 2 else 88, quarters / 4, 0.8)
    score.style(40, True)
    for pitch, quarters in cell:
        score.play(pitch, 112 if quarters == 2 else 92, quarters / 4, 0.8)
    score.style(127, False)
    for pitch, beats in ((59, 1.5), (62, 0.5), (64, 2), (62, 0.5), (59, 0.5), (57, 1), (55, 0.5), (52, 1.5), (50, 1)):
        score.play(pitch, 96, beats)
    start, end = score.play(57, 110, 3)
    write_bend(score, start, end, lambda x: 2 * min(1.0, max(0.0, (x - 0.15) / 0.2)))
    score.style(90)
    for pitch, beats in ((55, 0.5), (52, 0.5), (50, 0.5), (47, 0.5), (45, 1), (43, 1), (42, 2)):
        score.play(pitch, 84, beats, 0.9)
    score.style(0)
    for pitch in (40, 43, 40, 45, 40, 46, 45, 43):
        score.play(pitch, 100, 0.5, 0.5)
    score.style(127, True)
    score.play(40, 120, beats=4)
    return score


EXAMPLES: dict[str, Callable[[], Score]] = {
    "test_midi_extra_long_open_closed": extra_long_open_closed,
    "test_midi_long_short": long_short,
    "test_midi_longer_open_closed": longer_open_closed,
    "riff": riff,
}


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
    lines, previous = [], 0
    for tick, message in messages(score):
        lines.append(["E", tick - previous, *(f"{byte:02x}" for byte in message.bytes())])
        previous = tick
    lines.append(["E", score.ticks(score.duration) - previous, "b0", "7b", "00"])  # where the MIDI item ends
    midi = rpp.Element("SOURCE", ["MIDI"], [["HASDATA", 1, TICKS_PER_BEAT, "QN"], *lines])
    audio = rpp.Element("SOURCE", ["MP3"], [["FILE", f"{name}.mp3"]])
    project = rpp.Element("REAPER_PROJECT", ["0.1", "6.0/linux-x86_64", "0"])
    project.append(["TEMPO", score.tempo, 4, 4])
    project.append(["SAMPLERATE", SAMPLE_RATE, 0, 0])
    project.append(reaper_track("Guitar", f"{name}.mp3", score.duration, audio))
    project.append(reaper_track("Annotation", f"{name}.mid", score.duration, midi))
    path.write_text(rpp.dumps(project), encoding="utf-8")


def reaper_track(track_name: str, item_name: str, length: float, source: rpp.Element) -> rpp.Element:
    """One track with one item that begins at 0 and lasts `length` seconds."""
    identities = ["{" + str(uuid.uuid5(uuid.NAMESPACE_URL, f"{item_name} {i}")).upper() + "}" for i in range(3)]
    item = rpp.Element("ITEM", [], [["POSITION", 0], ["LENGTH", f"{length:.6f}"], ["LOOP", 0]])
    item.extend([["IGUID", identities[1]], ["NAME", item_name], ["SOFFS", 0], ["GUID", identities[2]], source])
    return rpp.Element("TRACK", [identities[0]], [["NAME", track_name], ["TRACKID", identities[0]], item])


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
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
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
