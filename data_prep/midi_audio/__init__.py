"""The data set of recordings and their MIDI annotations: its TFDS builder, and `build`, which builds and caches it."""

from .midi_audio_dataset_builder import DEMO_GUITAR, MidiAudio, MidiAudioConfig, build

__all__ = ["DEMO_GUITAR", "MidiAudio", "MidiAudioConfig", "build"]
