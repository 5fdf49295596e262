"""A stand-in for TensorFlow Serving: answers its REST and gRPC predict requests from a SavedModel, in this process.

It follows the server's documentation (https://www.tensorflow.org/tfx/serving/api_rest) to the letter where clients can
go wrong: the shape of a tensor is read off its first elements, whole numbers and decimals are different things, what
loses precision is refused, and answers are written as the server writes them, digit for digit and blank for blank.
"""

import base64
import binascii
import contextlib
import http.server
import json
import math
import re
import threading
from concurrent import futures

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

_PREDICT = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+))?:predict")
_INTEGERS = (tf.int8, tf.uint8, tf.int16, tf.int32, tf.int64, tf.uint32, tf.uint64)
_WHOLE_IN_FLOAT = 2**24 - 1


class RequestError(Exception):
    """What the server answers with an error: HTTP status, gRPC status code, message."""

    def __init__(self, message, http_status=400, grpc_status=grpc.StatusCode.INVALID_ARGUMENT):
        super().__init__(message)
        self.http_status = http_status
        self.grpc_status = grpc_status


class Served:
    """A model by its name, and what it was asked.

    Attributes:
        requests: Bodies of the REST requests and PredictRequests, in order.
        answers: Size of each answer in bytes.
    """

    def __init__(self, folder, name="guitar"):
        """Loads the newest version.

        Args:
            folder: Has a folder for each version, named by a number.
            name: That clients ask for.
        """
        versions = [path for path in folder.iterdir() if path.name.isdigit()]
        self.path = max(versions, key=lambda path: int(path.name))
        self.name = name
        self.version = int(self.path.name)
        self.requests, self.answers = [], []
        self._model = tf.saved_model.load(str(self.path))

    def check(self, name, version=None):
        """Raises if this is not the model that is asked for."""
        if name != self.name or version not in (None, self.version):
            asked = f"Specific({name}, {version})" if version else f"Latest({name})"
            raise RequestError(f"Servable not found for request: {asked}", 404, grpc.StatusCode.NOT_FOUND)

    def inputs_of(self, signature):
        """Returns the inputs of a signature: name → TensorSpec."""
        if signature not in self._model.signatures:
            raise RequestError(f'Serving signature key "{signature}" not found.')
        return self._model.signatures[signature].structured_input_signature[1]

    def run(self, signature, inputs):
        """Runs a signature.

        Args:
            signature: Its name.
            inputs: Name → array, all of them and no other, of the very dtype.

        Returns:
            Name → array.
        """
        specs = self.inputs_of(signature)
        if set(inputs) != set(specs):
            raise RequestError(f"input size does not match signature: {len(inputs)}!={len(specs)}")
        for name, spec in specs.items():
            if inputs[name].dtype != spec.dtype.as_numpy_dtype:
                raise RequestError(f"Expects {name} to be {spec.dtype.name} but {inputs[name].dtype} is provided")
            if not spec.shape.is_compatible_with(inputs[name].shape):
                raise RequestError(f"Shape {list(inputs[name].shape)} of {name} is not {spec.shape}")
        try:
            outputs = self._model.signatures[signature](**{name: tf.constant(inputs[name]) for name in specs})
        except tf.errors.InvalidArgumentError as error:
            raise RequestError(error.message) from error
        return {name: value.numpy() for name, value in outputs.items()}

    def run_together(self, signature, requests):
        """Runs several requests as one batch, as the server does when it is told to batch and to pad.

        A shorter tensor is filled up with its own first element, and every request gets its rows of the outputs.

        Args:
            signature: Name of the signature.
            requests: Inputs of each, as for `run`.

        Returns:
            The outputs of each.
        """
        merged = {}
        for name in requests[0]:
            tensors = [request[name] for request in requests]
            if any(tensor.ndim < 1 for tensor in tensors):
                raise RequestError("Batching session Run() input tensors must have at least one dimension")
            longest = np.max([tensor.shape[1:] for tensor in tensors], axis=0)
            padded = []
            for tensor in tensors:
                missing = [(0, 0), *((0, int(most) - size) for most, size in zip(longest, tensor.shape[1:]))]
                if np.any(missing) and not tensor.size:
                    raise RequestError("Got empty tensor in batch of non-empty tensors.")
                padded.append(np.pad(tensor, missing, constant_values=tensor.flat[0]) if np.any(missing) else tensor)
            merged[name] = np.concatenate(padded)
        sizes = {len(tensor) for tensor in merged.values()}
        if len(sizes) > 1:
            raise RequestError("Batching session Run() input tensors must have equal 0th-dimension size")
        outputs = self.run(signature, merged)
        if any(np.ndim(value) < 1 or len(value) not in sizes for value in outputs.values()):
            raise RequestError(
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input"
                " tensors"
            )
        ends = np.cumsum([len(next(iter(request.values()))) for request in requests])[:-1]
        split = {name: np.split(value, ends) for name, value in outputs.items()}
        return [{name: parts[i] for name, parts in split.items()} for i in range(len(requests))]


