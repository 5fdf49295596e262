"""Convolutions as products of matrices, which is what LiteRT is quick at; it has no Fourier transforms."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

HALF_FROM = 16384
"""Float constants with as many elements are stored in half precision. Smaller matrices make a model hardly larger, and
the decoder's first one, which sees the Fourier features, is what half precision would cost most in."""


def exact_product(x: tf.Tensor, constant: np.ndarray) -> tf.Tensor:
    """`x @ constant` in parts, each too small to be stored in half precision."""
    rows = np.array_split(constant.astype(np.float32), -(-constant.size // (HALF_FROM - constant.shape[1])))
    columns = tf.split(x, [len(each) for each in rows], axis=-1)
    return tf.add_n([tf.matmul(*each) for each in zip(columns, rows)])


class FourierTransform:
    """The Fourier transform of n samples with n zeros behind them, and back, for convolution.

    The 2n samples are read as a table, sample `columns * i + j` in row i and column j. Then the transform is one along
    the columns, a turn of each number by an angle of its own, and one along the rows (Cooley and Tukey, 1965): sums of
    a few dozen terms in place of sums of hundreds. Frequency `i + 2 * rows * j` comes out in row i and column j. The
    signal is real, so that the rows beyond row `rows` mirror the others, and are left out.

    Attributes:
        n_samples: n.
        shape: Of a spectrum's real part, and of its imaginary part, `(rows + 1, columns)`.
    """

    def __init__(self, n_samples: int) -> None:
        """Prepares the matrices.

        Args:
            n_samples: n.
        """
        self.n_samples = n_samples
        self._rows = _rows(n_samples)
        self._columns = n_samples // self._rows
        self.shape = (self._rows + 1, self._columns)
        of_rows, of_columns = np.arange(2 * self._rows), np.arange(self._columns)
        self._along_columns = np.exp(-1j * np.pi * np.outer(of_rows, of_rows[: self._rows + 1]) / self._rows)
        self._turns = np.exp(-1j * np.pi * np.outer(of_rows[: self._rows + 1], of_columns) / n_samples)
        self._along_rows = np.exp(-2j * np.pi * np.outer(of_columns, of_columns) / self._columns)

    @classmethod
    def of_at_least(cls, n_samples: int) -> FourierTransform:
        """The one of so many samples or some more that is least work."""
        return cls(min(range(n_samples, n_samples + 32), key=lambda n: n * (_rows(n) + 2 * n // _rows(n))))

    def of_responses(self, responses: np.ndarray) -> np.ndarray:
        """Spectra of responses `[…, up to 2n]`, complex `[…, *shape]`, to multiply with between `forth` and `back`."""
        spectra = np.fft.fft(responses, 2 * self.n_samples)
        spectra = spectra.reshape([*spectra.shape[:-1], self._columns, 2 * self._rows]).swapaxes(-1, -2)
        # The rows that are left out count as much as those that they mirror.
        return spectra[..., : self._rows + 1, :] * np.array([1, *[2] * (self._rows - 1), 1])[:, np.newaxis]

    def forth(self, signal: tf.Tensor) -> tf.Tensor:
        """`[batch, n]` to its spectrum's real part and imaginary part, `[batch, 2, *shape]`."""
        table = tf.reshape(signal, [-1, self._rows, self._columns])
        columns = self._along_columns[: self._rows]
        sums = exact_product(tf.transpose(table, [0, 2, 1]), np.concatenate([columns.real, columns.imag], axis=1))
        real, imaginary = tf.split(tf.transpose(sums, [0, 2, 1]), 2, axis=1)
        return tf.stack(_product(*_turned(real, imaginary, self._turns), self._along_rows), axis=1)

    def back(self, real: tf.Tensor, imaginary: tf.Tensor, n_samples: int) -> tf.Tensor:
        """A spectrum, `[batch, *shape]` twice, to the first n or all 2n samples of its signal, `[batch, n_samples]`."""
        turned = _turned(*_product(real, imaginary, self._along_rows.conj()), self._turns.conj())
        columns = self._along_columns[: n_samples // self._columns].T.conj()
        sums = tf.transpose(tf.concat(turned, axis=1), [0, 2, 1])
        mean = np.concatenate([columns.real, -columns.imag]) / (2 * self.n_samples)
        return tf.reshape(tf.transpose(exact_product(sums, mean), [0, 2, 1]), [-1, n_samples])


class PartitionedConvolution:
    """Convolves a signal that comes block by block with a response that is longer than a block.

    The response is cut into partitions of a block's length, and the spectra of the latest blocks are kept: the sound of
    a block is the sum of these spectra, each times that of its partition, transformed back. (Uniformly partitioned
    convolution; Wefers, "Partitioned convolution algorithms for real-time auralization", 2015, chapter 5.)

    Attributes:
        shape: Of the spectra that are kept, real parts and imaginary parts: `(2, partitions, rows + 1, columns)`.
    """

    def __init__(self, response: np.ndarray, n_samples: int) -> None:
        """Transforms the response.

        A block of the past is heard now by the partition that begins as long after the response's begin, and by the one
        before that, of which what it makes of the block's end is still due: so each spectrum has both, one after the
        other, and of what is transformed back the first half is all that counts.

        Args:
            response: `[n]`.
            n_samples: Samples of a block.
        """
        self._transform = FourierTransform(n_samples)
        n_after = -len(response) % n_samples
        parts = np.pad(response.astype(np.float64), [n_samples, n_samples + n_after]).reshape([-1, n_samples])
        self._partitions = self._transform.of_responses(np.concatenate([parts[1:], parts[:-1]], axis=1))
        self.shape = (2, *self._partitions.shape)

    def __call__(self, block: tf.Tensor, latest: tf.Tensor) -> tf.Tensor:
        """Convolves a block.

        Args:
            block: `[batch, n_samples]`.
            latest: Spectra of the latest blocks, the latest first, `[batch, *shape]`; zeros at the beginning.

        Returns:
            The convolution's next samples `[batch, n_samples]`, and the spectra with this block's.
        """
        newest = self._transform.forth(block)[:, :, tf.newaxis]
        latest = tf.concat([newest, latest[:, :, :-1]], axis=2)
        product = complex_product(*tf.unstack(latest, axis=1), *_real_and_imaginary(self._partitions))
        sums = (tf.reduce_sum(each, axis=1) for each in product)
        return self._transform.back(*sums, self._transform.n_samples), latest


def complex_product(
    real: tf.Tensor, imaginary: tf.Tensor, by_real: tf.Tensor, by_imaginary: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Real and imaginary part of the product of complex numbers."""
    return real * by_real - imaginary * by_imaginary, real * by_imaginary + imaginary * by_real


def _rows(n_samples: int) -> int:
    """Into how many rows samples are cut, for the least work."""
    divisors = [rows for rows in range(1, n_samples + 1) if n_samples % rows == 0]
    return min(divisors, key=lambda rows: rows + 2 * n_samples // rows)


def _real_and_imaginary(constant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Real and imaginary part, float32."""
    return constant.real.astype(np.float32), constant.imag.astype(np.float32)


def _turned(real: tf.Tensor, imaginary: tf.Tensor, by: np.ndarray) -> tuple[tf.Tensor, tf.Tensor]:
    """Complex numbers times complex constants."""
    return complex_product(real, imaginary, *_real_and_imaginary(by))


def _product(real: tf.Tensor, imaginary: tf.Tensor, matrix: np.ndarray) -> tuple[tf.Tensor, tf.Tensor]:
    """Complex rows `[batch, n, columns]` times a complex matrix `[columns, columns]`, by a real one twice as large."""
    doubled = np.block([[matrix.real, matrix.imag], [-matrix.imag, matrix.real]])
    return tf.split(exact_product(tf.concat([real, imaginary], axis=2), doubled), 2, axis=2)


def overlap_and_add(blocks: tf.Tensor, hop: int) -> tf.Tensor:
    """Sums blocks `[batch, n, size]` that each begin a hop after the one before: `[batch, n_samples]`."""
    batch, n_blocks, size = blocks.shape
    n_hops = -(-size // hop)
    hops = tf.reshape(tf.pad(blocks, [[0, 0], [0, 0], [0, n_hops * hop - size]]), [batch, n_blocks, n_hops, hop])
    of_each = [hops[:, :, i] for i in range(n_hops)]
    moved = [tf.pad(each, [[0, 0], [i, n_hops - 1 - i], [0, 0]]) for i, each in enumerate(of_each)]
    return tf.reshape(tf.add_n(moved), [batch, -1])
