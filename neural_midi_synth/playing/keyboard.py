"""What a keyboard means: from MIDI messages to events of a stream, with knobs that are mapped or learnt, and MPE."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator, Mapping
from typing import TYPE_CHECKING

from neural_midi_synth.midi.events import (
    ALL_SOUND_OFF,
    DATA_LSB,
    DATA_MSB,
    MODULATION,
    PARAMETER_CONTROLLERS,
    RPN_LSB,
    RPN_MSB,
    SUSTAIN_PEDAL,
    Bent,
    MidiChannel,
)

if TYPE_CHECKING:
    import mido

MEMBERS = 15
"""Most member channels of an MPE zone."""

_MEMBER_BEND_RANGE = 48  # semitones, by the MPE specification.
_MPE_PARAMETER = 6  # Registered parameter of a zone's master channel: how many members it has.
_LOWER_MASTER, _UPPER_MASTER = 0, 15
_NO_KNOBS = (SUSTAIN_PEDAL, *PARAMETER_CONTROLLERS)


@dataclasses.dataclass(frozen=True)
class Event:
    """What a message does to a stream.

    Attributes:
        what: A method of `Stream`.
        values: Its arguments.
        midi_channel: Whose it is: name of the source and MIDI channel from 0, or None where it does not matter which;
            None for everybody.
    """

    what: str
    values: tuple[float, ...]
    midi_channel: tuple[str, int | None] | None


class Keyboard:
    """Reads the messages of one source, a keyboard or a file.

    A keyboard is one instrument, whatever MIDI channels its keys, pedals and knobs send on, unless it says that it has
    MPE (registered parameter 6), or `mpe` says so for it. Then the notes on each member channel have a bend and
    controls of their own, and what the master channel sends is for all of its members. What comes from a file has MIDI
    channels that are each by themselves.

    Attributes:
        styles: Style name → controller number.
        knobs: Number of a knob's controller → style. The styles' own controllers need not be there.
        learning: The style that the next knob that moves will be for; None when none is to be learnt.
    """

    def __init__(
        self,
        name: str,
        styles: Mapping[str, int],
        knobs: Mapping[int, str] | None = None,
        mpe: bool = False,
        separate: bool = False,
    ) -> None:
        """Begins without notes.

        Args:
            name: Tells its MIDI channels from those of other sources.
            styles: Style name → controller number, those of the instrument.
            knobs: Number of a knob's controller → style; unless given, the modulation wheel is for the first style.
            mpe: Whether channel 1 is the master of a zone and all others its members, without being told.
            separate: Whether each MIDI channel is by itself.
        """
        self.name = name
        self.styles = dict(styles)
        if knobs is None:
            knobs = dict.fromkeys({MODULATION} - set(self.styles.values()), next(iter(self.styles), ""))
        self.knobs = {number: style for number, style in knobs.items() if style in self.styles}
        self.learning: str | None = None
        self._separate = separate
        self._masters: dict[int, int] = {_LOWER_MASTER: MEMBERS} if mpe else {}
        self._parameters: dict[int, dict[int, int]] = {}
        # They read bend ranges, and are told of no notes.
        self._wheels: dict[Hashable, MidiChannel] = {}
        self._bends: dict[Hashable, float] = {}

    @property
    def has_mpe(self) -> bool:
        """Whether member channels bend by themselves."""
        return bool(self._masters)

    def read(self, message: mido.Message) -> list[Event]:
        """Says what a message does.

        Args:
            message: Any; those that mean nothing here do nothing.

        Returns:
            Events, in order. Where a message is for several MIDI channels, there is one for each.
        """
        if message.type in ("note_on", "note_off"):
            velocity = message.velocity if message.type == "note_on" else 0
            values = (message.note, velocity) if velocity else (message.note,)
            return [Event("note_on" if velocity else "note_off", values, self._key(message.channel))]
        elif message.type == "pitchwheel":
            return list(self._bent(message))
        elif message.type == "control_change":
            return [*self._zone_changed(message), *self._control_changed(message)]
        return []

    def begin(self) -> list[Event]:
        """What holds before the first message."""
        return [event for master in self._masters for event in self._member_ranges(master)]

    def set_style(self, style: str, value: float) -> Event:
        """What sets a style for all that sounds, whoever plays it."""
        return Event("control_change", (self.styles[style], value), None)

    def released(self) -> list[Event]:
        """What lets every key and pedal go, as when the keyboard is taken away."""
        keys = {self._key(channel) for channel in range(16)}
        numbers = (SUSTAIN_PEDAL, ALL_SOUND_OFF)
        return [Event("control_change", (number, 0), key) for key in sorted(keys, key=repr) for number in numbers]

    def _master_of(self, channel: int) -> int | None:
        """The master of the zone that a MIDI channel is in, the master included."""
        for master, members in self._masters.items():
            step = 1 if master == _LOWER_MASTER else -1
            if 0 <= (channel - master) * step <= members:
                return master
        return None

    def _zone(self, master: int) -> list[int]:
        return [channel for channel in range(16) if self._master_of(channel) == master]

    def _key(self, channel: int) -> tuple[str, int | None]:
        apart = self._separate or self._master_of(channel) is not None
        return (self.name, channel if apart else None)

    def _wheel(self, channel: int) -> MidiChannel:
        return self._wheels.setdefault(self._key(channel), MidiChannel())

    def _bent(self, message: mido.Message) -> Iterator[Event]:
        for fact in self._wheel(message.channel).pitch_wheel(0, message.pitch):
            yield from self._bends_of(message.channel, fact)

    def _bends_of(self, channel: int, fact: Bent) -> Iterator[Event]:
        """A bend of one MIDI channel, or of a master, which is added to that of each member."""
        self._bends[self._key(channel)] = fact.semitones
        master = self._master_of(channel)
        for each in self._zone(master) if channel == master else [channel]:
            semitones = self._bends.get(self._key(each), 0.0)
            if master is not None and each != master:
                semitones += self._bends.get(self._key(master), 0.0)
            yield Event("pitch_bend", (semitones,), self._key(each))

    def _control_changed(self, message: mido.Message) -> Iterator[Event]:
        number, value, channel = message.control, message.value, message.channel
        if self.learning is not None and number < ALL_SOUND_OFF and number not in _NO_KNOBS:
            self.knobs[number], self.learning = self.learning, None
        if number in self.knobs:
            number = self.styles[self.knobs[number]]
        master = self._master_of(channel)
        if number in self.styles.values() and not self._separate and master in (None, channel):
            yield Event("control_change", (number, value), None)
            return
        for each in self._zone(master) if channel == master else [channel]:
            yield Event("control_change", (number, value), self._key(each))
        for fact in self._wheel(channel).control_change(0, number, value):
            if isinstance(fact, Bent):
                yield from self._bends_of(channel, fact)

    def _zone_changed(self, message: mido.Message) -> Iterator[Event]:
        """Follows registered parameter 6, by which a controller says which zones it has."""
        selected = self._parameters.setdefault(message.channel, {})
        if message.control in (RPN_MSB, RPN_LSB):
            selected[message.control] = message.value
        is_mpe = selected.get(RPN_MSB) == 0 and selected.get(RPN_LSB) == _MPE_PARAMETER
        if not (is_mpe and message.control == DATA_MSB and message.channel in (_LOWER_MASTER, _UPPER_MASTER)):
            return
        yield from self.released()
        self._masters.pop(message.channel, None)
        if message.value:
            other = _UPPER_MASTER if message.channel == _LOWER_MASTER else _LOWER_MASTER
            members = min(message.value, MEMBERS)
            if self._masters.get(other, -2) + members > MEMBERS - 1:  # The newer zone takes what it needs.
                self._masters[other] = MEMBERS - 1 - members
                if self._masters[other] <= 0:
                    del self._masters[other]
            self._masters[message.channel] = members
        yield from self._member_ranges(message.channel)

    def _member_ranges(self, master: int) -> Iterator[Event]:
        """Members bend by 48 semitones unless told otherwise."""
        for channel in self._zone(master):
            if channel != master:
                for number, value in ((RPN_MSB, 0), (RPN_LSB, 0), (DATA_MSB, _MEMBER_BEND_RANGE), (DATA_LSB, 0)):
                    self._wheel(channel).control_change(0, number, value)
                    yield Event("control_change", (number, value), self._key(channel))