def predict_json(served, body):
    """Answers the body of a REST predict request with the body of the answer, both text."""
    try:
        request = json.loads(body)
    except ValueError as error:
        raise RequestError(f"JSON Parse error: {error}") from error
    if not isinstance(request, dict):
        raise RequestError(f"JSON Value: {request} Is not object")
    signature = request.get("signature_name", "serving_default")
    if not isinstance(signature, str):
        raise RequestError("'signature_name' key must be a string value.")
    specs = served.inputs_of(signature)
    if ("instances" in request) == ("inputs" in request):
        raise RequestError("Expecting one of 'inputs' or 'instances' keys to exist")
    if "instances" in request:
        inputs = _rows(request["instances"], specs)
    else:
        inputs = _columns(request["inputs"], specs)
    return _answer(served.run(signature, inputs), by_row="instances" in request)


def inputs_of_json(served, body):
    """Returns signature name and tensors of a REST predict request in row form."""
    request = json.loads(body)
    signature = request.get("signature_name", "serving_default")
    return signature, _rows(request["instances"], served.inputs_of(signature))


def _rows(instances, specs):
    if not isinstance(instances, list) or not instances:
        raise RequestError("Expecting 'instances' to be a list that is not empty")
    named = [isinstance(instance, dict) and not _is_base64(instance) for instance in instances]
    if any(named) != all(named) or (len(specs) > 1 and not all(named)):
        raise RequestError("Expecting objects in 'instances', one for each row, or values and lists, but not both")
    if not all(named):
        instances = [{name: instance for name in specs} for instance in instances]
    for i, instance in enumerate(instances):
        if set(instance) != set(specs):
            raise RequestError(f"Failed to process element: {i} keys must be equal to: {','.join(sorted(specs))}")
    tensors = {}
    for name, spec in specs.items():
        rows = [_tensor(name, instance[name], spec.dtype) for instance in instances]
        if len({row.shape for row in rows}) > 1:
            raise RequestError(f"Failed to process '{name}': Expecting shape {rows[0].shape}, but got others")
        tensors[name] = np.stack(rows)
    return tensors


def _columns(inputs, specs):
    if not isinstance(inputs, dict) or _is_base64(inputs):
        if len(specs) > 1:
            raise RequestError("inputs is a plain value/list, but expecting an object")
        inputs = {name: inputs for name in specs}
    for name in specs:
        if name not in inputs:
            raise RequestError(f"Missing named input: {name} in 'inputs' object.")
    return {name: _tensor(name, inputs[name], spec.dtype) for name, spec in specs.items()}


def _tensor(name, value, dtype):
    """Of nested lists; their shape is that of the first elements, so that an empty list ends it."""
    shape, first = [], value
    while isinstance(first, list):
        shape.append(len(first))
        if not first:
            break
        first = first[0]
    flat = []

    def fill(value, level):
        if not isinstance(value, list):
            if level != len(shape):
                raise RequestError(f"'{name}': JSON Value: {value} found at incorrect level: {level + 1}")
            flat.append(_number(name, value, dtype))
        elif level >= len(shape) or len(value) != shape[level]:
            raise RequestError(f"'{name}': Encountered list at unexpected size: {len(value)} at level: {level}")
        else:
            for element in value:
                fill(element, level + 1)

    fill(value, 0)
    return np.array(flat, dtype.as_numpy_dtype).reshape(shape)


def _number(name, value, dtype):
    if dtype == tf.string:
        if isinstance(value, str):
            return value.encode()
        if _is_base64(value):
            with contextlib.suppress(binascii.Error):
                return base64.b64decode(value["b64"], validate=True)
            raise RequestError("Unable to base64 decode")
    elif dtype == tf.bool:
        if isinstance(value, bool):
            return value
    elif dtype in (tf.float32, tf.float64):
        if isinstance(value, int) and not isinstance(value, bool):
            if dtype == tf.float32 and abs(value) > _WHOLE_IN_FLOAT:
                raise RequestError(f"'{name}': Cannot convert JSON value: {value} to float without loss of precision.")
            return value
        if isinstance(value, float):
            if math.isfinite(value) and abs(value) > dtype.max:
                raise RequestError(f"'{name}': Cannot convert JSON value: {value} to float without loss of precision.")
            return value
    elif dtype in _INTEGERS and isinstance(value, int) and not isinstance(value, bool):
        if dtype.min <= value <= dtype.max:
            return value
    raise RequestError(f"'{name}': JSON Value: {value} is not of expected type: {dtype.name}")


