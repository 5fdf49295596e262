"""The harmonic oscillator bank: ddsp's, with a phase that never drifts, stiff strings, and onsets to the sample."""

from __future__ import annotations

import math
from typing import Any

import ddsp
import gin
import numpy as np
import tensorflow as tf

from neural_midi_synth.instrument.controls import ATTACK
from neural_midi_synth.instrument.oscillators import Oscillators, frames_first, turn
from neural_midi_synth.instrument.recurrent import State


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

    Two things it has besides. Partial `k` of a stiff string lies at k f0 √(1 + B k²), where B is its `inharmonicity`
    (Fletcher, 1964); where B is 0, partials are ddsp's harmonics. And where a note begins within a hop, `onset`, its
    amplitudes and its pitch take the place of the last note's there, not gradually from frame to frame.

    Attributes:
        parameters: The network outputs it takes, name → size.
        lag: Hops by which the signal is behind the controls.
        oscillators: What counts phases and plays.
    """

    lag = 1

    def __init__(
        self,
        sample_rate: int = gin.REQUIRED,
        hop: int = gin.REQUIRED,
        n_harmonics: int = gin.REQUIRED,
        f0_ratio: float = 1.0,
        amp_resample_method: str = "window",
        normalize_below_nyquist: bool = True,
        scale_fn: Any = exp_sigmoid,
        name: str = "harmonic",
    ) -> None:
        """Describes the bank.

        Args:
            sample_rate: Samples a second.
            hop: Samples a frame.
            n_harmonics: Oscillators in the bank.
            f0_ratio: Factor on the fundamental frequency: 1.5 plays the fifth.
            amp_resample_method: How amplitudes go from frame to frame: 'window' (overlapping Hann windows) or 'linear'.
            normalize_below_nyquist: Whether harmonics above half the sample rate are removed before normalising.
            scale_fn: Maps network outputs to amplitudes.
            name: Name of the layer, under which the group's DAG finds it.
        """
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
        self.n_harmonics = n_harmonics
        self.f0_ratio = f0_ratio
        self.parameters = {"amplitudes": 1, "harmonic_distribution": n_harmonics}
        self._orders = np.arange(1, n_harmonics + 1, dtype=np.float32)
        self.oscillators = Oscillators(hop, sample_rate)

    def get_controls(
        self,
        amplitudes: tf.Tensor,
        harmonic_distribution: tf.Tensor,
        f0_hz: tf.Tensor,
        inharmonicity: tf.Tensor | None = None,
        onset: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """As ddsp's, at `f0_ratio` times the frequency.

        Args:
            amplitudes: Network outputs `[batch, n_frames, 1]`.
            harmonic_distribution: Network outputs `[batch, n_frames, n_harmonics]`.
            f0_hz: Fundamental frequency in Hz, `[batch, n_frames, 1]`.
            inharmonicity: B of a stiff string, `[batch, n_frames, 1]`; 0 unless given.
            onset: Where a note begins in the hop before each frame, 0 to 1, and below 0 where none does, `[batch,
                n_frames, 1]`; none does unless given.

        Returns:
            The same names: amplitudes above 0, a distribution that sums to 1, and the frequency of the first harmonic.
        """
        controls = super().get_controls(amplitudes, harmonic_distribution, f0_hz * self.f0_ratio)
        given = {"inharmonicity": inharmonicity, "onset": onset}
        return controls | {name: value for name, value in given.items() if value is not None}

    def initial_state(self, batch: int | tf.Tensor, first_sample: int | tf.Tensor = 0) -> State:
        """Silence at phase 0.

        Args:
            batch: Batch size.
            first_sample: Not used: a phase begins at 0 wherever a clip does.

        Returns:
            The fundamental's phase int64 `[batch]`; how far the partials' phases are from its multiples, int64
            `[batch, n_harmonics]`; and of the last frame f0 `[batch, 1, 1]`, how far the partials' frequencies are from
            its multiples (Hz), and their amplitudes, `[batch, 1, n_harmonics]`.
        """
        del first_sample
        return {
            "phase": tf.zeros([batch], tf.int64),
            "deviation": tf.zeros([batch, self.n_harmonics], tf.int64),
            "f0_hz": tf.zeros([batch, 1, 1]),
            "deviation_hz": tf.zeros([batch, 1, self.n_harmonics]),
            "harmonics": tf.zeros([batch, 1, self.n_harmonics]),
        }

    def step(self, controls: dict[str, tf.Tensor], state: State) -> tuple[tf.Tensor, State]:
        """Plays the samples up to the newest frame.

        Args:
            controls: What `get_controls` returns, for `n_frames` frames.
            state: Of the block before.

        Returns:
            Signal `[batch, n_frames * hop]`, one hop behind the controls, and the next state.
        """
        return self.step_with(self.oscillators, controls, state)

    def step_with(
        self, oscillators: Oscillators, controls: dict[str, tf.Tensor], state: State
    ) -> tuple[tf.Tensor, State]:
        """As `step`, for those that count phases in another way.

        Args:
            oscillators: The bank that plays.
            controls: As for `step`.
            state: As for `step`.

        Returns:
            As `step`.
        """
        inharmonicity, onset = controls.get("inharmonicity"), controls.get("onset")
        deviation_hz = deviations(controls["f0_hz"], self._orders, inharmonicity)
        harmonics = ddsp.core.remove_above_nyquist(
            controls["f0_hz"] * self._orders + deviation_hz,
            controls["amplitudes"] * controls["harmonic_distribution"],
            self.sample_rate,
        )
        f0_hz = tf.concat([state["f0_hz"], controls["f0_hz"]], axis=1)
        deviation_hz = tf.concat([state["deviation_hz"], deviation_hz], axis=1)
        harmonics = tf.concat([state["harmonics"], harmonics], axis=1)
        phase, last_phase = oscillators.phases(f0_hz, state["phase"], onset)
        begins, deviation = None, state["deviation"]
        if inharmonicity is not None:
            begins, deviation = oscillators.begins(deviation_hz, deviation, onset)
        if onset is not None:
            onset = frames_first(onset)
        phases = frames_first(phase)[..., tf.newaxis] * (turn() * self._orders)
        if begins is not None:
            begins = turn() * frames_first(begins)[:, :, tf.newaxis]
            phases += begins + oscillators.within(frames_first(deviation_hz), onset)
        frequencies = frames_first(f0_hz * self._orders + deviation_hz)
        signal = oscillators.play(phases, frequencies, frames_first(harmonics), self._rise(onset), onset)
        return signal, {
            "phase": last_phase,
            "deviation": deviation,
            "f0_hz": f0_hz[:, -1:],
            "deviation_hz": deviation_hz[:, -1:],
            "harmonics": harmonics[:, -1:],
        }

    def get_signal(
        self, amplitudes: tf.Tensor, harmonic_distribution: tf.Tensor, f0_hz: tf.Tensor, **others: tf.Tensor
    ) -> tf.Tensor:
        """The whole clip, `[batch, n_frames * hop]`; the last frame is held for a hop, as ddsp does."""
        controls = {"amplitudes": amplitudes, "harmonic_distribution": harmonic_distribution, "f0_hz": f0_hz, **others}
        controls = {name: tf.concat([value, value[:, -1:]], axis=1) for name, value in controls.items()}
        signal, _ = self.step(controls, self.initial_state(tf.shape(f0_hz)[0]))
        return signal[:, self.hop :]

    def _rise(self, onset: tf.Tensor | None) -> tf.Tensor:
        """Share of the later frame at each sample of a hop: `[hop]`, or of each hop, `[n_frames, batch, hop]`."""
        samples = np.arange(self.hop) / self.hop
        gradual = samples if self.amp_resample_method == "linear" else 0.5 - 0.5 * np.cos(math.pi * samples)
        gradual = tf.constant(gradual, tf.float32)
        return gradual if onset is None else tf.where(onset < 0.0, gradual, rise_of_onset(onset, self.hop))


def rise_of_onset(onset: tf.Tensor, hop: int) -> tf.Tensor:
    """How much of a new note there is at each sample of the hop it begins in, as half of a Hann window rises.

    Args:
        onset: Where in the hop it begins, 0 to 1, `[batch, n_frames, 1]`.
        hop: Samples.

    Returns:
        0 to 1, `[batch, n_frames, hop]`.
    """
    samples = tf.constant(np.arange(hop) / hop, tf.float32)
    return 0.5 - 0.5 * tf.cos(math.pi * tf.clip_by_value((samples - onset) / ATTACK, 0.0, 1.0))


def deviations(f0_hz: tf.Tensor, orders: np.ndarray, inharmonicity: tf.Tensor | None) -> tf.Tensor:
    """How far the partials of stiff strings are above the multiples of the fundamental, Hz.

    Args:
        f0_hz: `[batch, n_frames, 1]`.
        orders: Of the partials, `[n]`.
        inharmonicity: B, `[batch, n_frames, 1]`.

    Returns:
        f0 k (√(1 + B k²) - 1), `[batch, n_frames, n]`.
    """
    if inharmonicity is None:
        return tf.zeros_like(f0_hz * orders)
    stiff = inharmonicity * orders**2
    return f0_hz * orders * (stiff / (tf.sqrt(1.0 + stiff) + 1.0))  # Which loses no digits where B is small.
