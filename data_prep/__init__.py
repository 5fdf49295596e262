"""The TFDS builder and the demo guitar."""
