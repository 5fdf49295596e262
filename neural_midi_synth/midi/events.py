"""The one reading of MIDI events: the state of a MIDI channel, which turns events into notes, controls and bends.

Files, streams and keyboards all go through `MidiChannel`, so that the same events mean the same notes however they
come.

Example:
    ```python
    midi_channel = MidiChannel()
    midi_channel.note_on(0.0, 60, 100)  # [NoteBegan(note)]
    midi_channel.control_change(0.5, SUSTAIN_PEDAL, 127)  # [ControlChanged(0.5, 64, 127)]
    midi_channel.note_off(1.0, 60)  # [], since the pedal holds it
    midi_channel.control_change(2.0, SUSTAIN_PEDAL, 0)  # [ControlChanged(2.0, 64, 0), NoteEnded(note)]
    ```
"""

from __future__ import annotations

import dataclasses
from typing import TypeAlias

import numpy as np

DEFAULT_BEND_RANGE = 2.0  # semitones
# A pitch wheel has this many steps on each side of its middle, which is 0.
WHEEL_STEPS = 8192

MODULATION, EXPRESSION = 1, 11
SUSTAIN_PEDAL, PORTAMENTO, SOSTENUTO_PEDAL, SOFT_PEDAL = 64, 65, 66, 67
# A pedal is down from this value on.
PEDAL_DOWN = 64
# Controllers 101 and 100 select a registered parameter (RPN), 99 and 98 a non-registered one (NRPN). What is selected
# is then set by 6 and 38, or moved in steps by 96 and 97.
RPN_MSB, RPN_LSB, NRPN_MSB, NRPN_LSB = 101, 100, 99, 98
DATA_MSB, DATA_LSB, DATA_INCREMENT, DATA_DECREMENT = 6, 38, 96, 97
PARAMETER_CONTROLLERS = (RPN_MSB, RPN_LSB, NRPN_MSB, NRPN_LSB, DATA_MSB, DATA_LSB, DATA_INCREMENT, DATA_DECREMENT)
# Channel mode messages. 124 to 127 (omni and mono modes) also turn all notes off.
ALL_SOUND_OFF, RESET_ALL_CONTROLLERS, ALL_NOTES_OFF, LAST_ALL_NOTES_OFF = 120, 121, 123, 127
# What "reset all controllers" sets, by the MIDI recommended practice RP-015. Other controllers stay as they are.
RESET_VALUES = {
    MODULATION: 0,
    EXPRESSION: 127,
    SUSTAIN_PEDAL: 0,
    PORTAMENTO: 0,
    SOSTENUTO_PEDAL: 0,
    SOFT_PEDAL: 0,
}

# So many notes of one pitch may last. Where there are more, note-offs got lost, and the oldest note ends.
_MOST_OF_A_PITCH = 64
_BEND_RANGE_PARAMETER = (0, 0)  # Most and least significant byte of its number.
_NO_PARAMETER = (127, 127)
_MAX_BEND_RANGE = 127


@dataclasses.dataclass(eq=False, slots=True)
class Note:
    """A note of a MIDI channel, which lasts until `end` is known.

    Attributes:
        start: Time of its note-on.
        pitch: MIDI note number.
        velocity: 1 to 127.
        key_up: Time when its key was released; None while it is down.
        end: Time when it ended, not before `start`; None while it lasts. The pedal makes it later than `key_up`.
    """

    start: float
    pitch: float
    velocity: float
    key_up: float | None = None
    end: float | None = None

    @property
    def key_down(self) -> bool:
        """Whether its key is still held."""
        return self.key_up is None


@dataclasses.dataclass(frozen=True, slots=True)
class NoteBegan:
    """A note begins at `note.start`."""

    note: Note


@dataclasses.dataclass(frozen=True, slots=True)
class NoteEnded:
    """A note ends at `note.end`."""

    note: Note


@dataclasses.dataclass(frozen=True, slots=True)
class ControlChanged:
    """A controller has a new value (0 to 127)."""

    time: float
    number: int
    value: float


@dataclasses.dataclass(frozen=True, slots=True)
class Bent:
    """The pitch is bent by so many semitones from now on."""

    time: float
    semitones: float


Fact: TypeAlias = NoteBegan | NoteEnded | ControlChanged | Bent


