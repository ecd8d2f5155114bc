"""The adaptor between objectives and torch: a loss a row, with its gradient in closed form."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import torch

from calibcli.errors import DataError, UsageError
from calibcli.objectives.base import Objective
from calibcli.options import options_of

Reduction: TypeAlias = Literal["mean", "sum", "none"]
"""What becomes of the losses of the rows."""


class RowLosses(torch.autograd.Function):  # type: ignore[misc]
    """Losses (n,) of logits (n, K) and labels (n,) under an objective.

    The gradient is computed along with the losses and kept until it is asked for; nothing else is.
    """

    @staticmethod
    def forward(ctx: Any, logits: Any, labels: Any, objective: Objective) -> Any:
        terms = objective.terms(logits, labels)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(terms.gradient())
        return terms.loss

    @staticmethod
    def backward(ctx: Any, upstream: Any) -> Any:
        if torch.is_grad_enabled():  # Second derivatives would lack this part, in silence.
            raise UsageError("this loss can be differentiated once; create_graph asks for more")
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[:, None], None, None


class Loss(torch.nn.Module):  # type: ignore[misc]
    """An objective as a loss of a training loop: logits (n, K) and labels (n,) to a number.

    Half-precision logits, as under autocast, are taken to float32, and so is the loss; the gradient
    comes back in the precision of the logits.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        Of the losses of the rows; the mean is over those that are not ignored, and 0 if all are.
    ignore_index : int
        The label of rows that don't count.
    **options
        Those of the objective, as ``calib losses`` lists them, with ``_`` for ``-``.

    Attributes
    ----------
    family : type of Objective
    objective : Objective
        With the state that it has learnt, if it is adaptive.

    Raises
    ------
    UsageError
        An option that there is not, or a value that it can't have.
    """

    family: ClassVar[type[Objective]]
    objective: Objective

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Give the class the signature that its objective's options make."""
        super().__init_subclass__(**kwargs)
        if "family" in vars(cls):
            cls.__signature__ = _signature(cls)

    def __init__(
        self, *, reduction: Reduction = "mean", ignore_index: int = -100, **options: Any
    ) -> None:
        super().__init__()
        if reduction not in get_args(Reduction):
            raise UsageError(f"reduction is {reduction!r}; it must be one of mean, sum, none")
        self.reduction = reduction
        self.ignore_index = ignore_index
        self.objective = _objective(self.family, options)

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss: a number, or (n,) with the reduction ``none``.

        Parameters
        ----------
        logits : tensor (n, K)
        labels : integer tensor (n,)
            From 0 to K - 1, or `ignore_index`, on the device of the logits.

        Raises
        ------
        DataError
            Other shapes or precisions; on a CPU also labels that are out of range, elsewhere those
            end in an assertion of the device.
        """
        logits, labels, kept = self._rows(logits, labels)
        objective = self._current(logits.detach(), labels, kept)
        losses = torch.where(kept, RowLosses.apply(logits, labels, objective), 0.0)
        if self.reduction == "none":
            return losses
        total = losses.sum()
        return total if self.reduction == "sum" else total / kept.sum().clamp(min=1)

    def extra_repr(self) -> str:
        """The options, for `print`."""
        options = {**self.objective.options(), "reduction": self.reduction}
        return ", ".join(f"{name}={value!r}" for name, value in options.items())

    def _current(self, logits: Any, labels: Any, kept: Any) -> Objective:
        """The objective at these logits, those of ignored rows among them."""
        return self.objective

    def _rows(self, logits: Any, labels: Any) -> tuple[Any, Any, Any]:
        """Logits in a precision to compute in, labels that can be indices, and which rows count."""
        _check_shapes(logits, labels)
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        labels = labels.long()
        kept = labels != self.ignore_index
        labels = torch.where(kept, labels, 0)
        if labels.device.type == "cpu":
            _check_range(labels, logits.shape[1])
        # On a GPU that check would wait for the device. An index past the end stops the kernel by
        # itself; a negative one would count from the end.
        return logits, torch.where(labels < 0, logits.shape[1], labels), kept


def _objective(family: type[Objective], options: dict[str, Any]) -> Objective:
    """The objective with some of its options set."""
    known = _defaults(family)
    unknown = next((name for name in options if name not in known), None)
    if unknown is not None:
        listed = ", ".join(f"{name} (default {default})" for name, default in known.items())
        raise UsageError(
            f"{family.name} has no option {unknown!r}; it has {listed and f'{listed}, '}"
            "reduction and ignore_index"
        )
    return family(**family.training_defaults | options)


def _signature(module: type[Loss]) -> inspect.Signature:
    """The parameters of a loss: the options of the objective, and those of the module itself."""
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in _defaults(module.family).items()
    ]
    shared = [
        each
        for each in inspect.signature(module.__init__).parameters.values()
        if each.name != "self" and each.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    return inspect.Signature(sorted([*options, *shared], key=lambda each: each.kind))


def _defaults(family: type[Objective]) -> dict[str, Any]:
    defaults = {option.name.replace("-", "_"): option.default for option in options_of(family)}
    return defaults | family.training_defaults


def _check_shapes(logits: Any, labels: Any) -> None:
    if logits.ndim != 2 or 0 in logits.shape:
        raise DataError(f"logits must have the shape (n, K), not {tuple(logits.shape)}")
    if labels.shape != logits.shape[:1]:
        raise DataError(f"labels must have the shape ({len(logits)},), not {tuple(labels.shape)}")
    if not logits.is_floating_point():
        raise DataError(f"logits must be floating-point numbers, not {logits.dtype}")
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise DataError(f"labels must be whole numbers, not {labels.dtype}")


def _check_range(labels: Any, classes: int) -> None:
    outside = (labels < 0) | (labels >= classes)
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise DataError(
            f"label {int(labels[row])} in row {row} is not from 0 to {classes - 1}; "
            "the label of rows that don't count is ignore_index"
        )
