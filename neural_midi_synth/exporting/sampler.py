"""An instrument as an SFZ with FLAC samples, for the samplers there are.

What its samples are: wet, with the instrument's own room, which for a linear room sounds like one room for all voices;
at 32 kHz; one gain for all of them; as long as they last, looped where they are steady.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from neural_midi_synth.errors import DataError
from neural_midi_synth.exporting import samples
from neural_midi_synth.exporting.samples import Loop, Note
from neural_midi_synth.exporting.sfz import SAMPLES_FOLDER, Region, Style, sfz, velocity_zones
from neural_midi_synth.files.outputs import check_writable, write_aside
from neural_midi_synth.instrument.instrument import Instrument
from neural_midi_synth.instrument.loading import trained_on

FOLDER_NAME = "sampler"
"""Of the export, in the folder that is given for it."""

_MOST_COMBINATIONS = 16  # Of style values: each sounds in a voice of the sampler's, for every note.
_PROBE_SECONDS = 12.0
_LONGEST_SECONDS = 10.0
_LOOP_ROOM_SECONDS = 0.6  # What is played of a sample once it is steady: the loop and what it is found by.
_RELEASED_SECONDS = 0.25  # When notes end whose release is measured.
_TAIL_SECONDS = 1.0
_LEVEL_SECONDS = 0.5  # By which a note's level is measured.
_MOST_LOUDER_DB = 3.0  # What samples that had to be written softer get back when they are played.
_PEAK = 0.9  # Of the loudest samples, as far as can be told beforehand.
# Samples a second. Players interpolate with few points: of a sound up to 8 kHz, images would be heard 40 dB below it at
# 16,000, and are 60 dB below it at twice that. At more, samples grow, and little of a guitar is above 16 kHz.
_SAMPLE_RATE = 32_000
_SUBTYPE = "PCM_16"


@dataclasses.dataclass(frozen=True)
class Size:
    """How many samples are made.

    Attributes:
        pitches: At most so many, evenly over the learnt range.
        velocities: Layers of velocities.
        values: Layers of a style that moves while notes sound.
        round_robins: Samples that take turns where a note is played again.
        bits: Of a number in a file of 16, so many are used: the others are 0, and take no space.
    """

    pitches: int
    velocities: int
    values: int
    round_robins: int
    bits: int = 16


SIZES = {"small": Size(30, 2, 3, 1, bits=13), "full": Size(48, 4, 4, 2, bits=14)}
"""Name → size. Pitches come first: transposed by a semitone, an instrument is already less like itself.
What is rounded is 78 dB below full scale with 13 bits, 84 dB with 14."""


class Sampler:
    """What an instrument's samples will be, measured from notes that it plays for that.

    Attributes:
        name: Of the instrument.
        pitches: MIDI note numbers of the samples.
        velocities: Their velocities.
        styles: Their styles.
        n_samples: How many there are.
        megabytes: How large they will be together, estimated; a megabyte is 10⁶ bytes.
        is_looped: Whether notes that last become steady, and are looped there.
    """

    def __init__(
        self,
        instrument: Instrument,
        name: str = "instrument",
        size: Size | str = "small",
        trained_in: str | os.PathLike | None = None,
    ) -> None:
        """Plays some notes and measures them.

        Args:
            instrument: A trained instrument.
            name: What it is called in a sampler.
            size: How many samples there are to be, or one of `SIZES`.
            trained_in: The instrument's folder, for the pitches, velocities and styles that it has learnt.

        Raises:
            DataError: The instrument plays nothing but silence.
        """
        self._instrument = instrument
        self.name = name
        self._size = SIZES[size] if isinstance(size, str) else size
        learnt = {} if trained_in is None else trained_on(trained_in)
        self.pitches = _spread(*instrument.pitch_range, self._size.pitches)
        velocity = learnt.get("velocity", {"minimum": 1, "maximum": 127})
        self._velocity_range = round(velocity["minimum"]), round(velocity["maximum"])
        # In the middle of as many parts of the range, so that none of it is far from its layer.
        edges = np.linspace(*self._velocity_range, self._size.velocities + 1)
        self.velocities = tuple(sorted({round(each) for each in (edges[:-1] + edges[1:]) / 2}))
        self.styles = _styles(instrument, learnt.get("styles", {}), self._size.values)
        numbers = [style.number for style in self.styles]
        self._combinations = [
            tuple(zip(numbers, values)) for values in itertools.product(*(style.values for style in self.styles))
        ]
        self.n_samples = len(self.pitches) * len(self._layers())

        long = self._probe()
        self._gain, self._releases = self._measure_releases(_growth(long))
        self._level_db = self._measure_levels()
        louder = min(-20.0 * np.log10(self._gain), _MOST_LOUDER_DB)
        self._zones = velocity_zones(self.velocities, self._level_db, louder)
        steady = samples.steady_after(long, _SAMPLE_RATE)
        self.is_looped = steady is not None and steady + _LOOP_ROOM_SECONDS <= _LONGEST_SECONDS
        self._seconds = steady + _LOOP_ROOM_SECONDS if self.is_looped else _LONGEST_SECONDS
        self.megabytes = self._estimate(long[:, : round(self._seconds * _SAMPLE_RATE)])

    def write(self, folder: str | os.PathLike, progress: Callable[[int, int], None] | None = None) -> pathlib.Path:
        """Plays the samples and writes them with the SFZ, whole or not at all.

        Args:
            folder: Gets a folder `sampler/` with the SFZ and `samples/`; an older one is replaced.
            progress: Is told how many samples are written, and how many there will be.

        Returns:
            The SFZ.

        Raises:
            DataError: The folder can't be written.
        """
        import soundfile

        target = pathlib.Path(folder) / FOLDER_NAME
        check_writable(target / f"{self.name}.sfz")
        try:
            with write_aside(target) as aside:
                (aside / SAMPLES_FOLDER).mkdir(parents=True)
                regions = []
                for region, sample in self._regions():
                    self._write_sample(aside / SAMPLES_FOLDER / region.file, sample)
                    regions.append(region)
                    if progress is not None:
                        progress(len(regions), self.n_samples)
                text = sfz(self.name, self._comments(), self.styles, regions)
                (aside / f"{self.name}.sfz").write_text(text, encoding="utf-8")
        except (OSError, soundfile.LibsndfileError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is the disk full?"
            raise DataError(f"{target}: can't be written ({reason}). Choose another output.") from error
        return target / f"{self.name}.sfz"

    def _layers(self) -> list[tuple[int, tuple[tuple[int, int], ...], int]]:
        """Index of the velocity, style values and turn of each sample of a pitch."""
        turns = range(1, self._size.round_robins + 1)
        return list(itertools.product(range(len(self.velocities)), self._combinations, turns))

    def _regions(self) -> Iterator[tuple[Region, np.ndarray]]:
        """The regions with their samples, pitch by pitch."""
        for pitch in self.pitches:
            layers = self._layers()
            notes = [Note(pitch, self.velocities[place], dict(values), turn) for place, values, turn in layers]
            audio = self._gain * self._played(notes, self._seconds)
            loop = samples.find_loop(audio, _SAMPLE_RATE) if self.is_looped else None
            for (place, values, turn), played in zip(layers, audio):
                sample, its_loop = samples.cut(played, _SAMPLE_RATE, loop)
                styles = "".join(f"_cc{number}-{value:03}" for number, value in values)
                file = f"key{pitch:03}_vel{self.velocities[place]:03}{styles}_{turn}.flac"
                release = self._releases[pitch, values]
                yield Region(file, pitch, self._zones[place], values, turn, release, its_loop), sample

    def _measure_releases(self, growth: float) -> tuple[float, dict[tuple[int, Any], float]]:
        """One gain for all samples, where notes grow so much louder yet, and the release of each pitch and style, s."""
        keys = list(itertools.product(self.pitches, self._combinations))
        notes = [Note(pitch, self.velocities[-1], dict(values)) for pitch, values in keys]
        audio = self._played(notes, _RELEASED_SECONDS, _TAIL_SECONDS)
        peak = float(np.abs(audio).max())
        if peak < 10 ** (samples.SILENT_DB / 20):
            raise DataError(f"{self.name}: plays nothing but silence. Train it for longer.")
        measured = [samples.release_seconds(each, _SAMPLE_RATE, _RELEASED_SECONDS) for each in audio]
        usual = float(np.median([each for each in measured if each is not None] or [0.1]))
        return _PEAK / (growth * peak), {key: each or usual for key, each in zip(keys, measured)}

    def _measure_levels(self) -> np.ndarray:
        """Level over velocity, dB, `[128]`: as the instrument plays it, and with the velocity's square beyond."""
        low, high = self._velocity_range
        measured = _spread(low, high, 16)
        pitches, combinations = _some(self.pitches), _some(self._combinations)
        notes = [
            Note(pitch, velocity, dict(values))
            for velocity, pitch, values in itertools.product(measured, pitches, combinations)
        ]
        audio = self._played(notes, _LEVEL_SECONDS)
        level = samples.levels(audio, _SAMPLE_RATE, _LEVEL_SECONDS)
        level = level.reshape([len(measured), -1]).mean(axis=1)
        every = np.arange(128)
        beyond = 40.0 * np.log10(np.maximum(every, 1) / np.clip(every, low, high))
        return np.interp(every, measured, level) + beyond

    def _probe(self) -> np.ndarray:
        """Long loud notes: of some pitches, with all combinations of styles."""
        notes = itertools.product(_some(self.pitches), self._combinations)
        notes = [Note(pitch, self.velocities[-1], dict(values)) for pitch, values in notes]
        return self._played(notes, _PROBE_SECONDS)

    def _played(self, notes: Sequence[Note], seconds: float, tail: float = 0.0) -> np.ndarray:
        return samples.play(self._instrument, notes, seconds, tail, _SAMPLE_RATE)

    def _estimate(self, audio: np.ndarray) -> float:
        """Megabytes of all samples, by those of some at every velocity."""
        loop = Loop(audio.shape[1] - _SAMPLE_RATE // 2, audio.shape[1]) if self.is_looped else None
        n_bytes = []
        for played, velocity in itertools.product(audio, self.velocities):
            gain = self._gain * 10 ** ((self._level_db[velocity] - self._level_db[self.velocities[-1]]) / 20)
            written = io.BytesIO()
            sample, _ = samples.cut(gain * played, _SAMPLE_RATE, loop)
            self._write_sample(written, sample)
            n_bytes.append(len(written.getvalue()))
        return self.n_samples * float(np.mean(n_bytes)) / 1e6

    def _write_sample(self, file: pathlib.Path | io.BytesIO, sample: np.ndarray) -> None:
        import soundfile

        step = 2 ** (16 - self._size.bits)
        most = 2**15 // step - 1
        numbers = step * np.clip(np.round(sample * (most + 1)), -most, most).astype(np.int16)
        soundfile.write(file, numbers, _SAMPLE_RATE, format="FLAC", subtype=_SUBTYPE, compression_level=1.0)

    def _comments(self) -> Iterator[str]:
        yield f"{self.name}: an instrument of neural_midi_synth, sampled. Its room is in the samples."
        yield f"It has learnt the keys {self.pitches[0]} to {self.pitches[-1]}; others are those, transposed."
        for style in self.styles:
            yield f"CC{style.number}: {style.name}, while notes sound, too."
        yield f"A note takes {len(self._combinations)} voices of the player's polyphony."


def _spread(low: float, high: float, most: int) -> tuple[int, ...]:
    """At most so many whole numbers, evenly from the lowest to the highest."""
    low, high = round(low), round(high)
    count = min(most, high - low + 1)
    return tuple(sorted({round(each) for each in np.linspace(low, high, count)})) if count > 1 else (high,)


def _growth(audio: np.ndarray) -> float:
    """By how much notes, float `[notes, n]`, get louder after their beginning, as a factor on their peak."""
    beginning = np.abs(audio[:, : round(_RELEASED_SECONDS * _SAMPLE_RATE)]).max(axis=1)
    loud = beginning > 0.1 * beginning.max()
    return float(np.max(np.abs(audio[loud]).max(axis=1) / beginning[loud], initial=1.0))


def _some(of: tuple | list) -> list:
    """The first, the middle and the last of several."""
    return [of[place] for place in sorted({0, len(of) // 2, len(of) - 1})]


def _styles(instrument: Instrument, learnt: dict[str, Any], most: int) -> tuple[Style, ...]:
    """The styles that the instrument has, as layers of samples."""
    values = {}
    for style in instrument.controls.defaults:
        of_style = learnt.get(style, {"minimum": 0, "maximum": 127})
        few = of_style.get("values", [])
        values[style] = _spread(of_style["minimum"], of_style["maximum"], 2 if len(few) == 2 else most)
    while values and math.prod(map(len, values.values())) > _MOST_COMBINATIONS:
        style = max(values, key=lambda style: len(values[style]))
        if len(values[style]) <= 2:
            break
        values[style] = _spread(values[style][0], values[style][-1], len(values[style]) - 1)
    defaults = instrument.controls.defaults
    return tuple(
        Style(style, instrument.styles[style], of_style, round(defaults[style])) for style, of_style in values.items()
    )