class MidiChannel:
    """The state of one MIDI channel, told of one event after the other.

    Each event returns what it means, in order, as a list of facts. Times are numbers of any unit (seconds, ticks,
    frames), must not decrease, and are only handed on. Of events at one time the order of the calls counts.

    - Note-offs end notes of their pitch first in, first out.
    - The sustain pedal holds notes whose keys are released until it rises, or until the same pitch is struck again.
    - Registered parameter 0 sets the range of the pitch wheel, and moves a bend that is held at once.
    - All sound off (120) ends every note; all notes off (123, and 124 to 127) releases every key, but the pedal
      still holds the notes; reset all controllers (121) is that of RP-015.

    It remembers the notes that last and a handful of numbers, so it does not grow.
    """

    def __init__(self) -> None:
        self._notes: dict[float, list[Note]] = {}  # Those that last by pitch, the oldest first.
        self._pedal_down = False
        self._wheel = 0.0  # Position of the pitch wheel from -1 to 1.
        self._semitones = 0.0
        self._range_semitones, self._range_cents = DEFAULT_BEND_RANGE, 0.0
        self._parameter = _NO_PARAMETER
        self._is_registered = True

    def note_on(self, time: float, pitch: float, velocity: float) -> list[Fact]:
        """Begins a note; velocity 0 is a note-off."""
        if velocity <= 0:
            return self.note_off(time, pitch)
        notes = self._notes.setdefault(pitch, [])
        facts = _end(notes, time, held_by_pedal_only=True)
        if len(notes) >= _MOST_OF_A_PITCH:
            oldest = [notes.pop(0)]
            facts += _end(oldest, time, held_by_pedal_only=False)
        note = Note(time, pitch, velocity)
        notes.append(note)
        facts.append(NoteBegan(note))
        return facts

    def note_off(self, time: float, pitch: float) -> list[Fact]:
        """Releases the key of the oldest note of a pitch whose key is down; nothing happens if there is none."""
        notes = self._notes.get(pitch, [])
        note = next((note for note in notes if note.key_up is None), None)
        if note is None:
            return []
        note.key_up = max(time, note.start)
        return [] if self._pedal_down else self._end_all(time, held_by_pedal_only=True, pitches=[pitch])

    def control_change(self, time: float, number: int, value: float) -> list[Fact]:
        """Sets a controller (0 to 127) to a value (0 to 127), and does what the controller is for."""
        facts: list[Fact] = [ControlChanged(time, number, value)]
        if number == SUSTAIN_PEDAL:
            facts += self._move_pedal(time, value >= PEDAL_DOWN)
        elif number in PARAMETER_CONTROLLERS:
            facts += self._change_parameter(time, number, value)
        elif number == RESET_ALL_CONTROLLERS:
            facts += self._reset_controllers(time)
        elif number == ALL_SOUND_OFF:
            facts += self.end(time)
        elif ALL_NOTES_OFF <= number <= LAST_ALL_NOTES_OFF:
            facts += self._release_keys(time)
        return facts

    def pitch_wheel(self, time: float, value: float) -> list[Fact]:
        """Moves the pitch wheel to a value from -8192 to 8191, which bends by its share of the range."""
        self._wheel = value / WHEEL_STEPS
        return self._bend(time, self._wheel * self._range)

    def pitch_bend(self, time: float, semitones: float) -> list[Fact]:
        """Bends by semitones, whatever the range is now or will be."""
        self._wheel = 0.0
        return self._bend(time, semitones)

    def end(self, time: float) -> list[Fact]:
        """Ends every note that still lasts, whether its key or the pedal holds it."""
        return self._end_all(time, held_by_pedal_only=False, pitches=list(self._notes))

    @property
    def _range(self) -> float:
        return self._range_semitones + self._range_cents / 100.0

    def _bend(self, time: float, semitones: float) -> list[Fact]:
        self._semitones = semitones
        return [Bent(time, semitones)]

    def _end_all(self, time: float, held_by_pedal_only: bool, pitches: list[float]) -> list[Fact]:
        facts = []
        for pitch in pitches:
            facts += _end(self._notes[pitch], time, held_by_pedal_only)
            if not self._notes[pitch]:
                del self._notes[pitch]
        return facts

    def _move_pedal(self, time: float, down: bool) -> list[Fact]:
        self._pedal_down = down
        return [] if down else self._end_all(time, held_by_pedal_only=True, pitches=list(self._notes))

    def _release_keys(self, time: float) -> list[Fact]:
        for notes in self._notes.values():
            for note in notes:
                if note.key_up is None:
                    note.key_up = max(time, note.start)
        return self._move_pedal(time, self._pedal_down)

    def _change_parameter(self, time: float, number: int, value: float) -> list[Fact]:
        if number in (RPN_MSB, RPN_LSB):
            msb, lsb = self._parameter
            self._parameter = (value, lsb) if number == RPN_MSB else (msb, value)
            self._is_registered = True
        elif number in (NRPN_MSB, NRPN_LSB):
            self._is_registered = False
        elif self._is_registered and self._parameter == _BEND_RANGE_PARAMETER:
            self._change_range(number, value)
            if self._wheel:
                return self._bend(time, self._wheel * self._range)
        return []

    def _change_range(self, number: int, value: float) -> None:
        if number == DATA_MSB:
            self._range_semitones = value
        elif number == DATA_LSB:
            self._range_cents = value
        else:
            # One step is one cent, by the MIDI recommended practice RP-018.
            step = 1 if number == DATA_INCREMENT else -1
            cents = self._range_semitones * 100 + self._range_cents + step
            self._range_semitones, self._range_cents = divmod(min(max(cents, 0), _MAX_BEND_RANGE * 100), 100)

    def _reset_controllers(self, time: float) -> list[Fact]:
        self._parameter, self._is_registered = _NO_PARAMETER, True
        facts: list[Fact] = [ControlChanged(time, number, value) for number, value in RESET_VALUES.items()]
        facts += self._move_pedal(time, False)
        self._wheel = 0.0
        if self._semitones:
            facts += self._bend(time, 0.0)
        return facts


