"""Looks at takes before they are trained on: what is wrong, what can be mended, what should be recorded next.

What it finds is told by a page (`inspection_page`) and by `inspection.json`, which `docs/record.md` describes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from neural_midi_synth.data_prep import alignment as alignment_lib
from neural_midi_synth.data_prep import faults as faults_lib
from neural_midi_synth.data_prep import hearing, recording_faults, velocities
from neural_midi_synth.data_prep.faults import CRITICAL, WARNING, Fault
from neural_midi_synth.data_prep.note_coverage import FEW_MINUTES, Coverage, cover
from neural_midi_synth.data_prep.onsets import SAMPLE_RATE
from neural_midi_synth.data_prep.takes import Take, find_takes, read_take
from neural_midi_synth.errors import DataError, PolyphonyError
from neural_midi_synth.files.audio import resample
from neural_midi_synth.midi.pieces import Piece, Voice

if TYPE_CHECKING:
    from neural_midi_synth.data_prep.midi_audio import MidiAudioConfig

GOOD, USABLE, MEND_FIRST, UNUSABLE = "good", "usable", "mend first", "unusable"

_FEW_FAULTS = 0.02  # Of the notes: what training does not mind.
_MOSTLY_SILENT = 0.5
_TEMPO_RATIOS = (0.5, 2.0, 2 / 3, 1.5, 0.75, 4 / 3, 0.8, 1.25, 0.9, 1.1, 100 / 120, 120 / 100, 120 / 140, 140 / 120)
_FITS = 0.85  # Confidence at another tempo that makes it the likely cause.
_LEVEL_DIFFERS, _FEWEST_TAKES = 6.0, 3  # dB; of two nobody knows which is wrong
# Two ways of dying away: the distance of their means in standard deviations (a bell curve cut in two has 2.7; notes of
# one style 2.2 to 3.1, muted and open ones 3.4 to 4.4), and how many times as fast one is (2, and 7 to 13).
_DECAYS_APART, _TIMES_AS_FAST, _SLOWEST_DECAY = 3.2, 4.0, 2.0
# dB a second: muted notes die away at least as fast (35 to 47); bowed ones, which swell and fade, seem to by 14 to 30.
_MUTED_DECAY = 32.0
_FEWEST_NOTES = 16


@dataclasses.dataclass(frozen=True, eq=False)
class InspectedTake:
    """What was found of one take.

    Attributes:
        name: Of the take.
        take: Its files.
        alignment: Where its annotation lies; None where it can't be read.
        piece: Its annotation as it is; None likewise.
        velocities: `annotated` or `from_audio`.
        faults: Sorted by time.
        seconds: Length of the recording.
    """

    name: str
    take: Take
    alignment: alignment_lib.Alignment | None
    piece: Piece | None
    velocities: str
    faults: list[Fault]
    seconds: float

    @property
    def is_critical(self) -> bool:
        """Whether it stops the training."""
        return any(fault.tier == CRITICAL for fault in self.faults)

    def facts(self) -> dict[str, Any]:
        """Returns it as JSON has it."""
        found = self.alignment
        return {
            "name": self.name,
            "offset_seconds": found.offset if found else 0.0,
            "drift": found.drift if found else 0.0,
            "confidence": found.confidence if found else 0.0,
            "velocities": self.velocities,
            "faults": [dataclasses.asdict(fault) for fault in self.faults],
        }


@dataclasses.dataclass(frozen=True, eq=False)
class Inspection:
    """What was found of all takes.

    Attributes:
        verdict: `good`, `usable`, `mend first` or `unusable`.
        message: The verdict in a line.
        takes: What was found of each.
        coverage: What they have in them.
    """

    verdict: str
    message: str
    takes: list[InspectedTake]
    coverage: Coverage

    @property
    def may_train(self) -> bool:
        """Whether training may begin."""
        return self.verdict in (GOOD, USABLE)

    def facts(self) -> dict[str, Any]:
        """Returns it as JSON has it."""
        return {
            "verdict": self.verdict,
            "message": self.message,
            "takes": [take.facts() for take in self.takes],
            "coverage": self.coverage.facts(),
        }


@dataclasses.dataclass(frozen=True, eq=False)
class _Listened:
    """What is found of one take, and what is needed of it to compare takes; only the first where it is of no use."""

    take: InspectedTake
    corrected: Piece | None = None
    attacks: velocities.Attacks | None = None


def inspect(
    config: MidiAudioConfig,
    styles: Mapping[str, int],
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Inspection:
    """Inspects takes.

    Args:
        config: Where the takes are, and how they are to become examples.
        styles: Style name → control change number.
        progress: Is told how many takes are done, and how many there are.

    Returns:
        What was found.

    Raises:
        DataError: There are no takes.
    """
    takes = find_takes(config.source_dir, config.audio_track, config.midi_track)
    listened = []
    for i, take in enumerate(takes, start=1):
        listened.append(_inspect_take(take, config, styles))
        progress(i, len(takes))
    return _gathered(listened, styles, config)


def _inspect_take(take: Take, config: MidiAudioConfig, styles: Mapping[str, int]) -> _Listened:
    try:
        recorded, rate, piece = read_take(
            take, config.voices, config.track, config.midi_channel, longest_excess=math.inf
        )
    except DataError as error:
        kind = "polyphonic" if isinstance(error, PolyphonyError) else "unreadable"
        fault = Fault(kind, CRITICAL, 0.0, 0.0, None, str(error))
        return _Listened(InspectedTake(take.name, take, None, None, "annotated", [fault], 0.0))
    samples = resample(recorded, rate, SAMPLE_RATE)
    seconds = len(samples) / SAMPLE_RATE
    found = alignment_lib.align(samples, SAMPLE_RATE, piece)
    if found.confidence < alignment_lib.LEAST_CONFIDENCE:
        fault = _does_not_fit(samples, piece, found, CRITICAL if config.align != "off" else WARNING)
        return _Listened(InspectedTake(take.name, take, found, piece, "annotated", [fault], seconds))
    levels = hearing.frame_levels(samples)
    faults, heard, played = faults_lib.find(samples, levels, piece, found)
    n_silent = sum(fault.kind == "silent_note" for fault in faults)
    if n_silent > _MOSTLY_SILENT * len(piece.notes):
        message = (
            f"Nothing is heard at {n_silent} of {len(piece.notes)} notes. Check that the recording is the one that is "
            "annotated, and that it is not muted."
        )
        faults = [Fault("no_sound", CRITICAL, 0.0, piece.duration, None, message)]
    usual = float(np.median(heard.levels)) if len(heard.levels) else -120.0
    for fault in recording_faults.find(take, recorded, rate, samples, levels, played, usual):
        start, end = (float(found.annotated(time)) for time in (fault.start, fault.end))
        faults.append(dataclasses.replace(fault, start=start, end=end))
    faults += _flat_styles(piece, played.pitches, heard.decays, styles)
    corrected = alignment_lib.apply(piece, found.limited_to(config.align))
    attacks = velocities.measure(samples, SAMPLE_RATE, corrected)
    return _Listened(InspectedTake(take.name, take, found, piece, "annotated", faults, seconds), corrected, attacks)


def _does_not_fit(samples: np.ndarray, piece: Piece, found: alignment_lib.Alignment, tier: str) -> Fault:
    """Says that an annotation does not belong to its recording, and whether it would at another tempo."""
    first = float(piece.notes[0, 0]) if len(piece.notes) else 0.0
    for ratio in _TEMPO_RATIOS:
        faster = _at_tempo(piece, ratio)
        if alignment_lib.align(samples, SAMPLE_RATE, faster).confidence >= _FITS:
            message = (
                f"The annotation has another tempo than the recording: it fits if it is played {ratio:.3g} times as "
                "fast. Set the project's tempo before exporting the MIDI file, and export the tempo map with it."
            )
            return Fault("other_tempo", tier, first, piece.duration, None, message)
    message = (
        f"Only {found.confidence:.0%} of the notes are to be heard, even if all are moved by up to "
        f"{alignment_lib.MAX_OFFSET:g} s. Check that recording and annotation belong together and have the same tempo."
    )
    return Fault("does_not_fit", tier, first, piece.duration, None, message)


def _at_tempo(piece: Piece, ratio: float) -> Piece:
    """Returns the notes of a piece played so many times as fast."""
    return Piece(tuple(Voice(voice.notes / [ratio, ratio, 1.0, 1.0]) for voice in piece.voices))


def _gathered(listened: Sequence[_Listened], styles: Mapping[str, int], config: MidiAudioConfig) -> Inspection:
    """Compares the takes with each other, and gives the verdict."""
    usable = [each for each in listened if each.attacks is not None]
    attacks = [each.attacks for each in usable]
    told = config.velocities == "from_audio" or (
        config.velocities == "auto" and bool(attacks) and not velocities.carry_information(attacks)
    )
    pieces = [each.corrected for each in usable]
    if told:
        pieces = [velocities.apply(piece, each) for piece, each in zip(pieces, velocities.infer(attacks), strict=True)]
    unlike_others = iter(_unlike_others(usable))
    takes = []
    for each in listened:
        faults = [*each.take.faults, *(next(unlike_others) if each.attacks is not None else [])]
        faults.sort(key=lambda fault: (fault.tier != CRITICAL, fault.start))
        source = "from_audio" if told and each.attacks is not None else "annotated"
        takes.append(dataclasses.replace(each.take, faults=faults, velocities=source))
    coverage = cover(pieces, styles)
    verdict, message = _verdict(takes, coverage, config.align)
    return Inspection(verdict, message, takes, coverage)


def _flat_styles(piece: Piece, pitches: np.ndarray, decays: np.ndarray, styles: Mapping[str, int]) -> list[Fault]:
    """Finds style lanes that never change while the notes decay in two ways.

    Args:
        piece: The annotation.
        pitches: Of its notes, `[n]`.
        decays: Of its notes, from `hearing.listen`.
        styles: Style name → control change number.
    """
    known = np.isfinite(decays)
    # In chords the other notes hide how one dies away.
    if known.sum() < _FEWEST_NOTES or not styles or len(piece.voices) > 1:
        return []
    values = np.log(np.maximum(decays[known], _SLOWEST_DECAY))
    slope = np.polyfit(pitches[known], values, 1)[0]
    values = values - slope * (pitches[known] - pitches[known].mean())
    low, high = np.percentile(values, [15, 85])
    for _ in range(20):  # Lloyd's algorithm, two groups
        is_high = np.abs(values - high) < np.abs(values - low)
        if is_high.all() or not is_high.any():
            return []
        low, high = values[~is_high].mean(), values[is_high].mean()
    spread = np.sqrt(0.5 * (values[~is_high].var() + values[is_high].var()))
    if min(is_high.mean(), 1 - is_high.mean()) < 0.15:
        return []
    if high < np.log(_MUTED_DECAY) or high - low < max(_DECAYS_APART * spread, np.log(_TIMES_AS_FAST)):
        return []
    changing = set()
    for voice in piece.voices:
        for number in np.unique(voice.control_changes[:, 1]):
            if np.ptp(voice.control_changes[voice.control_changes[:, 1] == number, 2]) >= 16:
                changing.add(int(number))
    if changing & set(styles.values()):
        return []
    name, number = next(iter(styles.items()))
    message = (
        f"The notes die away in two ways, {np.exp(high - low):.1f} times as fast in one as in the other, but the lane "
        f"of {name} (CC{number}) never changes. Draw it, or leave the style out of the config."
    )
    return [Fault("flat_style", WARNING, 0.0, piece.duration, None, message)]


def _unlike_others(takes: Sequence[_Listened]) -> list[list[Fault]]:
    """Finds takes that are louder or quieter than others at the same pitches, velocities and styles."""
    left = velocities.unexplained([take.attacks for take in takes], with_velocities=True)
    middles = np.array([np.median(each) if len(each) else 0.0 for each in left])
    found: list[list[Fault]] = [[] for _ in takes]
    for i, middle in enumerate(middles - np.median(middles) if len(takes) >= _FEWEST_TAKES else []):
        if abs(middle) > _LEVEL_DIFFERS:
            message = (
                f"{abs(middle):.0f} dB {'louder' if middle > 0 else 'quieter'} than the same notes in the other takes. "
                "Export all with the same gain; do not normalise them one by one."
            )
            found[i].append(Fault("level_differs", WARNING, 0.0, takes[i].take.piece.duration, None, message))
    return found


def _verdict(takes: Sequence[InspectedTake], coverage: Coverage, align: str) -> tuple[str, str]:
    """Returns the verdict and a line that says why."""
    critical = [take for take in takes if take.is_critical]
    if len(critical) == len(takes):
        return UNUSABLE, f"Nothing can be learnt from these takes: {_first_words(critical[0])}"
    if critical:
        return MEND_FIRST, f"{len(critical)} of {len(takes)} takes can't be trained on: {_first_words(critical[0])}"
    n_faults = sum(fault.pitch is not None or fault.kind == "unannotated_sound" for t in takes for fault in t.faults)
    corrected = sum(bool(take.alignment and take.alignment.limited_to(align).told()) for take in takes)
    mended = f" {corrected} annotation{'s' * (corrected != 1)} will be moved to the sound." if corrected else ""
    what = f"{coverage.notes} notes in {coverage.minutes:.1f} minutes of sound"
    if coverage.minutes < FEW_MINUTES:
        return USABLE, f"{what}: few, but it will play.{mended}"
    if n_faults > _FEW_FAULTS * coverage.notes:
        return USABLE, f"{what}; {n_faults} of them look wrong. Mend them, and it will play better.{mended}"
    others = [fault for take in takes for fault in take.faults if fault.pitch is None]
    if others:
        return USABLE, f"{what}, but: {others[0].message}{mended}"
    return GOOD, f"{what}, {n_faults or 'none'} of them doubtful. Train.{mended}"


def _first_words(take: InspectedTake) -> str:
    fault = next(fault for fault in take.faults if fault.tier == CRITICAL)
    return fault.message if take.name in fault.message else f"{take.name}: {fault.message}"
