"""Plays a MIDI file on a served instrument, by REST. Plain Python, and mido to read the file.

Usage: python rest_client.py riff.mid riff.wav exported/instrument.json [URL].
"""

import json
import pathlib
import sys
import urllib.error
import urllib.request

from midi_and_wav import read_midi, write_wav

URL = "http://localhost:8501/v1/models/guitar"


def predict(url: str, row: dict[str, object], signature: str = "serving_default") -> list | dict:
    """Asks for one row and returns it: a list if the signature has one output, else a dict of them by name."""
    body = json.dumps({"signature_name": signature, "instances": [row]}).encode()
    try:
        with urllib.request.urlopen(f"{url}:predict", body) as answer:
            return json.load(answer)["predictions"][0]
    except urllib.error.HTTPError as error:
        sys.exit(json.load(error)["error"])


def main(midi_path: str, wav_path: str, about_path: str, url: str = URL) -> None:
    """Plays the file and a second more, in which it rings out."""
    sample_rate = json.loads(pathlib.Path(about_path).read_text())["sample_rate"]
    rows, seconds = read_midi(midi_path)
    n_samples = round((seconds + 1) * sample_rate)
    audio = predict(url, {**rows, "n_samples": n_samples})
    write_wav(wav_path, audio[:n_samples], sample_rate)


if __name__ == "__main__":
    main(*sys.argv[1:])
