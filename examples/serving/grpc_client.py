"""Plays a MIDI file on a served instrument, by gRPC. Needs mido and tensorflow-serving-api, which brings TensorFlow.

Usage: python grpc_client.py riff.mid riff.wav exported/instrument.json [ADDRESS [MODEL]].
"""

import json
import pathlib
import sys

import grpc
import tensorflow as tf
from midi_and_wav import read_midi, write_wav
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

# Unless told so, gRPC takes no answer longer than 4 MiB: 21 seconds at 48 kHz.
ANY_SIZE = [("grpc.max_receive_message_length", -1)]


def main(
    midi_path: str, wav_path: str, about_path: str, address: str = "localhost:8500", model: str = "guitar"
) -> None:
    """Plays the file and a second more, in which it rings out."""
    sample_rate = json.loads(pathlib.Path(about_path).read_text())["sample_rate"]
    rows, seconds = read_midi(midi_path)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    for name, values in rows.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto([values], tf.float32))
    n_samples = round((seconds + 1) * sample_rate)
    request.inputs["n_samples"].CopyFrom(tf.make_tensor_proto([n_samples], tf.int32))
    with grpc.insecure_channel(address, ANY_SIZE) as channel:
        try:
            answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=600)
        except grpc.RpcError as error:
            sys.exit(error.details())
    write_wav(wav_path, tf.make_ndarray(answer.outputs["audio"])[0, :n_samples].tolist(), sample_rate)


if __name__ == "__main__":
    main(*sys.argv[1:])
