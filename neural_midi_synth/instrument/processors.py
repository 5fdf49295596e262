"""Processors wired in two graphs, one for each voice and one for the bus, and played block by block.

A processor is a ddsp `Processor` that keeps a small protocol, `BlockProcessor`: it says which network outputs it takes
and how late its signal is, and it plays one block at a time from the state that the block before left. So a clip is a
stream with one block. `nms.Harmonic`, `nms.FilteredNoise` and `nms.Reverb` are ddsp's with that protocol; ddsp's `Add`,
which needs no state, can be wired as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import ddsp
import gin
import numpy as np
import tensorflow as tf

from neural_midi_synth.instrument.controls import ONSET
from neural_midi_synth.instrument.harmonic import Banks, are_alike
from neural_midi_synth.instrument.recurrent import State
from neural_midi_synth.instrument.reverb import Reverb

F0, INHARMONICITY = "f0_hz", "inharmonicity"
GIVEN = (F0, INHARMONICITY, ONSET)
"""What processors may take besides network outputs and signals: the fundamental frequency in Hz, the inharmonicity
coefficient of its string, and where a note begins in the hop before a frame (-1 where none does)."""
AUDIBLE = "audible"
"""What the sum of the voices takes: 1 from the first frame that has had a note on, and 0 before, where a network has
nothing to go by and would make some noise or other."""

VOICE_OFFSET = 2654435769
"""From the sample index of one voice to that of the next, modulo 2^32. Noise is a function of the index, so voices have
different noise. This share of 2^32, the golden ratio's, keeps the stretches of any number of voices far apart."""

_WITHOUT_STATE = (ddsp.processors.Add,)


