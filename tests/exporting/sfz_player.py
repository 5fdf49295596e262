"""Plays a piece with sfizz, a sampler, as a DAW would."""

import numpy as np
import soundfile

BLOCK = 32
BEND_SEMITONES = 2.0


def play(sfz, piece, sample_rate, n_samples):
    """Sound of the left side, float32 `[n_samples]`; all voices' notes, and the first one's controls."""
    from pysfizz.synth import Synth

    player = Synth(sample_rate, BLOCK)
    # Read whole beforehand: where the machine is busy, what is read while it plays comes too late and is silence.
    in_memory = sfz.with_name(f"in_memory_{sfz.name}")
    in_memory.write_text(f"<control> hint_ram_based=1\n{sfz.read_text()}")
    assert player.load_sfz_file(str(in_memory))
    in_memory.unlink()
    synth = player._synth  # What of sfizz is for events within a block.
    synth.set_num_voices(256)
    controls = piece.voices[0]
    events = [(time, 0, synth.cc, int(number), round(value)) for time, number, value in controls.control_changes]
    events += [
        (time, 0, synth.pitch_wheel, round(8191 * semitones / BEND_SEMITONES))
        for time, semitones in controls.pitch_bends
    ]
    for start, end, pitch, velocity in piece.notes:
        events += [(end, 1, synth.note_off, int(pitch), 0), (start, 2, synth.note_on, int(pitch), int(velocity))]
    events.sort(key=lambda event: event[:2])
    blocks = []
    for first in range(0, n_samples, BLOCK):
        while events and (sample := round(events[0][0] * sample_rate)) < first + BLOCK:
            _, _, send, *values = events.pop(0)
            send(max(sample - first, 0), *values)
        blocks.append(np.array(synth.render_block()[0]))
    return np.concatenate(blocks)[:n_samples]


def gain(folder, sample_rate):
    """What sfizz makes of a mono sample at full level, on one side: its pan and its own volume."""
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(sample_rate) / sample_rate)
    soundfile.write(folder / "tone.flac", tone, sample_rate)
    (folder / "tone.sfz").write_text("<region> sample=tone.flac pitch_keycenter=69 amp_veltrack=0\n")
    from neural_midi_synth.midi.pieces import Piece, Voice

    piece = Piece((Voice(np.array([(0.0, 1.0, 69, 100)])),))
    played = play(folder / "tone.sfz", piece, sample_rate, sample_rate // 2)
    return np.std(played[sample_rate // 4 :]) / np.std(tone)
