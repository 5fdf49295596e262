"""The TFDS data set of recordings and their MIDI annotations: its builder, and `build`, which builds and caches it."""

from .building import build, configured
from .config import DEMO_GUITAR, MidiAudioConfig
from .midi_audio_dataset_builder import MidiAudio

__all__ = ["DEMO_GUITAR", "MidiAudio", "MidiAudioConfig", "build", "configured"]
