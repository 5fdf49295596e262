"""The harmonic oscillator bank: ddsp's, with a phase that never drifts, stiff strings, and onsets to the sample."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any

import ddsp
import gin
import numpy as np
import tensorflow as tf

from neural_midi_synth.instrument.controls import ATTACK
from neural_midi_synth.instrument.oscillators import Oscillators, frames_first, turn
from neural_midi_synth.instrument.recurrent import State
from neural_midi_synth.instrument.white_noise import white_noise

_MOVEMENT_SECONDS = 0.128
"""For how long what moves a harmonic is much the same: it moves some ten times a second at most."""


@tf.custom_gradient
def exp_sigmoid(x: tf.Tensor) -> Any:
    """The `exp_sigmoid` of ddsp, 2 sigmoid(x)^log(10) + 1e-7, and its gradient, without powers, which take longer."""
    sigmoid = tf.sigmoid(x)
    power = 2.0 * tf.exp(math.log(10.0) * tf.math.log(sigmoid))
    return power + 1e-7, lambda upstream: upstream * power * (math.log(10.0) * (1.0 - sigmoid))


@gin.configurable(module="nms")
class Harmonic(ddsp.synths.Harmonic):
    """A bank of harmonic oscillators on one phase.

    The sum of ddsp's `Harmonic`, computed another way (`oscillators`). The phase is counted in 2³² steps a cycle and
    wraps exactly, so it neither drifts nor blurs however long it plays. A harmonic that glides over half the sample
    rate fades within the hop, where ddsp cuts it off at a sample.

    Three things it has besides. Partial `k` of a stiff string lies at k f0 √(1 + B k²), where B is its `inharmonicity`
    (Fletcher, 1964); where B is 0, partials are ddsp's harmonics. And where a note begins within a hop, `onset`, its
    amplitudes and its pitch take the place of the last note's there, not gradually from frame to frame. If the string
    is stiff, it is one that is plucked or struck: the partials of the note begin together, as those of such a string
    do, and make the sharp pulses that a string's first periods are. What these pulses look like depends on where the
    string is plucked and heard: the phases that the partials have at the first one, all 0 unless the network learns
    them as `first_phases`.

    And partials of a held note are never quite steady: they beat, and what distorts them makes them rough. Each moves
    by a random process of its own, slow noise whose depth is its `movement`, a function of the frame index alone.

    Attributes:
        parameters: The network outputs it takes, name → size.
        lag: Hops by which the signal is behind the controls.
        orders: Of the harmonics, float32 `[n_harmonics]`.
        audible_rate: Hz; harmonics above half of it are silent.
        seed: Of how its harmonics move.
        oscillators: What counts phases and plays.
    """

    lag = 1

    def __init__(
        self,
        sample_rate: int = gin.REQUIRED,
        hop: int = gin.REQUIRED,
        n_harmonics: int = gin.REQUIRED,
        f0_ratio: float = 1.0,
        highest_hz: float | None = None,
        moves: bool = False,
        learns_phases: bool = False,
        movement_bias: float = -3.0,
        amp_resample_method: str = "window",
        normalize_below_nyquist: bool = True,
        scale_fn: Any = exp_sigmoid,
        style: str | None = None,
        name: str = "harmonic",
    ) -> None:
        """Describes the bank.

        Args:
            sample_rate: Samples a second.
            hop: Samples a frame.
            n_harmonics: Oscillators in the bank.
            f0_ratio: Factor on the fundamental frequency: 1.5 plays the fifth.
            highest_hz: Harmonics from there on are silent; from half the sample rate on unless given. Up to 15/32 of
                half the sample rate, the bank is played at every second sample only, up to 15/48 at every third, and so
                on (see `Oscillators`).
            moves: Whether there is a `movement`.
            learns_phases: Whether there are `first_phases`.
            movement_bias: Added to its network outputs, so that training starts with half a decibel.
            amp_resample_method: How amplitudes go from frame to frame: 'window' (overlapping Hann windows) or 'linear'.
            normalize_below_nyquist: Whether harmonics that are silent are removed before normalising.
            scale_fn: Maps network outputs to amplitudes.
            style: The style without which the bank is not needed: where takes have none, the group leaves it out.
            name: Name of the layer, under which the group's DAG finds it.

        Raises:
            ValueError: An unknown method, or a highest frequency that is none.
        """
        if highest_hz is not None and not 0.0 < highest_hz <= sample_rate / 2.0:
            raise ValueError(f"Harmonic.highest_hz: {highest_hz} is not between 0 and half of {sample_rate} Hz.")
        if amp_resample_method not in ("window", "linear"):
            raise ValueError(f"Harmonic.amp_resample_method: '{amp_resample_method}' is neither 'window' nor 'linear'.")
        super().__init__(
            n_samples=None,
            sample_rate=sample_rate,
            scale_fn=scale_fn,
            normalize_below_nyquist=normalize_below_nyquist,
            amp_resample_method=amp_resample_method,
            name=name,
        )
        self.hop = hop
        self.style = style
        self.n_harmonics = n_harmonics
        self.f0_ratio = f0_ratio
        self.parameters = {"amplitudes": 1, "harmonic_distribution": n_harmonics}
        if moves:
            self.parameters["movement"] = n_harmonics
        if learns_phases:
            self.parameters["first_phases"] = n_harmonics
        self.moves = moves
        self.learns_phases = learns_phases
        self._movement_bias = movement_bias
        self.orders = np.arange(1, n_harmonics + 1, dtype=np.float32)
        self.highest_hz = highest_hz
        self.audible_rate = sample_rate if highest_hz is None else 2.0 * highest_hz
        self.seed = zlib.crc32(name.encode())
        self.oscillators = Oscillators(hop, sample_rate, highest_hz)

    def get_controls(
        self,
        amplitudes: tf.Tensor,
        harmonic_distribution: tf.Tensor,
        f0_hz: tf.Tensor,
        inharmonicity: tf.Tensor | None = None,
        onset: tf.Tensor | None = None,
        movement: tf.Tensor | None = None,
        first_phases: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """As ddsp's, at `f0_ratio` times the frequency.

        Args:
            amplitudes: Network outputs `[batch, n_frames, 1]`.
            harmonic_distribution: Network outputs `[batch, n_frames, n_harmonics]`.
            f0_hz: Fundamental frequency in Hz, `[batch, n_frames, 1]`.
            inharmonicity: B of a stiff string, `[batch, n_frames, 1]`; 0 unless given.
            onset: Where a note begins in the hop before each frame, 0 to 1, and below 0 where none does, `[batch,
                n_frames, 1]`; none does unless given.
            movement: Network outputs `[batch, n_frames, n_harmonics]`; nothing moves unless given.
            first_phases: Network outputs `[batch, n_frames, n_harmonics]`, of which those of a plucked note's first
                frame count; 0 unless given.

        Returns:
            The same names: amplitudes above 0, a distribution that sums to 1, the frequency of the first harmonic, how
            much each harmonic moves, the standard deviation of its amplitude's natural logarithm, 0 to 1, and the
            phase of each partial at the first pulse, cycles.
        """
        f0_hz = f0_hz * self.f0_ratio
        if self.scale_fn is not None:
            amplitudes, harmonic_distribution = self.scale_fn(amplitudes), self.scale_fn(harmonic_distribution)
        audible_rate = self.audible_rate if self.normalize_below_nyquist else None
        distribution = ddsp.core.normalize_harmonics(harmonic_distribution, f0_hz, audible_rate)
        controls = {"amplitudes": amplitudes, "harmonic_distribution": distribution, "f0_hz": f0_hz}
        if movement is not None:
            movement = tf.sigmoid(movement + self._movement_bias)
        if first_phases is not None:
            first_phases = first_phases / (2.0 * math.pi)
        given = {"inharmonicity": inharmonicity, "onset": onset, "movement": movement, "first_phases": first_phases}
        return controls | {name: value for name, value in given.items() if value is not None}

    def initial_state(self, batch: int | tf.Tensor, first_sample: int | tf.Tensor = 0) -> State:
        """Silence at phase 0.

        Args:
            batch: Batch size.
            first_sample: Index of the first sample, a scalar or `[batch]`; where it differs, harmonics that move do so
                otherwise. A phase begins at 0 wherever a clip does.

        Returns:
            The fundamental's phase int64 `[batch]`; how far the partials' phases are from its multiples, int64
            `[batch, n_harmonics]`; of the last frame f0 `[batch, 1, 1]`, how far the partials' frequencies are from its
            multiples (Hz), and their amplitudes, `[batch, 1, n_harmonics]`; and where harmonics move, the next frame's
            index, int64 `[batch]`.
        """
        state = {
            "phase": tf.zeros([batch], tf.int64),
            "deviation": tf.zeros([batch, self.n_harmonics], tf.int64),
            "f0_hz": tf.zeros([batch, 1, 1]),
            "deviation_hz": tf.zeros([batch, 1, self.n_harmonics]),
            "harmonics": tf.zeros([batch, 1, self.n_harmonics]),
        }
        if self.moves:
            state["frame"] = tf.broadcast_to(tf.cast(first_sample, tf.int64) // self.hop, [batch])
        return state

    def step(self, controls: dict[str, tf.Tensor], state: State) -> tuple[tf.Tensor, State]:
        """Plays the samples up to the newest frame.

        Args:
            controls: What `get_controls` returns, for `n_frames` frames.
            state: Of the block before.

        Returns:
            Signal `[batch, n_frames * hop]`, one hop behind the controls, and the next state.
        """
        signal, state = Banks([self]).step({self.name: controls}, {self.name: state})
        return signal, state[self.name]

    def get_signal(
        self, amplitudes: tf.Tensor, harmonic_distribution: tf.Tensor, f0_hz: tf.Tensor, **others: tf.Tensor
    ) -> tf.Tensor:
        """The whole clip, `[batch, n_frames * hop]`; the last frame is held for a hop, as ddsp does."""
        controls = {"amplitudes": amplitudes, "harmonic_distribution": harmonic_distribution, "f0_hz": f0_hz, **others}
        controls = {name: tf.concat([value, value[:, -1:]], axis=1) for name, value in controls.items()}
        signal, _ = self.step(controls, self.initial_state(tf.shape(f0_hz)[0]))
        return signal[:, self.hop :]


class Banks:
    """Banks of oscillators that sound together, played as one, which takes less time than one after the other.

    Attributes:
        names: Of the banks.
        settings: What `Oscillators` is made with for them.
        oscillators: What counts phases and plays.
    """

    def __init__(self, banks: Sequence[Harmonic]) -> None:
        """Puts the banks side by side.

        Args:
            banks: Those that `are_alike`, at least one.
        """
        self._banks = tuple(banks)
        self.names = tuple(bank.name for bank in banks)
        first = self._banks[0]
        self.settings = first.hop, first.sample_rate, first.highest_hz
        self._hop, self._audible_rate, self._method = first.hop, first.audible_rate, first.amp_resample_method
        self.oscillators = first.oscillators
        self._sizes = [bank.n_harmonics for bank in self._banks]
        self._orders = np.concatenate([bank.orders for bank in self._banks])
        step = max(round(_MOVEMENT_SECONDS / 4.0 * first.sample_rate / first.hop), 1)
        distances = np.arange(step)[:, np.newaxis] / step + np.array([1.0, 0.0, -1.0, -2.0])
        # The squares of four weights sum to 3/2 anywhere, and a third is the variance of the white noise.
        self._smoothing = np.cos(math.pi / 4.0 * distances).astype(np.float32) ** 2 * math.sqrt(2.0)

    def step(self, controls: dict[str, dict[str, tf.Tensor]], state: State) -> tuple[tf.Tensor, State]:
        """As `Harmonic.step`, for all banks.

        Args:
            controls: Name of each bank → its controls.
            state: Name of each bank → its state. Their frames are the same.

        Returns:
            The sum of the signals, `[batch, n_frames * hop]`, and the next state.
        """
        return self.step_with(self.oscillators, controls, state)

    def step_with(
        self, oscillators: Oscillators, controls: dict[str, dict[str, tf.Tensor]], state: State
    ) -> tuple[tf.Tensor, State]:
        """As `step`, for those that count phases in another way.

        Args:
            oscillators: What plays.
            controls: As for `step`.
            state: As for `step`.

        Returns:
            As `step`.
        """
        parts = [controls[name] for name in self.names]
        states = [state[name] for name in self.names]
        onset, inharmonicity = (parts[0].get(name) for name in ("onset", "inharmonicity"))
        plucked = None
        if inharmonicity is not None and onset is not None:
            plucked = (onset >= 0.0) & (inharmonicity > 0.0)

        f0_hz = tf.concat([_joined(states, "f0_hz"), _joined(parts, "f0_hz")], axis=1)
        multiples = tf.concat([f0_hz[..., i : i + 1] * bank.orders for i, bank in enumerate(self._banks)], axis=-1)
        deviation_hz = tf.concat(
            [_joined(states, "deviation_hz"), deviations(multiples[:, 1:], self._orders, inharmonicity)], axis=1
        )
        frequencies = multiples + deviation_hz
        harmonics = tf.concat([part["amplitudes"] * part["harmonic_distribution"] for part in parts], axis=-1)
        harmonics = ddsp.core.remove_above_nyquist(frequencies[:, 1:], harmonics, self._audible_rate)
        n_frames = tf.shape(harmonics)[1]
        if "movement" in parts[0]:
            harmonics *= tf.exp(_joined(parts, "movement") * self._slow_noise(states[0]["frame"], n_frames))
        harmonics = tf.concat([_joined(states, "harmonics"), harmonics], axis=1)

        counters = tf.stack([each["phase"] for each in states], axis=1), _joined(states, "deviation")
        of_partials = None if inharmonicity is None else deviation_hz
        first_phases = _joined(parts, "first_phases") if plucked is not None and "first_phases" in parts[0] else None
        phases, counters = self._phases(oscillators, f0_hz, of_partials, counters, onset, plucked, first_phases)
        onset = None if onset is None else frames_first(onset)
        rise = self._rise(oscillators.positions / self._hop, onset)
        signal = oscillators.play(phases, frames_first(frequencies), frames_first(harmonics), rise, onset)
        next_state = {
            "phase": tf.unstack(counters[0], len(states), axis=1),
            "deviation": tf.split(counters[1], self._sizes, axis=-1),
            "f0_hz": tf.split(f0_hz[:, -1:], len(states), axis=-1),
            "deviation_hz": tf.split(deviation_hz[:, -1:], self._sizes, axis=-1),
            "harmonics": tf.split(harmonics[:, -1:], self._sizes, axis=-1),
        }
        if "frame" in states[0]:
            next_state["frame"] = [each["frame"] + tf.cast(n_frames, each["frame"].dtype) for each in states]
        return signal, {
            bank: {name: of_banks[i] for name, of_banks in next_state.items()} for i, bank in enumerate(self.names)
        }

    def _phases(
        self,
        oscillators: Oscillators,
        f0_hz: tf.Tensor,
        deviation_hz: tf.Tensor | None,
        counters: tuple[tf.Tensor, tf.Tensor],
        onset: tf.Tensor | None,
        plucked: tf.Tensor | None,
        first_phases: tf.Tensor | None,
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, tf.Tensor]]:
        """Phases of all partials at the middle of each piece.

        Args:
            oscillators: What plays.
            f0_hz: Of each bank, `[batch, n_frames + 1, banks]`.
            deviation_hz: How far the partials are from its multiples, `[batch, n_frames + 1, n]`; nothing unless given.
            counters: Phases of the fundamentals `[batch, banks]`, and how far the partials' phases are from their
                multiples, `[batch, n]`.
            onset: `[batch, n_frames, 1]`.
            plucked: bool `[batch, n_frames, 1]`.
            first_phases: Cycles `[batch, n_frames, n]`; 0 unless given.

        Returns:
            As `Oscillators.play` takes them, `[n_frames, batch, pieces, n]`, and the counters at the end.
        """
        n_banks = len(self._banks)
        phase, deviation = counters
        if deviation_hz is None:
            begins, phase = oscillators.begins(f0_hz, phase, onset, plucked)
        else:
            both, last = tf.concat([f0_hz, deviation_hz], axis=-1), tf.concat([phase, deviation], axis=-1)
            of_both = None if first_phases is None else tf.pad(first_phases, [[0, 0], [0, 0], [n_banks, 0]])
            begins, last = oscillators.begins(both, last, onset, plucked, of_both)
            phase, deviation = last[:, :n_banks], last[:, n_banks:]
        cycles = tf.unstack(oscillators.phases(begins[..., :n_banks], f0_hz, onset, plucked), axis=2)
        of_banks = (frames_first(each)[..., tf.newaxis] for each in cycles)
        phases = tf.concat([each * (turn() * bank.orders) for each, bank in zip(of_banks, self._banks)], axis=-1)
        if deviation_hz is not None:
            of_notes = (None if each is None else frames_first(each) for each in (onset, plucked, first_phases))
            of_partials = frames_first(begins[..., n_banks:])
            phases += oscillators.bank_phases(of_partials, frames_first(deviation_hz), *of_notes)
        return phases, (phase, deviation)

    def _slow_noise(self, frame: tf.Tensor, n_frames: int | tf.Tensor) -> tf.Tensor:
        """Smooth noise of variance 1 for each harmonic: a sum of Hann windows, four at a time, as high as white noise.

        Args:
            frame: Index of the first frame, `[batch]`.
            n_frames: How many frames.

        Returns:
            `[batch, n_frames, n_harmonics]`.
        """
        step, overlap = self._smoothing.shape
        frames = frame[:, tf.newaxis] + tf.cast(tf.range(n_frames), frame.dtype)
        windows = frames // step
        first = windows[:, :1]
        count = (n_frames + step - 2) // step + overlap
        indices = (first + tf.cast(tf.range(count), frame.dtype))[..., tf.newaxis]
        sizes, numbers = np.repeat(self._sizes, self._sizes), np.concatenate([np.arange(n) for n in self._sizes])
        seeds = np.repeat([bank.seed for bank in self._banks], self._sizes)
        white = white_noise(indices * tf.constant(sizes, frame.dtype) + tf.constant(numbers, frame.dtype), seeds)
        places, since = (tf.cast(each, tf.int32) for each in (windows - first, frames % step))
        return tf.add_n(
            [
                tf.gather(self._smoothing[:, number], since)[..., tf.newaxis]
                * tf.gather(white, places + number, batch_dims=1)
                for number in range(overlap)
            ]
        )

    def _rise(self, places: np.ndarray, onset: tf.Tensor | None) -> tf.Tensor:
        """Share of the later frame at places `[n]` of a hop, 0 to 1: `[n]`, or of each hop, `[n_frames, batch, n]`."""
        gradual = places if self._method == "linear" else 0.5 - 0.5 * np.cos(math.pi * places)
        gradual = tf.constant(gradual, tf.float32)
        return gradual if onset is None else tf.where(onset < 0.0, gradual, rise_of_onset(onset, places))


def _joined(of_banks: Sequence[dict[str, tf.Tensor]], name: str) -> tf.Tensor:
    return tf.concat([each[name] for each in of_banks], axis=-1)


def are_alike(banks: Sequence[Any]) -> bool:
    """Whether processors are banks that can be played as one: at the same samples, in the same way."""
    return all(type(bank) is Harmonic for bank in banks) and 1 == len(
        {
            (bank.hop, bank.sample_rate, bank.highest_hz, bank.amp_resample_method, bank.moves, bank.learns_phases)
            for bank in banks
        }
    )


def rise_of_onset(onset: tf.Tensor, places: np.ndarray) -> tf.Tensor:
    """How much of a new note there is at places of the hop it begins in, as half of a Hann window rises.

    Args:
        onset: Where in the hop it begins, 0 to 1, `[batch, n_frames, 1]`.
        places: Likewise, `[n]`.

    Returns:
        0 to 1, `[batch, n_frames, n]`.
    """
    since = tf.constant(places, tf.float32) - onset
    return 0.5 - 0.5 * tf.cos(math.pi * tf.clip_by_value(since / ATTACK, 0.0, 1.0))


def deviations(multiples: tf.Tensor, orders: np.ndarray, inharmonicity: tf.Tensor | None) -> tf.Tensor:
    """How far the partials of stiff strings are above the multiples of the fundamental, Hz.

    Args:
        multiples: k f0, `[batch, n_frames, n]`.
        orders: k of the partials, `[n]`.
        inharmonicity: B, `[batch, n_frames, 1]`; 0 unless given.

    Returns:
        f0 k (√(1 + B k²) - 1), `[batch, n_frames, n]`.
    """
    if inharmonicity is None:
        return tf.zeros_like(multiples)
    stiff = inharmonicity * orders**2
    return multiples * (stiff / (tf.sqrt(1.0 + stiff) + 1.0))  # Which loses no digits where B is small.