@runtime_checkable
class BlockProcessor(Protocol):
    """What a processor must have to be wired, besides being one of ddsp's.

    Attributes:
        name: Under which the graph finds it.
        parameters: The network outputs that `get_controls` takes: name of the argument → size of its last dimension.
            The decoder gets a head for each.
        lag: Hops by which the signal is behind the controls.
    """

    name: str
    parameters: dict[str, int]
    lag: int

    def initial_state(self, batch: int | tf.Tensor, first_sample: int | tf.Tensor) -> State:
        """The state before the first block: a dict of tensors `[batch, …]`, which may be empty.

        Args:
            batch: Batch size.
            first_sample: Index of the first sample, a scalar or `[batch]`.
        """
        ...

    def get_controls(self, *inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Network outputs, what is `GIVEN`, and signals to bounded controls with a meaning, by name."""
        ...

    def step(self, controls: dict[str, tf.Tensor], state: State) -> tuple[tf.Tensor, State]:
        """Controls of one block to its signal `[batch, n_frames * hop]` and the next state."""
        ...


@gin.configurable(module="nms")
class ProcessorGroup(ddsp.processors.ProcessorGroup):
    """ddsp's `ProcessorGroup` in two parts, played block by block.

    The processors of `voices` run for every voice by itself. Those of `bus` run once, on the sum: a key that names the
    signal of a voice processor stands there for its sum over the voices.

    Attributes:
        lag: Hops by which the signal is behind the controls.
        heads: The network outputs that the processors take, key in the graph → size.
        given: Which of `GIVEN` they take besides, and `AUDIBLE`.
    """

    def __init__(
        self,
        voices: Sequence[Sequence[Any]] | None = None,
        bus: Sequence[Sequence[Any]] = (),
        dag: Sequence[Sequence[Any]] | None = None,
        without_styles: Sequence[str] = (),
        name: str = "processor_group",
    ) -> None:
        """Wires the processors.

        Args:
            voices: Nodes as ddsp has them, `(processor, [key, …])`, each after those whose signals it takes. A key is
                a network output, `'f0_hz'`, or `'name/signal'` of a processor before.
            bus: The nodes that come after the sum.
            dag: The nodes of both in one list, as configs had them before there were voices: the bus begins with the
                first reverb. Where it is given, it goes before the other two.
            without_styles: Processors that are there for one of these styles are left out, as if they were silent.
            name: Name of the layer.

        Raises:
            ValueError: There is no node, a processor would play wrongly in blocks, a key is not there, signals that
                are not equally late come together, or one network output is asked for in two sizes.
        """
        if dag is not None:
            n_voices = next((i for i, node in enumerate(dag) if isinstance(node[0], Reverb)), len(dag))
            voices, bus = dag[:n_voices], dag[n_voices:]
        voices, bus = _without(without_styles, voices or (), bus)
        if not voices:
            raise ValueError("ProcessorGroup.voices: name at least one processor.")
        super().__init__(dag=[*voices, *bus], name=name)
        self._of_voices = tuple(node[0] for node in self.dag[: len(voices)])
        self.heads, self.lag = self._check()
        self._banks = self._together()
        keys = {key.removeprefix("inputs/") for node in self.dag for key in node[1]}
        self.given = (*(name for name in GIVEN if name in keys), AUDIBLE)

    def _check(self) -> tuple[dict[str, int], int]:
        """Checks the wiring; returns the network outputs that it takes, with their sizes, and the lag of the signal."""
        heads: dict[str, int] = {}
        lags: dict[str, int] = {}
        lag = 0
        for name, keys, *_ in self.dag:
            processor = getattr(self, name)
            keeps_nothing = isinstance(processor, _WITHOUT_STATE)
            if not keeps_nothing and not isinstance(processor, BlockProcessor):
                raise ValueError(
                    f"ProcessorGroup: '{name}' ({type(processor).__module__}.{type(processor).__name__}) has no state "
                    "to go from block to block with, so it would play wrongly. Use one of nms, or give it parameters, "
                    "lag, initial_state and step."
                )
            parameters = {} if keeps_nothing else processor.parameters
            arguments = inspect.signature(processor.get_controls).parameters
            signal_lags = set()
            for key, argument in zip((key.removeprefix("inputs/") for key in keys), arguments):
                if argument in parameters and "/" not in key:
                    if name not in self._of_voices:
                        raise ValueError(
                            f"ProcessorGroup: '{name}' is on the bus and takes the network output '{key}', which each "
                            "voice has one of. Put it into the voices."
                        )
                    if heads.setdefault(key, parameters[argument]) != parameters[argument]:
                        raise ValueError(
                            f"ProcessorGroup: '{name}' takes {parameters[argument]} values of '{key}', another "
                            f"processor {heads[key]}."
                        )
                elif "/" in key:
                    source = key.split("/")[0]
                    if source not in lags:
                        raise ValueError(f"ProcessorGroup: '{name}' takes '{key}', but no processor before it has it.")
                    signal_lags.add(lags[source])
                elif key not in GIVEN:
                    raise ValueError(
                        f"ProcessorGroup: '{name}' takes '{key}' as {argument}, which is neither among its parameters "
                        f"({', '.join(parameters)}) nor known of the notes ({', '.join(GIVEN)}). Leave it out, or "
                        "switch on what plays it."
                    )
            if len(signal_lags) > 1:
                raise ValueError(
                    f"ProcessorGroup: '{name}' takes signals that are {' and '.join(map(str, sorted(signal_lags)))} "
                    "hops late. Make those processors equally late."
                )
            lag = lags[name] = max(signal_lags, default=0) + (0 if keeps_nothing else processor.lag)
        return heads, lag

    def _together(self) -> dict[str, Banks]:
        """The banks whose signals are nothing but summed, by the name of what sums them."""
        keys_of = {name: [key.removeprefix("inputs/") for key in keys] for name, keys, *_ in self.dag}
        taken = [key for keys in keys_of.values() for key in keys]
        together = {}
        for name in self._of_voices:
            summed = [key.split("/")[0] for key in keys_of[name] if key.endswith("/signal") and taken.count(key) == 1]
            processors = [getattr(self, each) for each in summed]
            if len(summed) < 2 or type(getattr(self, name)) is not ddsp.processors.Add or not are_alike(processors):
                continue
            # As many keys are the same arguments.
            taken_by = {(len(keys_of[each]), *(key for key in keys_of[each] if key in GIVEN)) for each in summed}
            if len(taken_by) == 1:
                together[name] = Banks(processors)
        return together

    def initial_state(
        self, batch: int | tf.Tensor, voices: int | tf.Tensor = 1, first_sample: int | tf.Tensor = 0
    ) -> State:
        """The initial state of each processor that has one.

        Args:
            batch: Number of pieces.
            voices: Voices of each piece.
            first_sample: Index of the first sample, a scalar or `[batch]`.

        Returns:
            Processor name → its state; `[batch * voices, …]` before the sum, `[batch, …]` on the bus.
        """
        first_sample = tf.broadcast_to(tf.cast(first_sample, tf.int64), [batch])
        offsets = tf.range(tf.cast(voices, tf.int64)) * VOICE_OFFSET % 2**32
        of_voices = tf.reshape(first_sample[:, tf.newaxis] + offsets, [-1])
        states = {}
        for processor in self.processors:
            if not isinstance(processor, _WITHOUT_STATE):
                each = (batch * voices, of_voices) if processor.name in self._of_voices else (batch, first_sample)
                states[processor.name] = processor.initial_state(*each)
        return states

    def call(
        self,
        inputs: dict[str, tf.Tensor],
        state: State | None = None,
        voices: int | tf.Tensor = 1,
        return_outputs_dict: bool = False,
    ) -> Any:
        """As the call of a Keras layer, in which processors may add losses: with a state `step`, else ddsp's call."""
        if state is None:
            return super().call(inputs, return_outputs_dict)
        return self.step(inputs, state, voices)

    def step(
        self, inputs: dict[str, tf.Tensor], state: State, voices: int | tf.Tensor = 1
    ) -> tuple[dict[str, Any], State]:
        """Runs both graphs over one block.

        Args:
            inputs: Network outputs and what is `given` by name, `[batch * voices, n_frames, …]`; the voices of a piece
                follow each other. Where `audible` is among them, the sum leaves out the hops before frames at 0.
            state: Of the block before.
            voices: Voices of each piece.

        Returns:
            The outputs of each processor as `{'controls', 'signal'}` by name, the last one's as 'out', where the
            signal is `[batch, n_frames * hop]`; and the next state. Harmonics whose signals are nothing but summed are
            played as one, and have no 'signal'.
        """
        return self.run(inputs, state, _step, voices)

    def run(
        self,
        inputs: dict[str, tf.Tensor],
        state: State,
        step: Callable[[Any, dict[str, tf.Tensor], State], tuple[tf.Tensor, State]],
        voices: int | tf.Tensor = 1,
    ) -> tuple[dict[str, Any], State]:
        """As `step`, for those that compute the steps of processors in another way.

        Args:
            inputs: As for `step`.
            state: As for `step`.
            step: Takes a processor, or harmonics that are played as one, its controls and its state; returns its
                signal and the next state.
            voices: As for `step`.

        Returns:
            As `step`.
        """
        outputs: dict[str, Any] = dict(inputs, inputs=inputs)
        audible = inputs.get(AUDIBLE)
        next_state: State = {}
        in_banks = {name for banks in self._banks.values() for name in banks.names}
        for name, keys, *_ in self.dag:
            if name in self._banks:
                banks = self._banks[name]
                controls = {each: outputs[each]["controls"] for each in banks.names}
                signal, of_banks = step(banks, controls, {each: state[each] for each in banks.names})
                next_state |= of_banks
                outputs["out"] = outputs[name] = {"controls": controls, "signal": signal}
                continue
            taken = [ddsp.core.nested_lookup(key, outputs) for key in keys]
            if name not in self._of_voices:
                from_voices = (key.split("/")[0] in self._of_voices for key in keys)
                taken = [_mixed(each, voices, audible) if of else each for each, of in zip(taken, from_voices)]
            processor = getattr(self, name)
            controls = processor.get_controls(*taken)
            if name in in_banks:
                outputs[name] = {"controls": controls}
                continue
            if name in state:
                signal, next_state[name] = step(processor, controls, state[name])
            else:
                signal = processor.get_signal(**controls)
            outputs["out"] = outputs[name] = {"controls": controls, "signal": signal}
        if name in self._of_voices:
            outputs["out"] = {"controls": controls, "signal": _mixed(signal, voices, audible)}
        return outputs, next_state


def _without(styles: Sequence[str], *graphs: Sequence[Sequence[Any]]) -> list[list[Sequence[Any]]]:
    """Leaves out what is there for some styles, and what would then add up one signal, which stands in its place."""
    instead: dict[str, str | None] = {}
    left: list[list[Sequence[Any]]] = []
    for graph in graphs:
        left.append([])
        for processor, keys, *rest in graph:
            signal, taken = f"{processor.name}/signal", [instead.get(key, key) for key in keys]
            signals = [key for key in taken if key is not None]
            if getattr(processor, "style", None) in {*styles}:
                instead[signal] = None
            elif type(processor) is ddsp.processors.Add and len(signals) < 2:
                instead[signal] = signals[0] if signals else None
            elif len(signals) == len(keys):
                left[-1].append((processor, signals, *rest))
            else:
                raise ValueError(
                    f"ProcessorGroup.without_styles: '{processor.name}' takes the signal of what is left out."
                )
    return left


def _step(processor: BlockProcessor, controls: dict[str, tf.Tensor], state: State) -> tuple[tf.Tensor, State]:
    return processor.step(controls, state)


def _mixed(signal: tf.Tensor, voices: int | tf.Tensor, audible: tf.Tensor | None) -> tf.Tensor:
    """The sum over the voices of each piece: `[batch * voices, n_samples]` to `[batch, n_samples]`."""
    if audible is not None:
        hops = tf.reshape(signal, tf.concat([tf.shape(audible)[:2], [-1]], axis=0))
        signal = tf.reshape(hops * audible, tf.shape(signal))
    if isinstance(voices, (int, np.integer)) and voices == 1:
        return signal
    return tf.reduce_sum(tf.reshape(signal, [-1, voices, tf.shape(signal)[1]]), axis=1)
