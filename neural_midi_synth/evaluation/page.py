"""The HTML pages: portable files with pictures, players and numbers, for phone and desk.

Pages are Jinja2 templates in `templates/`, with one stylesheet and one script. `page` is that of an evaluation.
"""

from __future__ import annotations

import base64
import functools
import io
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from neural_midi_synth.evaluation import pictures
from neural_midi_synth.evaluation.likeness import NOTE_MEASURES, note_texts
from neural_midi_synth.evaluation.results import Measure, Result, columns, mean, text_of, texts_of

if TYPE_CHECKING:
    import jinja2

    from neural_midi_synth.evaluation.verdict import Verdict


def page(
    title: str,
    results: Sequence[Result],
    sample_rate: int,
    notes: Mapping[str, Any],
    verdict: Verdict,
    attacks: Mapping[str, bytes],
) -> str:
    """Builds the page.

    Args:
        title: What the instrument is called.
        results: The examples in the order they are shown.
        sample_rate: Samples per second of their sounds.
        notes: What `Likeness.facts` tells.
        verdict: What is to be thought of it.
        attacks: How notes set in, name of the theme → PNG; may be empty.

    Returns:
        HTML with everything in it: pictures as PNG, sounds as FLAC.
    """
    measures, means = columns(results), mean(results)
    return fill(
        "evaluation.html",
        title=title,
        results=results,
        sample_rate=sample_rate,
        verdict=verdict,
        notes=notes,
        note_rows=[(measure, note_texts(notes, name)) for name, measure in NOTE_MEASURES.items()],
        attacks={name: embedded("image/png", picture) for name, picture in attacks.items()},
        measures=measures,
        tiles=[
            (measure, measure.text(means[key]), _tile_note(measure, means))
            for key, measure in measures.items()
            if math.isfinite(means[key])
        ],
        rows=[(result, texts_of(measures, result.numbers)) for result in results],
        foot=texts_of(measures, means),
        examples=[_example(result, i, sample_rate) for i, result in enumerate(results) if result.pictures],
    )


def fill(template: str, **facts: Any) -> str:
    """Fills a template of `templates/` with facts, text escaped."""
    return _templates().get_template(template).render(left=pictures.TIME_LEFT, right=pictures.TIME_RIGHT, **facts)


def embedded(kind: str, content: bytes) -> str:
    """Returns a file's content as an address for a page: `embedded("image/png", picture)`."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@functools.cache
def _templates() -> jinja2.Environment:
    import jinja2

    folder = pathlib.Path(__file__).parent / "templates"
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )


def _tile_note(measure: Measure, means: Mapping[str, float]) -> str:
    """Says below a tile's number what the recording gets, or which way is better."""
    beside = means.get(measure.of_reference or "", math.nan)
    return f"the recording: {measure.text(beside)}" if math.isfinite(beside) else measure.better


def _example(result: Result, index: int, sample_rate: int) -> dict[str, Any]:
    """Returns what the template has to know of an example."""
    return {
        "index": index,
        "name": result.name,
        "seconds": max(len(samples) for samples in result.sounds.values()) / sample_rate,
        "numbers": [(measure, text_of(key, measure, result.numbers)) for key, measure in columns([result]).items()],
        "sounds": {name: _sound(samples, sample_rate) for name, samples in result.sounds.items()},
        "pictures": {name: embedded("image/png", picture) for name, picture in result.pictures.items()},
    }


def _sound(samples: np.ndarray, sample_rate: int) -> str:
    import soundfile

    flac = io.BytesIO()
    samples = samples / max(1.0, float(np.abs(samples).max(initial=0.0)))  # Lowered rather than clipped.
    soundfile.write(flac, samples, sample_rate, format="FLAC", subtype="PCM_16")
    return embedded("audio/flac", flac.getvalue())
