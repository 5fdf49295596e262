"""Metadata of the package: gin/ and data_prep/ stand beside the library in the checkout, inside it when installed."""

import pathlib

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

here = pathlib.Path(__file__).parent
readme = here / "README.md"

# What makes the demo guitar and the pretrained instrument: it needs FluidSynth, or writes into the checkout.
CHECKOUT_ONLY = {
    ("neural_midi_synth.data_prep", name) for name in ("guitar_session", "make_demo_guitar", "make_pretrained")
}


class BuildWhatWorks(build_py):
    """Leaves out the scripts that work in a checkout only."""

    def find_package_modules(self, package, package_dir):  # noqa: ANN001, ANN201
        """As setuptools does, without those scripts."""
        modules = super().find_package_modules(package, package_dir)
        return [module for module in modules if (module[0], module[1]) not in CHECKOUT_ONLY]


setup(
    name="neural_midi_synth",
    version="0.1.0",
    description="Learns an instrument from a recording and its MIDI annotation, and plays any MIDI file with it.",
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    # ddsp 3.7.0 is needed too, but its metadata forbids every TensorFlow newer than 2.11 although it runs on them:
    # `pip install --no-deps ddsp==3.7.0`. What ddsp itself imports is listed here.
    install_requires=[
        "absl-py",
        "audioop-lts; python_version >= '3.13'",  # pydub, which note-seq imports, misses it in the standard library
        "gin-config>=0.5.0",
        "jinja2>=3.1",
        "librosa>=0.11",
        "matplotlib>=3.8",
        "mido>=1.3",
        "mir_eval>=0.7",
        "note-seq==0.0.5",
        "numpy>=1.26",
        "pillow>=10",
        "rpp>=0.5",
        "scipy>=1.11",
        "soundfile>=0.13",
        "soxr>=0.5",
        "tensorboard>=2.20",
        "tensorflow>=2.20,<2.22",
        "tensorflow-datasets>=4.9.9",
        "tensorflow-probability>=0.25",
        "tf-keras>=2.20,<2.22",
        "tqdm",
    ],
    # The command tfds imports both before it reads its arguments. Its builders, which nms_train runs, need neither.
    extras_require={
        "corpus": ["apache-beam>=2.77", "psutil>=5.9"],
        # sounddevice needs PortAudio on Linux.
        "live": ["ai-edge-litert>=2.1", "platformdirs>=4", "python-rtmidi>=1.5", "rich>=13", "sounddevice>=0.5"],
        # ViSQOL, for nms_evaluate --perceived: one of its parts is compiled when it is installed.
        "perceived": ["visqol-python>=3.8"],
        "tfds_cli": ["apache-beam>=2.77", "mlcroissant>=1.1"],
    },
    packages=[
        *find_packages(include=["neural_midi_synth", "neural_midi_synth.*"]),
        *(f"neural_midi_synth.{name}" for name in find_packages(include=["data_prep", "data_prep.*"])),
        "neural_midi_synth.gin",
    ],
    package_dir={
        "neural_midi_synth": "neural_midi_synth",
        "neural_midi_synth.data_prep": "data_prep",
        "neural_midi_synth.gin": "gin",
    },
    package_data={
        "neural_midi_synth": [
            "pretrained/*/*.gin",
            "pretrained/*/*.json",
            "pretrained/*/best/*",
            "evaluation/templates/*",
            "exporting/web/built/*",
            "exporting/web/built/*/*",
        ],
        "neural_midi_synth.gin": ["*/*.gin"],
        # Nothing that is installed reads the Reaper projects beside them.
        "neural_midi_synth.data_prep": [
            "demo_guitar/*.mp3",
            "demo_guitar/*.mid",
            "demo_guitar/*.txt",
            "demo_guitar/*.md",
            "demo_guitar/examples/*.flac",
            "demo_guitar/examples/*.mid",
        ],
    },
    cmdclass={"build_py": BuildWhatWorks},
    entry_points={
        "console_scripts": [
            f"nms_{command} = neural_midi_synth.commands.{command}:run"
            for command in (
                "annotate",
                "inspect",
                "train",
                "render",
                "play",
                "evaluate",
                "export",
                "info",
                "render_corpus",
            )
        ]
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Sound/Audio :: Sound Synthesis",
    ],
)
