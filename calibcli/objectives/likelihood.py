"""What a block of logits says of its labels: the quantities that the losses are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from calibcli.arrays import (
    Array,
    argmax,
    namespace,
    scaled_exponentials,
    sum_classes,
    sum_squares,
)
from calibcli.cached import cached_property


class Likelihood:
    """Softmax of logits (n, K), and of each label its probability, with all digits.

    The probability of the other classes is summed over them and not subtracted from 1, so that
    what is small stays accurate: at float32 a label with probability 1 - 1e-12 has a `miss` of
    1e-12 and a negative log-likelihood of 1e-12.

    Attributes
    ----------
    labels : int array (n,)
    exponentials : array (n, K)
        Of the logits, but for a factor a row.
    total : array (n,)
        Sums of `exponentials`.
    depth : array (n,)
        How far the label's logit lies below the largest of the row.
    true_prob : array (n,)
        Probability of the label.
    miss : array (n,)
        Probability of all other classes.
    nll : array (n,)
        Negative log-likelihood.
    confidence : array (n,)
        The largest probability of the row.
    """

    def __init__(self, logits: Array, labels: Array) -> None:
        xp = namespace(logits)
        self.labels = labels
        self.rows = xp.arange(logits.shape[0], device=logits.device)
        self._logits = logits
        self.exponentials, top, self._high = scaled_exponentials(logits)
        self.depth = self._high - self.at_labels(logits)
        at_label = self.at_labels(self.exponentials)
        others = self.sum_others(self.exponentials)
        self.total = others + at_label
        self.true_prob = at_label / self.total
        self.miss = others / self.total
        self.confidence = top / self.total
        # Every term of the argument is at least 0: the largest exponential is among them.
        self.nll = xp.log1p((others + (at_label - top)) / top) + self.depth

    @cached_property
    def shifted(self) -> Array:
        """Logits minus the largest of their row (n, K)."""
        return self._logits - self._high[:, None]

    def distances(self) -> Array:
        """How far logits lie below the largest of their row (n, K), as a new matrix."""
        return self._high[:, None] - self._logits

    @cached_property
    def top(self) -> Array:
        """The first of the most probable classes (n,)."""
        return argmax(self._logits)

    @cached_property
    def probs(self) -> Array:
        """Probabilities (n, K)."""
        return self.exponentials / self.total[:, None]

    @property
    def hits(self) -> Array:
        """Whether the label is the most probable class, alone or with others (n,): 1 or 0."""
        return namespace(self.depth).astype(self.depth == 0, self.depth.dtype)

    @cached_property
    def squared_distance(self) -> Array:
        """Squared distance (n,) of the probabilities from the label's corner of the simplex."""
        others = self.sum_others(self.exponentials, sum_squares)
        return self.miss * self.miss + others / self.total**2

    def at_labels(self, matrix: Array) -> Array:
        """The element of each row at its label: (n, K) -> (n,)."""
        return matrix[self.rows, self.labels]

    def sum_others(self, matrix: Array, total: Callable[[Array], Array] = sum_classes) -> Array:
        """Sum over the classes other than the label: (n, K) -> (n,); puts back what it changes."""
        at_label = self.at_labels(matrix)
        matrix[self.rows, self.labels] = 0
        others = total(matrix)
        matrix[self.rows, self.labels] = at_label
        return others

    def residual(self, factors: Array) -> Array:
        """Factors (n,) times ``p - e_y``, the gradient of the negative log-likelihood: (n, K)."""
        return self._marked(self.exponentials * (factors / self.total)[:, None], factors)

    def last_residual(self, factors: Array) -> Array:
        """`residual`, written over the exponentials, after which nothing can be asked."""
        self.exponentials *= (factors / self.total)[:, None]
        return self._marked(self.exponentials, factors)

    def _marked(self, matrix: Array, factors: Array) -> Array:
        matrix[self.rows, self.labels] = -factors * self.miss
        return matrix

    def residual_along(self, direction: Array) -> tuple[Array, Array]:
        """Derivative (n,) of the nll along a direction (n, K), and the mean direction (n,)."""
        mean = sum_classes(self.exponentials * direction) / self.total
        return mean - self.at_labels(direction), mean


def smallest(array: Array) -> Any:
    """The smallest positive number that the precision of an array holds with all digits."""
    return namespace(array).finfo(array.dtype).smallest_normal
