"""What the guitarist of the demo guitar plays: the takes of a recording session, and the examples.

Every take is a string of short phrases. For each phrase the player draws a figure (what to play), a style (how open,
power chord or not), a root and a loudness, each from its own deck of cards; a deck is shuffled and gone through before
it is shuffled again, so that a little of everything is in every minute.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np

TICKS_PER_BEAT = 960
LOWEST_PITCH, HIGHEST_PITCH = 36, 64
SHORTEST_NOTE, LONGEST_NOTE = 0.1, 2.5  # s
TAIL = 1.0  # s, from the end of the last note to the end of the recording
OPENNESS, POWER_CHORD = 55, 56  # controller numbers

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

    def play(self, pitch: int, velocity: float, beats: float, held: float = 1.0) -> tuple[int, int]:
        """Plays one note, held for the share `held` of `beats` (1 is legato), and moves on by `beats`.

        Returns:
            Start and end of the note.
        """
        slot = round(beats * TICKS_PER_BEAT)
        length = min(max(slot * held, self.ticks(SHORTEST_NOTE)), self.ticks(LONGEST_NOTE), slot)
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
    held = phrase.dice.choice([1.0, 1.0, 0.6])
    direction = phrase.dice.choice([1, -1])
    for interval in scale + scale[-2::-1]:
        score.play(phrase.pitch(direction * interval), phrase.accent(), beats, held)


def play_riff(score: Score, phrase: Phrase) -> None:
    """A rhythm on the root with answers above it, twice."""
    rhythm = phrase.dice.choice([(1, 1, 2, 1, 1, 2), (2, 1, 1, 3, 1), (3, 3, 2), (1, 1, 1, 1, 2, 2)])
    answers = [phrase.dice.choice([0, 3, 5, 7, 10, -2]) for _ in rhythm]
    held = phrase.dice.choice([0.45, 0.7, 0.9])
    for _ in range(2):
        for place, (length, interval) in enumerate(zip(rhythm, answers, strict=True)):
            accent = 12 if place == 0 else 0
            score.play(phrase.pitch(interval if place else 0), phrase.accent() + accent, length / 4, held)


def play_broken_chord(score: Score, phrase: Phrase) -> None:
    """Three chords, one note after another. The examples' chord, A minor, is never among them."""
    for _ in range(3):
        chord = phrase.dice.choice([(0, 4, 7), (0, 3, 7), (0, 5, 7), (0, 3, 6), (0, 4, 7, 12), (12, 7, 3, 0)])
        step = phrase.dice.choice([0, 2, 5, -2, 7])
        if 3 in chord and (phrase.root + step) % 12 == EXAMPLE_ROOT % 12:
            step += 1
        beats = phrase.dice.choice([1 / 4, 1 / 2, 1, 1.5])
        held = phrase.dice.choice([1.0, 1.0, 0.7, 0.3])
        for interval in chord:
            score.play(phrase.pitch(step + interval), phrase.accent(), beats, held)


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
    held = phrase.dice.choice([0.5, 0.8, 1.0])
    for velocity in (40, 52, 64, 76, 88, 100, 112, 127):
        score.play(phrase.pitch(0), velocity, beats, held)
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
    for octave, held in ((0, 1.0), (0, 0.3), (12, 1.0), (12, 0.3)):
        for interval in MINOR_TRIAD:
            score.play(EXAMPLE_ROOT + octave + interval, 100, beats=1, held=held)
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
