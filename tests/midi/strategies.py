"""Music that hypothesis makes up."""

import hypothesis.strategies as st
import numpy as np

from neural_midi_synth.midi.pieces import Voice

# Seconds; fifteen ticks at 120 beats a minute, and differences of its multiples are not rounded.
STEP = 1.0 / 128.0


@st.composite
def voices(draw) -> Voice:
    """Voices without sustain pedal or registered parameters, in time steps that are exact in ticks and in binary."""
    times = sorted(draw(st.sets(st.integers(0, 4_000), min_size=2, max_size=24)))
    notes = [
        (start, draw(st.integers(start + 1, end)), draw(st.integers(0, 127)), draw(st.integers(1, 127)))
        for start, end in zip(times[:-1], times[1:], strict=True)
        if draw(st.booleans())
    ] or [(0, 1, 60, 100)]
    numbers = st.sampled_from([1, 7, 11, 55, 56, 74])
    last = int(notes[-1][1])
    changes = draw(st.lists(st.tuples(st.integers(0, last), numbers, st.integers(0, 127)), max_size=20))
    bends = draw(st.lists(st.tuples(st.integers(0, last), st.floats(-24.0, 24.0)), max_size=20))
    return Voice(
        np.array(notes) * [STEP, STEP, 1, 1],
        np.array(changes).reshape([-1, 3]) * [STEP, 1, 1],
        np.array(bends).reshape([-1, 2]) * [STEP, 1],
    )
