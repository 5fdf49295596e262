"""A client that has TensorFlow and nothing else of what instruments are made with: run by saved_model_test.

plain_tensorflow.py MODEL REQUESTS ANSWERS plays what REQUESTS (npz, 'signature/input') asks for and writes ANSWERS
(npz, 'signature/output'). The request for 'stream' is cut into blocks of `stream/block_frames` frames.
"""

import importlib.abc
import sys

import numpy as np

ABSENT = ("neural_midi_synth", "ddsp", "gin", "tf_keras", "tensorflow_probability", "note_seq")


class Absent(importlib.abc.MetaPathFinder):
    """Finds none of what is to be absent, and nobody after it does."""

    def find_spec(self, name, path=None, target=None):
        """Raises for what is to be absent."""
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


def play(model, requests):
    """Answers each signature's request, and streams the last one from its initial state."""
    import tensorflow as tf

    signatures = tf.saved_model.load(model).signatures
    answers = {}
    for signature in ("serving_default", "control_frames"):
        inputs = {key.partition("/")[2]: tf.constant(requests[key]) for key in requests if key.startswith(signature)}
        answers[signature] = signatures[signature](**inputs)["audio"].numpy()
    frames = {key.partition("/")[2]: requests[key] for key in requests if key.startswith("stream")}
    n_block = int(frames.pop("block_frames"))
    batch, n_frames, _ = next(iter(frames.values())).shape
    state = signatures["initial_state"](batch=tf.constant([1] * batch))  # Each on its own, not as voices.
    blocks = []
    for begin in range(0, n_frames, n_block):
        block = {name: tf.constant(values[:, begin : begin + n_block]) for name, values in frames.items()}
        state = dict(signatures["stream"](**block, **state))
        blocks.append(state.pop("audio").numpy())
    answers["stream"] = np.concatenate(blocks, axis=1)
    return answers


def main():
    sys.meta_path.insert(0, Absent())
    model, requests, answers = sys.argv[1:]
    with np.load(requests) as file:
        np.savez(answers, **play(model, dict(file)))
    assert not set(ABSENT) & set(sys.modules)


if __name__ == "__main__":
    main()
