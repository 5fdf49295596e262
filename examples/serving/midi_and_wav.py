"""What the clients read and write: a MIDI file as rows of numbers, and samples as a WAV. Plain Python, and mido."""

import struct
import wave

import mido

PADDING = -1e9  # A row at this time is ignored. Each list begins with one, so that none is empty.
SUSTAIN_PEDAL = 64


def read_midi(path: str) -> tuple[dict[str, list[list[float]]], float]:
    """Returns the rows of one instrument's notes, control changes and bends, and the second in which the file ends."""
    notes, changes, bends = [[PADDING] * 4], [[PADDING] * 3], [[PADDING] * 2]
    pressed = {}  # MIDI channel and pitch: the notes whose keys are down, oldest first, since the oldest ends first.
    pedalled = {}  # MIDI channel: the notes that the pedal holds, while it is down.
    time, values, bend_range = 0.0, {}, 2
    for message in mido.MidiFile(path):
        time += message.time
        if message.type == "note_on" and message.velocity:
            notes.append([time, None, message.note, message.velocity])
            pressed.setdefault((message.channel, message.note), []).append(notes[-1])
        elif message.type in ("note_on", "note_off") and pressed.get((message.channel, message.note)):
            note = pressed[message.channel, message.note].pop(0)
            if message.channel in pedalled:
                pedalled[message.channel].append(note)
            else:
                note[1] = time
        elif message.type == "control_change":
            changes.append([time, message.control, message.value])
            values[message.control] = message.value
            if message.control == SUSTAIN_PEDAL and message.value >= 64:
                pedalled.setdefault(message.channel, [])
            elif message.control == SUSTAIN_PEDAL:
                for note in pedalled.pop(message.channel, []):
                    note[1] = time
            elif message.control == 6 and values.get(101) == values.get(100) == 0:
                bend_range = message.value  # Semitones.
        elif message.type == "pitchwheel":
            bends.append([time, message.pitch / 8192 * bend_range])
    for note in notes:
        if note[1] is None:  # Nothing ended it.
            note[1] = time
    return {"notes": notes, "control_changes": changes, "pitch_bends": bends}, time


def write_wav(path: str, audio: list[float], sample_rate: int) -> None:
    """Writes samples in [-1, 1] as mono of 16 bits."""
    with wave.open(path, "wb") as file:
        file.setparams((1, 2, sample_rate, 0, "NONE", ""))
        file.writeframes(struct.pack(f"<{len(audio)}h", *(round(32767 * max(-1, min(x, 1))) for x in audio)))
