"""What is changed in a LiteRT model after TensorFlow's converter: copies that take time, and how weights are stored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from neural_midi_synth.exporting.litert_convolution import HALF_FROM


def improved(model: bytes) -> bytes:
    """Makes a model quicker, and half as large.

    Args:
        model: As the converter makes it.

    Returns:
        The same model with slices that are copied at once, fewer changes of shape, and weights in half precision.
    """
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
    _have_slices_at_once(model)
    _have_fewer_shapes(model)
    _have_half_weights(model)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _have_slices_at_once(model: schema.ModelT) -> None:
    """Replaces Python's slices, which LiteRT copies number by number, by its own, which it copies at once."""
    codes = {name: len(model.operatorCodes) + i for i, name in enumerate(("SLICE", "RESHAPE"))}
    model.operatorCodes += [_operator_code(name) for name in codes]
    for graph in model.subgraphs:
        operators = []
        for operator in graph.operators:
            place = _slice_of(model, graph, operator)
            if place is None:
                operators.append(operator)
                continue
            source, result = operator.inputs[0], operator.outputs[0]
            begin, size = place
            shape = list(graph.tensors[result].shape)
            if size != list(graph.tensors[source].shape):
                part = result if size == shape else _appended(graph, graph.tensors[result], size)
                places = [_constant(model, graph, numbers) for numbers in (begin, size)]
                operators.append(_operator(codes["SLICE"], [source, *places], part))
                source = part
            if source != result:
                operators.append(_operator(codes["RESHAPE"], [source, _constant(model, graph, shape)], result))
        graph.operators = operators


def _have_fewer_shapes(model: schema.ModelT) -> None:
    """Leaves out changes of shape that change nothing, or that are changed again."""
    for graph in model.subgraphs:
        same: dict[int, int] = {}  # As a tensor, the one it has its numbers and its shape from.
        reshaped: dict[int, int] = {}  # And the one it has its numbers from.
        for operator in graph.operators:
            operator.inputs = [same.get(i, i) for i in operator.inputs]
            if _code_of(model, operator) == schema.BuiltinOperator.RESHAPE:
                (result,) = operator.outputs
                source = reshaped[result] = reshaped.get(operator.inputs[0], operator.inputs[0])
                operator.inputs[0] = source
                if list(graph.tensors[source].shape) == list(graph.tensors[result].shape):
                    same[result] = source
        needed = set(graph.outputs)
        operators = []
        for operator in reversed(graph.operators):
            if needed.intersection(operator.outputs):
                operators.append(operator)
                needed.update(operator.inputs)
        graph.operators = operators[::-1]


def _slice_of(
    model: schema.ModelT, graph: schema.SubGraphT, operator: schema.OperatorT
) -> tuple[list[int], list[int]] | None:
    """Begin and size of what a slice takes; None where the operator is none, or has a step."""
    if _code_of(model, operator) != schema.BuiltinOperator.STRIDED_SLICE:
        return None
    options, shape = operator.builtinOptions, list(graph.tensors[operator.inputs[0]].shape)
    numbers = [model.buffers[graph.tensors[i].buffer].data for i in operator.inputs[1:]]
    if options.ellipsisMask or any(each is None for each in numbers):
        return None
    begins, ends, strides = (np.frombuffer(bytes(each), np.int32) for each in numbers)
    begin, size = [0] * len(shape), list(shape)
    axis = 0
    for i, (first, end, stride) in enumerate(zip(begins, ends, strides)):
        if options.newAxisMask >> i & 1:
            continue
        is_one = bool(options.shrinkAxisMask >> i & 1)
        if stride != 1 and not is_one:
            return None
        n = shape[axis]
        first = 0 if options.beginMask >> i & 1 else int(first)
        first = first % n if is_one else slice(first, None).indices(n)[0]
        last = first + 1 if is_one else n if options.endMask >> i & 1 else slice(0, int(end)).indices(n)[1]
        begin[axis], size[axis] = first, last - first
        axis += 1
    return begin, size


def _have_half_weights(model: schema.ModelT) -> None:
    """Stores the weights in half precision.

    The converter would do that to each and every constant, 2π among them; the library ai-edge-quantizer chooses weights
    by their size, but leaves biases as they are (see `_weights`).
    """
    code = len(model.operatorCodes)
    model.operatorCodes.append(_operator_code("DEQUANTIZE", version=3))  # from float16
    for graph in model.subgraphs:
        for i in _weights(model, graph):
            tensor = graph.tensors[i]
            buffer = model.buffers[tensor.buffer]
            if len(buffer.data) == 4 * np.prod(tensor.shape):  # Others may share it.
                buffer.data = np.frombuffer(bytes(buffer.data), np.float32).astype(np.float16).view(np.uint8)
            half = schema.TensorT()
            half.name, half.shape = tensor.name + b"/half", tensor.shape
            half.type, half.buffer = schema.TensorType.FLOAT16, tensor.buffer
            graph.tensors.append(half)
            tensor.buffer = 0  # the empty one
            graph.operators.insert(0, _operator(code, [len(graph.tensors) - 1], i))


def _weights(model: schema.ModelT, graph: schema.SubGraphT) -> list[int]:
    """The tensors to be stored in half precision: large constants, and the biases that are added to their products.

    Browsers multiply by half weights quickly, by XNNPACK, only where the bias is half, too.
    """
    computed = {tensor for operator in graph.operators for tensor in operator.outputs}
    large = {
        i
        for i, tensor in enumerate(graph.tensors)
        if tensor.type == schema.TensorType.FLOAT32
        and i not in computed
        and model.buffers[tensor.buffer].data is not None  # It is none of an input.
        and np.prod(tensor.shape) >= HALF_FROM
    }
    layers = [
        operator.inputs
        for operator in graph.operators
        if _code_of(model, operator) == schema.BuiltinOperator.FULLY_CONNECTED
    ]
    biases = {inputs[2] for inputs in layers if inputs[1] in large and len(inputs) > 2 and inputs[2] >= 0}
    return sorted(large | biases)


def _code_of(model: schema.ModelT, operator: schema.OperatorT) -> int:
    return model.operatorCodes[operator.opcodeIndex].builtinCode


def _operator_code(name: str, version: int = 1) -> schema.OperatorCodeT:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
    code.version = version
    return code


def _operator(code: int, inputs: list[int], output: int) -> schema.OperatorT:
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = code, inputs, [output]
    return operator


def _appended(graph: schema.SubGraphT, like: schema.TensorT, shape: list[int]) -> int:
    """The index of a new tensor that is computed, of another one's type."""
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = like.name + b"/part", shape, like.type, 0
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _constant(model: schema.ModelT, graph: schema.SubGraphT, numbers: Sequence[int]) -> int:
    """The index of a new tensor that holds whole numbers."""
    buffer, tensor = schema.BufferT(), schema.TensorT()
    buffer.data = np.asarray(numbers, np.int32).view(np.uint8)
    model.buffers.append(buffer)
    tensor.name, tensor.shape = b"numbers", [len(numbers)]
    tensor.type, tensor.buffer = schema.TensorType.INT32, len(model.buffers) - 1
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1
