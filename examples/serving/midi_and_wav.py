"""What the clients read and write: a MIDI file as rows of numbers, and samples as a WAV. Plain Python, and mido."""

import struct
import wave

import mido

PADDING = -1e9  # A row at this time is ignored. Each list begins with one, so that none is empty.


def read_midi(path: str) -> tuple[dict[str, list[list[float]]], float]:
    """Returns the rows of one instrument's notes, control changes and bends, and the second in which the file ends."""
    notes, changes, bends = [[PADDING] * 4], [[PADDING] * 3], [[PADDING] * 2]
    time, sounding, values, bend_range = 0.0, {}, {}, 2
    for message in mido.MidiFile(path):
        time += message.time
        if message.type in ("note_on", "note_off") and message.note in sounding:
            sounding.pop(message.note)[1] = time
        if message.type == "note_on" and message.velocity:
            notes.append([time, time + 1, message.note, message.velocity])  # A second, if it never ends.
            sounding[message.note] = notes[-1]
        elif message.type == "control_change":
            changes.append([time, message.control, message.value])
            values[message.control] = message.value
            if message.control == 6 and values.get(101) == values.get(100) == 0:
                bend_range = message.value  # Semitones.
        elif message.type == "pitchwheel":
            bends.append([time, message.pitch / 8192 * bend_range])
    # The newest note is heard, and of a chord the last row: the highest note.
    notes.sort(key=lambda note: (note[0], note[2]))
    return {"notes": notes, "control_changes": changes, "pitch_bends": bends}, time


def write_wav(path: str, audio: list[float], sample_rate: int) -> None:
    """Writes samples in [-1, 1] as mono of 16 bits."""
    with wave.open(path, "wb") as file:
        file.setparams((1, 2, sample_rate, 0, "NONE", ""))
        file.writeframes(struct.pack(f"<{len(audio)}h", *(round(32767 * max(-1, min(x, 1))) for x in audio)))
