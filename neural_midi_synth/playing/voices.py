"""What the voices of a stream play: events of MIDI channels become each voice's notes, controls and bends."""

from __future__ import annotations

import bisect
import operator
from collections.abc import Hashable, Mapping, Sequence

from neural_midi_synth.midi.events import SUSTAIN_PEDAL, Bent, ControlChanged, MidiChannel, Note, NoteBegan
from neural_midi_synth.playing.allocation import VoiceAllocator

NOT_YET = 1.0e9
"""When a note ends that still lasts, s."""

_BEND = -1  # The key of pitch bends among the numbers of controllers.


class Voices:
    """The voices of a stream, and the MIDI channels whose events they play.

    A MIDI channel has notes, a pedal, controls and a bend of its own, and each voice has the controls and the bend of
    the MIDI channel whose note it plays. `None` stands for all of them: what it changes is changed for every MIDI
    channel there is, and is what later ones begin with. Who has only one instrument of one MIDI channel needs no other.

    Attributes:
        notes: Of each voice, those that matter from the last frame that `forget` was told.
    """

    def __init__(self, voices: int, defaults: Mapping[int, float]) -> None:
        """Begins with silence.

        Args:
            voices: How many there are, from 1.
            defaults: Number of each controller that is heard → its value where nothing has set it.
        """
        self._numbers = frozenset(defaults)
        self._channels: dict[Hashable, MidiChannel] = {None: MidiChannel()}
        self._values: dict[Hashable, dict[int, float]] = {None: {**defaults, SUSTAIN_PEDAL: 0.0, _BEND: 0.0}}
        # By voice: its MIDI channel, and by controller, or `_BEND`, frames and values.
        self._channel_of: list[Hashable] = [None] * voices
        self._held: list[dict[int, list[tuple[float, float]]]] = [{} for _ in range(voices)]
        self.silence()

    def silence(self) -> None:
        """Forgets all notes, as if there had been none; controls stay."""
        self._allocator = VoiceAllocator(len(self._held))
        self.notes: list[list[Note]] = [[] for _ in self._held]

    def release(self, frame: float) -> None:
        """Lets every key and pedal go, and forgets all notes."""
        for key, channel in self._channels.items():
            channel.control_change(frame, SUSTAIN_PEDAL, 0)
            channel.end(frame)
            self._values[key][SUSTAIN_PEDAL] = 0.0
        self.silence()

    def happen(self, frame: float, what: str, midi_channel: Hashable, values: Sequence[float]) -> None:
        """Has an event happen.

        Args:
            frame: When, with its fraction; not before any that was told.
            what: A method of `MidiChannel`.
            midi_channel: Whose event it is. `None` plays notes on a MIDI channel of its own.
            values: Its arguments.
        """
        to_all = midi_channel is None and not what.startswith("note")
        for key in list(self._channels) if to_all else [midi_channel]:
            for fact in getattr(self._known(key, frame), what)(frame, *values):
                if isinstance(fact, NoteBegan):
                    self._begin(key, fact.note, frame)
                elif isinstance(fact, Bent):
                    self._hold(key, frame, _BEND, fact.semitones)
                elif isinstance(fact, ControlChanged):
                    self._hold(key, frame, fact.number, fact.value)

    def forget(self, frame: int) -> None:
        """Forgets what cannot matter from a frame on."""
        for notes in self.notes:
            # One that begins to the sample takes effect within a frame.
            del notes[: max(bisect.bisect_right(notes, frame - 1, key=operator.attrgetter("start")) - 1, 0)]
        for held in self._held:
            for events in held.values():
                del events[: max(bisect.bisect_right(events, frame, key=operator.itemgetter(0)) - 1, 0)]

    @property
    def pitches(self) -> list[float | None]:
        """MIDI note number of the note that lasts on each voice, None where none does. From any thread."""
        newest = [notes[-1] if notes else None for notes in map(list, self.notes)]
        return [note.pitch if note is not None and note.end is None else None for note in newest]

    def rows(self, frame_rate: int) -> list[dict[str, list[tuple[float, ...]]]]:
        """What `Controls` has to know of each voice: rows by name, with times that it rounds to the very frames."""
        rows = []
        for notes, held in zip(self.notes, self._held):
            ends = (NOT_YET if note.end is None else max(note.end, note.start + 1) / frame_rate for note in notes)
            rows.append(
                {
                    "notes": [
                        (note.start / frame_rate, end, note.pitch, note.velocity) for note, end in zip(notes, ends)
                    ],
                    "control_changes": [
                        (frame / frame_rate, number, value)
                        for number, events in held.items()
                        if number != _BEND
                        for frame, value in events
                    ],
                    "pitch_bends": [(frame / frame_rate, semitones) for frame, semitones in held.get(_BEND, [])],
                }
            )
        return rows

    def _known(self, key: Hashable, frame: float) -> MidiChannel:
        """A MIDI channel, which begins with what holds for all."""
        if key not in self._channels:
            self._channels[key] = MidiChannel()
            self._values[key] = dict(self._values[None])
            self._channels[key].pitch_bend(frame, self._values[None][_BEND])
            self._channels[key].control_change(frame, SUSTAIN_PEDAL, self._values[None][SUSTAIN_PEDAL])
        return self._channels[key]

    def _begin(self, key: Hashable, note: Note, frame: float) -> None:
        """Gives a note its voice, which takes over what its MIDI channel holds."""
        voice = self._allocator.voice_for(note)
        self.notes[voice].append(note)
        if self._channel_of[voice] != key:
            self._channel_of[voice] = key
            for number in (_BEND, *self._numbers):
                self._held[voice].setdefault(number, []).append((frame, self._values[key][number]))

    def _hold(self, key: Hashable, frame: float, number: int, value: float) -> None:
        if number in self._values[key]:
            self._values[key][number] = value
        if number == _BEND or number in self._numbers:
            for channel, held in zip(self._channel_of, self._held):
                if channel == key:
                    held.setdefault(number, []).append((frame, value))
