"""The channels of control frames as a client sees them: range, unit and meaning."""

from __future__ import annotations

import dataclasses

from neural_midi_synth.instrument.instrument import Instrument

_DAY = 86400.0  # The longest distance, s.


@dataclasses.dataclass(frozen=True)
class Channel:
    """What a channel of control frames is.

    Attributes:
        minimum: Lowest value; lower ones are clipped.
        maximum: Highest value; higher ones are clipped.
        unit: Of its values.
        meaning: In words.
    """

    minimum: float
    maximum: float
    unit: str
    meaning: str


_CHANNELS = {
    "f0_midi": Channel(0.0, 127.0, "MIDI note number", "pitch, fractional where bent, held after a note ends"),
    "velocity": Channel(0.0, 1.0, "velocity / 127", "loudness of the newest note, held after it ends"),
    "gate": Channel(0.0, 1.0, "", "1 while a note lasts, else 0"),
    "distance_from_onset": Channel(0.0, _DAY, "s", "since the note began, 0 when none lasts"),
    "distance_to_offset": Channel(0.0, _DAY, "s", "until the note ends, 0 when none lasts"),
    "onset": Channel(-1.0, 1.0, "hops", "where a note began in the hop before the frame; -1 where none did"),
    "distance_from_offset": Channel(0.0, _DAY, "s", "since the note ended, 0 while one lasts; 100 before the first"),
}


def channel_facts(instrument: Instrument) -> dict[str, Channel]:
    """What the channels of an instrument are, by name, in its order."""
    styles = {f"cc_{number}": style for style, number in instrument.styles.items()}
    facts = {}
    for name in instrument.controls.channels:
        of = f", {styles[name]}" if name in styles else ""
        control_change = Channel(0.0, 1.0, "value / 127", f"control change {name[3:]}{of}")
        facts[name] = _CHANNELS.get(name, control_change)
    return facts
