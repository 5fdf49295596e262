"""Plays a slide over an octave on a served instrument, block by block: the server keeps nothing between the blocks.

Usage: python stream_client.py slide.wav exported/instrument.json [URL].
"""

import json
import pathlib
import sys

from midi_and_wav import write_wav
from rest_client import URL, predict

SECONDS = 4


def control_frame(channel: str, time: float) -> float:
    """Returns the value of a channel, in its unit, while one note slides up and its styles are at their fullest."""
    values = {
        "f0_midi": 40 + 12 * time / SECONDS,
        "velocity": 0.8,
        "gate": 1.0,
        "distance_from_onset": time,
        "distance_to_offset": SECONDS - time,
    }
    return values.get(channel, 1.0 if channel.startswith("cc_") else 0.0)


def main(wav_path: str, about_path: str, url: str = URL) -> None:
    """Plays and writes what came."""
    about = json.loads(pathlib.Path(about_path).read_text())
    block_frames = about["frame_rate"]  # A second. Any multiple of the instrument's "stride" will do.
    state, audio = predict(url, {"batch": 1}, "initial_state"), []
    for second in range(SECONDS):
        times = [second + i / about["frame_rate"] for i in range(block_frames)]
        frames = {channel: [[control_frame(channel, time)] for time in times] for channel in about["channels"]}
        state = predict(url, {**frames, **state}, "stream")
        audio += state.pop("audio")
    write_wav(wav_path, audio[about["latency"] :], about["sample_rate"])


if __name__ == "__main__":
    main(*sys.argv[1:])