def _is_base64(value):
    return isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)


def _answer(outputs, by_row):
    """By row, lists are written on one line; by column, each number gets a line of its own."""
    named = len(outputs) > 1
    if not by_row:
        columns = {name: _text(value, name, lines_at=1 + named) for name, value in outputs.items()}
        content = _object(columns, 1) if named else next(iter(columns.values()))
        return f'{{\n    "outputs": {content}\n}}'
    sizes = {value.shape[:1] for value in outputs.values()}
    if len(sizes) > 1 or () in sizes:
        raise RequestError(f"Tensors have inconsistent batch sizes: {sorted(sizes)}")
    rows = []
    for i in range(next(iter(sizes))[0]):
        row = {name: _text(value[i], name) for name, value in outputs.items()}
        rows.append(_object(row, 2) if named else next(iter(row.values())))
    return f'{{\n    "predictions": [{", ".join(rows)}\n    ]\n}}'


def _object(members, level):
    indent = "\n" + "    " * (level + 1)
    content = ",".join(f"{indent}{json.dumps(name)}: {text}" for name, text in sorted(members.items()))
    return f"{{{content}\n{'    ' * level}}}"


def _text(values, name, lines_at=None):
    if values.ndim:
        inner = None if lines_at is None else lines_at + 1
        elements = [_text(value, name, inner) for value in values]
        if lines_at is None or not elements:
            return f"[{', '.join(elements)}]"
        indent = "\n" + "    " * inner
        return f"[{indent}{f',{indent}'.join(elements)}\n{'    ' * lines_at}]"
    value = values.item()
    if isinstance(value, bytes):
        if name.endswith("_bytes"):
            return json.dumps({"b64": base64.b64encode(value).decode()})
        return json.dumps(value.decode())
    if isinstance(value, float):
        return _decimal(values)
    return json.dumps(value)


def _decimal(value):
    """As few digits as give the number back, and a point or an exponent."""
    if not np.isfinite(value):
        return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    text = f"{value:.6g}"
    if value.dtype.type(text) != value:
        text = f"{value:.{9 if value.dtype == np.float32 else 17}g}"
    return text if "." in text or "e" in text else text + ".0"


@contextlib.contextmanager
def rest_server(served):
    """Serves REST on a port of this machine while the context lasts; gives the URL that ends in the model's name."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            served.requests.append(body)
            try:
                asked = _PREDICT.fullmatch(self.path)
                if asked is None:
                    raise RequestError("Malformed request: POST " + self.path)
                served.check(asked[1], int(asked[2]) if asked[2] else None)
                self._send(200, predict_json(served, body))
            except RequestError as error:
                self._send(error.http_status, json.dumps({"error": str(error)}))

        def _send(self, status, text):
            content = text.encode()
            served.answers.append(len(content))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            """Says nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/models/{served.name}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, served):
        self._served = served

    def Predict(self, request, context):  # noqa: N802  (the service's name)
        served = self._served
        served.requests.append(request)
        try:
            served.check(request.model_spec.name, request.model_spec.version.value or None)
            signature = request.model_spec.signature_name or "serving_default"
            inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
            outputs = served.run(signature, inputs)
        except RequestError as error:
            context.abort(error.grpc_status, str(error))
        answer = predict_pb2.PredictResponse()
        answer.model_spec.name, answer.model_spec.signature_name = served.name, signature
        answer.model_spec.version.value = served.version
        for name, value in outputs.items():
            # The server writes numbers into the typed fields, not into tensor_content.
            tensor = tf.make_tensor_proto(value)
            if value.dtype == np.float32:
                tensor.ClearField("tensor_content")
                tensor.ClearField("float_val")
                tensor.float_val.extend(value.ravel().tolist())
            answer.outputs[name].CopyFrom(tensor)
        served.answers.append(answer.ByteSize())
        return answer


@contextlib.contextmanager
def grpc_server(served):
    """Serves gRPC on a port of this machine while the context lasts; gives host and port."""
    # The server takes messages of any size; what a client takes is the client's affair.
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2), options=options)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_PredictionService(served), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