def _end(notes: list[Note], time: float, held_by_pedal_only: bool) -> list[Fact]:
    """Ends notes of a list and takes them out of it: all, or those whose key is up."""
    ended = [note for note in notes if not (held_by_pedal_only and note.key_up is None)]
    if ended:
        notes[:] = [note for note in notes if held_by_pedal_only and note.key_up is None]
    for note in ended:
        note.end = max(time, note.start)
        if note.key_up is None:
            note.key_up = note.end
    return [NoteEnded(note) for note in ended]


def as_midi(control_changes: np.ndarray, pitch_bends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Says control changes and bends in semitones with a pitch wheel, as MIDI has it: the inverse of `MidiChannel`.

    Where there are bends, the range that the widest one needs is set at time 0, in place of all controllers that set
    parameters. "Reset all controllers" is left out, since what it did is among the control changes.

    Args:
        control_changes: `[m, 3]` float64: time (s), number, value; sorted by time.
        pitch_bends: `[k, 2]` float64: time (s), semitones; sorted by time.

    Returns:
        Control changes `[m', 3]` float64 with values that are whole numbers, and positions of the pitch wheel
        `[k, 2]` float64: time (s), value (-8192 to 8191).

    Raises:
        ValueError: A bend is wider than 127 semitones.
    """
    control_changes = control_changes[control_changes[:, 1] != RESET_ALL_CONTROLLERS]
    wheel = pitch_bends.copy()
    if len(wheel):
        widest = np.abs(wheel[:, 1]).max()
        bend_range = max(int(np.ceil(widest * WHEEL_STEPS / (WHEEL_STEPS - 1))), int(DEFAULT_BEND_RANGE))
        if bend_range > _MAX_BEND_RANGE:
            raise ValueError(f"A pitch bend of {widest:.1f} semitones is wider than MIDI allows ({_MAX_BEND_RANGE}).")
        wheel[:, 1] = np.minimum(np.round(wheel[:, 1] / bend_range * WHEEL_STEPS), WHEEL_STEPS - 1)
        first = min(0.0, *control_changes[:, 0], *wheel[:, 0])
        sets_range = ((RPN_MSB, 0), (RPN_LSB, 0), (DATA_MSB, bend_range), (DATA_LSB, 0))
        others = control_changes[~np.isin(control_changes[:, 1], PARAMETER_CONTROLLERS)]
        control_changes = np.concatenate([[(first, number, value) for number, value in sets_range], others])
    control_changes = np.column_stack([control_changes[:, :2], np.round(control_changes[:, 2])])
    return control_changes, wheel
