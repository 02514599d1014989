"""Counts the rows of each epoch, and tells where a new pass over the data begins."""

from collections.abc import Collection


class Epochs:
    """What a prefix cache knows of the epochs of a training.

    Args:
        size: Rows of an epoch. None where the training tells when one ends.
    """

    def __init__(self, size: int | None) -> None:
        self._size = size
        self._rows = self._read = self._before = 0  # of this epoch, those that were read, and of the last epoch
        self._met: set[bytes] = set()

    @property
    def over(self) -> bool:
        """Whether the epoch has all its rows."""
        return self._size is not None and self._rows >= self._size

    def count(self, keys: Collection[bytes]) -> bool:
        """Count rows of this epoch; returns whether another pass over the data begins with them."""
        self._rows += len(keys)
        again = self._met.issuperset(keys)
        if again:
            self._met = set()
        self._met.update(keys)
        return again

    def count_read(self, rows: int) -> None:
        """Count those of the rows that were stored."""
        self._read += rows

    def end(self) -> str | None:
        """End the epoch; returns what to say if most of its rows were new although it is not the first one."""
        rows, read, before = self._rows, self._read, self._before
        self._rows, self._read, self._before = 0, 0, rows
        if not 0 < rows <= before or 2 * read >= rows:
            return None
        return (
            f"{read} of {rows} rows of an epoch came again: packing, augmentation or left padding that changes in "
            "each epoch cannot be cached"
        )
