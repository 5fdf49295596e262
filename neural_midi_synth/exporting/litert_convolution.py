"""Convolutions as products of matrices, which is what LiteRT is quick at; it has no Fourier transforms."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

HALF_FROM = 16384
"""Float constants with as many elements are stored in half precision. Smaller matrices make a model hardly larger, and
the decoder's first one, which sees the Fourier features, is what half precision would cost most in."""

_PART = 32  # samples of a short response at a time


def exact_product(x: tf.Tensor, constant: np.ndarray) -> tf.Tensor:
    """`x @ constant` in parts, each too small to be stored in half precision."""
    rows = np.array_split(constant.astype(np.float32), -(-constant.size // (HALF_FROM - constant.shape[1])))
    columns = tf.split(x, [len(each) for each in rows], axis=-1)
    return tf.add_n([tf.matmul(*each) for each in zip(columns, rows)])


class PartitionedConvolution:
    """Convolves a signal that comes block by block with a response that is longer than a block.

    The response is cut into partitions of a block's length, and the spectra of the latest blocks are kept: the sound of
    a block is the sum of these spectra, each times that of its partition, transformed back. (Uniformly partitioned
    convolution; Wefers, "Partitioned convolution algorithms for real-time auralization", 2015, chapter 5.)

    A block of n samples is transformed with n zeros behind it. The 2n samples are read as a table, sample
    `columns * i + j` in row i and column j. Then the transform is one along the columns, a turn of each number by an
    angle of its own, and one along the rows (Cooley and Tukey, 1965): sums of a few dozen terms in place of sums of
    thousands. Frequency `i + 2 * rows * j` comes out in row i and column j. The signal is real, so that the rows beyond
    row `rows` mirror the others, and are left out.

    Attributes:
        shape: Of the spectra that are kept, as real and as imaginary parts: `(partitions, rows + 1, columns)`.
    """

    def __init__(self, response: np.ndarray, n_samples: int) -> None:
        """Prepares the matrices.

        Args:
            response: `[n]`.
            n_samples: Samples of a block.
        """
        divisors = [rows for rows in range(1, n_samples + 1) if n_samples % rows == 0]
        self._rows = min(divisors, key=lambda rows: rows + 2 * n_samples // rows)  # The least work, counted out.
        self._columns = n_samples // self._rows
        self._parts = self._partitions(response.astype(np.float64), n_samples)
        self.shape = self._parts.shape

        of_rows, of_columns = np.arange(self._rows + 1), np.arange(self._columns)
        self._along_columns = np.exp(-1j * np.pi * np.outer(of_rows[:-1], of_rows) / self._rows)
        self._turns = np.exp(-1j * np.pi * np.outer(of_rows, of_columns) / n_samples)
        self._along_rows = np.exp(-2j * np.pi * np.outer(of_columns, of_columns) / self._columns)

    def __call__(
        self, block: tf.Tensor, real: tf.Tensor, imaginary: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Convolves a block.

        Args:
            block: `[batch, n_samples]`.
            real: Of the spectra of the latest blocks, the latest first, `[batch, *shape]`; zeros at the beginning.
            imaginary: Likewise.

        Returns:
            The convolution's next samples `[batch, n_samples]`, and the spectra with this block's.
        """
        spectrum = self._transform(tf.reshape(block, [-1, self._rows, self._columns]))
        real, imaginary = (
            tf.concat([newest[:, tf.newaxis], cut(each, 0, self.shape[0] - 1)], axis=1)
            for newest, each in zip(spectrum, (real, imaginary))
        )
        of_real, of_imaginary = (part.astype(np.float32) for part in (self._parts.real, self._parts.imag))
        product = (
            tf.reduce_sum(real * of_real - imaginary * of_imaginary, axis=1),
            tf.reduce_sum(real * of_imaginary + imaginary * of_real, axis=1),
        )
        return tf.reshape(self._back(*product), [-1, self._rows * self._columns]), real, imaginary

    def _partitions(self, response: np.ndarray, n_samples: int) -> np.ndarray:
        """Spectra of the response, complex `[partitions, rows + 1, columns]`.

        A block of the past is heard now by the partition that begins as long after the response's begin, and by the one
        before that, of which what it makes of the block's end is still due: so each spectrum has both, one after the
        other, and of what is transformed back the first half is all that counts.
        """
        partitions = np.pad(response, [n_samples, n_samples + -len(response) % n_samples]).reshape([-1, n_samples])
        spectra = np.fft.fft(np.concatenate([partitions[1:], partitions[:-1]], axis=1))
        spectra = spectra.reshape([len(spectra), self._columns, 2 * self._rows]).swapaxes(1, 2)[:, : self._rows + 1]
        # The rows that are left out count as much as those that they mirror.
        return spectra * np.array([1, *[2] * (self._rows - 1), 1])[:, np.newaxis]

    def _transform(self, table: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """`[batch, rows, columns]` to the spectrum's real and imaginary part, `[batch, rows + 1, columns]`."""
        columns = self._along_columns
        sums = exact_product(tf.transpose(table, [0, 2, 1]), np.concatenate([columns.real, columns.imag], axis=1))
        real, imaginary = tf.split(tf.transpose(sums, [0, 2, 1]), 2, axis=1)
        return _product(*_turned(real, imaginary, self._turns), self._along_rows)

    def _back(self, real: tf.Tensor, imaginary: tf.Tensor) -> tf.Tensor:
        """A spectrum to the first half of its signal, `[batch, rows, columns]`."""
        turned = _turned(*_product(real, imaginary, self._along_rows.conj()), self._turns.conj())
        columns = self._along_columns.T.conj()
        sums = tf.transpose(tf.concat(turned, axis=1), [0, 2, 1])
        mean = np.concatenate([columns.real, -columns.imag]) / (2 * self._rows * self._columns)
        return tf.transpose(exact_product(sums, mean), [0, 2, 1])


def _turned(real: tf.Tensor, imaginary: tf.Tensor, by: np.ndarray) -> tuple[tf.Tensor, tf.Tensor]:
    """Complex numbers times complex constants of the same shape."""
    by_real, by_imaginary = by.real.astype(np.float32), by.imag.astype(np.float32)
    return real * by_real - imaginary * by_imaginary, real * by_imaginary + imaginary * by_real


def _product(real: tf.Tensor, imaginary: tf.Tensor, matrix: np.ndarray) -> tuple[tf.Tensor, tf.Tensor]:
    """Complex rows `[batch, n, columns]` times a complex matrix `[columns, columns]`, by a real one twice as large."""
    doubled = np.block([[matrix.real, matrix.imag], [-matrix.imag, matrix.real]])
    return tf.split(exact_product(tf.concat([real, imaginary], axis=2), doubled), 2, axis=2)


def convolved(responses: tf.Tensor, signals: tf.Tensor) -> tf.Tensor:
    """Convolves in time, for short responses: they are cut into parts, each convolved with the signal.

    Args:
        responses: `[batch, size]`.
        signals: `[batch, n_samples]`.

    Returns:
        `[batch, n]`, where `n` is at least `n_samples + size - 1`; what is beyond is zeros.
    """
    batch, size = responses.shape
    part = min(_PART, signals.shape[1])
    parts = tf.reshape(tf.pad(responses, [[0, 0], [0, -size % part]]), [batch, -1, part])
    return overlap_and_add(tf.matmul(parts, _delayed(signals, part)), part)


def _delayed(signal: tf.Tensor, n_rows: int) -> tf.Tensor:
    """Signals delayed by 0, 1, 2, … samples, row by row: `[batch, n]` to `[batch, n_rows, n + n_rows]`.

    An impulse response `[n_rows]` times this matrix is the response's convolution with the signal, since convolution is
    a sum of delayed signals, weighted by the response. For the signal a b c and three rows the matrix (a Toeplitz
    matrix: each diagonal holds one value) is

        a b c 0 0 0
        0 a b c 0 0
        0 0 a b c 0

    Read row after row, it is a b c and four zeros, over and over. So it is made without a loop: the signal and so many
    zeros are repeated, and what comes out is cut into rows, each one sample shorter than a repetition.
    """
    batch, width = signal.shape[0], signal.shape[1] + n_rows
    padded = tf.pad(signal, [[0, 0], [0, n_rows + 1]])
    repeated = tf.reshape(padded[:, tf.newaxis] * tf.ones([1, n_rows, 1]), [batch, -1])
    return tf.reshape(cut(repeated, 0, n_rows * width), [batch, n_rows, width])


def overlap_and_add(blocks: tf.Tensor, hop: int) -> tf.Tensor:
    """Sums blocks `[batch, n, size]` that each begin a hop after the one before: `[batch, n_samples]`."""
    batch, n_blocks, size = blocks.shape
    n_hops = -(-size // hop)
    hops = tf.reshape(tf.pad(blocks, [[0, 0], [0, 0], [0, n_hops * hop - size]]), [batch, n_blocks, n_hops, hop])
    of_each = [tf.reshape(cut(hops, i, i + 1, axis=2), [batch, n_blocks, hop]) for i in range(n_hops)]
    moved = [tf.pad(each, [[0, 0], [i, n_hops - 1 - i], [0, 0]]) for i, each in enumerate(of_each)]
    return tf.reshape(tf.add_n(moved), [batch, -1])


def cut(x: tf.Tensor, begin: int, end: int, axis: int = 1) -> tf.Tensor:
    """A slice along an axis. LiteRT copies Python's slices number by number, and these at once."""
    begins, sizes = [0] * len(x.shape), list(x.shape)
    begins[axis], sizes[axis] = begin, end - begin
    return tf.slice(x, begins, sizes)
