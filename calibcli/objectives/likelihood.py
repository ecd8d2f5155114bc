"""What a block of logits says of its labels: the quantities that the losses are made of."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from calibcli.arrays import Array, namespace, shift, sum_classes


class Likelihood:
    """Softmax of logits (n, K), and of each label its probability, with all digits.

    The probability of the other classes is summed over them and not subtracted from 1, so that
    what is small stays accurate: at float32 a label with probability 1 - 1e-12 has a `miss` of
    1e-12 and a negative log-likelihood of 1e-12.

    Attributes
    ----------
    labels : int array (n,)
    shifted : array (n, K)
        Logits minus the largest of their row.
    true_prob : array (n,)
        Probability of the label.
    miss : array (n,)
        Probability of all other classes.
    nll : array (n,)
        Negative log-likelihood.
    total : array (n,)
        Sum of the exponentials of `shifted`; 1 / total is the largest probability of the row.
    """

    def __init__(self, logits: Array, labels: Array) -> None:
        xp = namespace(logits)
        self.labels = labels
        self.rows = xp.arange(logits.shape[0], device=logits.device)
        self.shifted = shift(logits)
        self.exponentials = xp.exp(self.shifted)
        at_label = self.at_labels(self.exponentials)
        others = self.sum_others(self.exponentials)
        self.total = others + at_label
        self.true_prob = at_label / self.total
        self.miss = others / self.total
        # Every term of the argument is at least 0: the largest exponential, own or not, is 1.
        self.nll = xp.log1p(others + (at_label - 1)) - self.at_labels(self.shifted)

    @cached_property
    def probs(self) -> Array:
        """Probabilities (n, K)."""
        return self.exponentials / self.total[:, None]

    @property
    def hits(self) -> Array:
        """Whether the label is the most probable class, alone or with others (n,): 1 or 0."""
        at_label = self.at_labels(self.shifted)
        return namespace(at_label).astype(at_label == 0, at_label.dtype)

    @cached_property
    def squared_distance(self) -> Array:
        """Squared distance (n,) of the probabilities from the label's corner of the simplex."""
        return self.miss * self.miss + self.sum_others(self.exponentials**2) / self.total**2

    def at_labels(self, matrix: Array) -> Array:
        """The element of each row at its label: (n, K) -> (n,)."""
        return matrix[self.rows, self.labels]

    def sum_others(self, matrix: Array) -> Array:
        """Sum over the classes other than the label: (n, K) -> (n,); puts back what it changes."""
        at_label = self.at_labels(matrix)
        matrix[self.rows, self.labels] = 0
        others = sum_classes(matrix)
        matrix[self.rows, self.labels] = at_label
        return others

    def residual(self, factors: Array) -> Array:
        """Factors (n,) times ``p - e_y``, the gradient of the negative log-likelihood: (n, K)."""
        matrix = self.exponentials * (factors / self.total)[:, None]
        matrix[self.rows, self.labels] = -factors * self.miss
        return matrix

    def residual_along(self, direction: Array) -> tuple[Array, Array]:
        """Derivative (n,) of the nll along a direction (n, K), and the mean direction (n,)."""
        mean = sum_classes(self.exponentials * direction) / self.total
        return mean - self.at_labels(direction), mean


def smallest(array: Array) -> Any:
    """The smallest positive number that the precision of an array holds with all digits."""
    return namespace(array).finfo(array.dtype).smallest_normal
