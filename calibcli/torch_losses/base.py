"""The adaptor between objectives and torch: a loss a row, with its gradient in closed form."""

from __future__ import annotations

import inspect
from itertools import count
from typing import Any, ClassVar, Literal, TypeAlias, get_args
from weakref import WeakValueDictionary

import torch

from calibcli.errors import DataError, UsageError
from calibcli.objectives.base import Objective
from calibcli.options import options_of
from calibcli.torch_losses.images import as_images, check_shapes, put_rows, row_labels, some_rows

Reduction: TypeAlias = Literal["mean", "sum", "none"]
"""What becomes of the losses of the rows."""

_PAIRS_AT_A_TIME = 1 << 22
"""Elements of the blocks in which losses are averaged over the labels of a distribution."""


_ELEMENTS_OF_TILE = 1 << 18
"""Elements whose rows are computed at a time on a CPU: so many are still in its nearer caches."""


class RowLosses(torch.autograd.Function):  # type: ignore[misc]
    """Losses (n,) of logits (B, N, K) and labels, and their gradient (B, N, K), by a module.

    The gradient is computed along with the losses and kept until it is asked for; nothing else is.
    """

    @staticmethod
    def forward(logits: Any, labels: Any, module: Loss) -> tuple[Any, Any]:
        if torch.compiler.is_compiling():
            return torch.ops.calib.row_losses(  # type: ignore[no-any-return]
                logits, labels, module.handle
            )
        return module.losses_and_gradient(logits, labels)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        del inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, upstream: Any, of_gradient: Any = None) -> Any:
        # A compiler traces this with all gradients; it refuses second derivatives by itself.
        if of_gradient is not None and not torch.compiler.is_compiling():
            raise UsageError("this loss can be differentiated once, not twice")
        (gradient,) = ctx.saved_tensors
        return _scaled(gradient, upstream), None, None


def _scaled(gradient: Any, upstream: Any) -> Any:
    """The gradient (B, N, K) times that of each row's loss (n,)."""
    return None if upstream is None else gradient * upstream.reshape(*gradient.shape[:2], 1)


_MODULES: WeakValueDictionary[int, Loss] = WeakValueDictionary()
_HANDLES = count()


# For a compiler a loss is one operation: what it is made of depends on what has been learnt.
@torch.library.custom_op("calib::row_losses", mutates_args=())  # type: ignore[untyped-decorator]
def _row_losses(
    logits: torch.Tensor, labels: torch.Tensor, handle: int
) -> tuple[torch.Tensor, torch.Tensor]:
    losses, gradient = _MODULES[handle].losses_and_gradient(logits, labels)
    return losses.clone(), gradient.contiguous()


@_row_losses.register_fake  # type: ignore[untyped-decorator]
def _(logits: torch.Tensor, labels: torch.Tensor, handle: int) -> tuple[torch.Tensor, torch.Tensor]:
    del labels, handle
    return logits.new_empty(logits.shape[0] * logits.shape[1]), torch.empty_like(
        logits, memory_format=torch.contiguous_format
    )


class Loss(torch.nn.Module):  # type: ignore[misc]
    """An objective as a loss of a training loop: logits and labels to a number.

    Shapes are those of `torch.nn.functional.cross_entropy`: logits (n, K), or (B, K, ...) with
    labels (B, ...); the classes are at `class_axis`. Half-precision logits, as under autocast, are
    taken to float32, and so is the loss; the gradient comes back in the precision of the logits.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        Of the losses of the rows; the mean is over those that are not ignored, and 0 if all are.
        The learning rates of the papers on CALS and MbLS are for means over the batch, those on
        focal losses, AdaFocal and BSCE-GRA for sums.
    ignore_index : int
        The label of rows that don't count.
    class_axis : int
        Where the classes of logits are: 1 as for images (B, K, H, W), -1 for tokens (B, L, K).
    weight : array-like (K,), optional
        Weight of each class in loss and mean, as in `cross_entropy`.
    label_smoothing : float
        Share of the label that is spread over all classes: the loss is then its expectation over
        the smoothed label.
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
    handle: int

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Give the class the signature that its objective's options make."""
        super().__init_subclass__(**kwargs)
        if "family" in vars(cls):
            cls.__signature__ = _signature(cls)

    def __init__(
        self,
        *,
        reduction: Reduction = "mean",
        ignore_index: int = -100,
        class_axis: int = 1,
        weight: Any = None,
        label_smoothing: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__()
        if reduction not in get_args(Reduction):
            raise UsageError(f"reduction is {reduction!r}; it must be one of mean, sum, none")
        if not 0 <= label_smoothing <= 1:
            raise UsageError(f"label_smoothing is {label_smoothing}; it must be from 0 to 1")
        self.reduction = reduction
        self.ignore_index = ignore_index
        self.class_axis = class_axis
        self.label_smoothing = float(label_smoothing)
        self.register_buffer("weight", _class_weights(weight), persistent=False)
        self.objective = _objective(self.family, options)
        if label_smoothing and self._no_expectation():
            raise UsageError(f"label_smoothing: {self._no_expectation()}")
        self._register()

    def __setstate__(self, state: Any) -> None:
        """A copy is a module of its own for compilers, too."""
        super().__setstate__(state)
        self._register()

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss: a number, or in the shape of the labels with the reduction ``none``.

        Parameters
        ----------
        logits : tensor (n, K), or of more axes with the classes at `class_axis`
        labels : integer tensor in the shape of the logits without the classes
            From 0 to K - 1, or `ignore_index`, on the device of the logits. Or a floating-point
            tensor in the shape of the logits with the probability of each class, as mixup or the
            votes of annotators make them: the loss is then its expectation over the label.

        Raises
        ------
        DataError
            Other shapes or precisions; on a CPU also labels that are out of range, elsewhere those
            end in an assertion of the device.
        UsageError
            Distributions as labels, for a loss that learns from the labels of the batch.
        """
        shape = check_shapes(logits, labels, self.class_axis)
        logits = as_images(logits, self.class_axis)
        labels = row_labels(labels, self.class_axis)
        if labels.is_floating_point() and self._no_expectation():
            raise UsageError(f"labels: {self._no_expectation()}")
        if torch.compiler.is_compiling() or (torch.is_grad_enabled() and logits.requires_grad):
            losses, _ = RowLosses.apply(logits, labels, self)
        else:
            losses, _ = self.losses_and_gradient(logits, labels, wanted=False)
        counts = None if labels.is_floating_point() else labels != self.ignore_index
        if counts is not None:
            losses = torch.where(counts, losses, 0.0)
        if self.reduction == "none":
            return losses.reshape(shape)
        total = losses.sum()
        if self.reduction == "sum":
            return total
        if counts is None:
            return total / max(len(losses), 1)
        if self.weight is None:
            return total / counts.sum().clamp(min=1)
        mass = (self.weight.to(losses)[torch.where(counts, labels, 0)] * counts).sum()
        return total / torch.where(mass > 0, mass, 1)

    def extra_repr(self) -> str:
        """The options, for `print`."""
        options = {**self.objective.options(), "reduction": self.reduction}
        if self.class_axis != 1:
            options["class_axis"] = self.class_axis
        if self.label_smoothing:
            options["label_smoothing"] = self.label_smoothing
        return ", ".join(f"{name}={value!r}" for name, value in options.items())

    def losses_and_gradient(
        self, logits: Any, labels: Any, *, wanted: bool = True
    ) -> tuple[Any, Any]:
        """Losses (n,) of detached logits (B, N, K), and their gradient if it is wanted.

        Parameters
        ----------
        logits : tensor (B, N, K)
            Of B images, or sequences, of N rows each, which may lie class by class in memory; so
            does the gradient then.
        labels : tensor (n,) of whole numbers, or (n, K) of probabilities, n being B N
        wanted : bool
            Without it the gradient is None, unless it is made along with the losses.
        """
        images = logits.detach()
        with torch.no_grad():
            if labels.is_floating_point():
                rows = images.reshape(-1, images.shape[2])
                losses, gradient = self._expected(self.objective, rows, labels.to(rows.dtype))
                return losses, gradient.view(images.shape)
            labels, kept = self._indices(images, labels)
            objective = self._current(images, labels, kept)
            if self.label_smoothing:
                rows = images.reshape(-1, images.shape[2])
                target = torch.full_like(rows, self.label_smoothing / rows.shape[1])
                target[torch.arange(len(labels), device=labels.device), labels] += (
                    1 - self.label_smoothing
                )
                losses, gradient = self._expected(objective, rows, target, smoothed=True)
                return losses, gradient.view(images.shape)
            losses, gradient = _by_tiles(objective, images, labels, wanted=wanted)
            if self.weight is not None:
                weights = self.weight.to(images)[labels]
                losses = losses * weights
                if gradient is not None:
                    gradient.mul_(weights.view(*images.shape[:2], 1))
            return losses, gradient

    def _expected(
        self, objective: Objective, logits: Any, target: Any, *, smoothed: bool = False
    ) -> tuple[Any, Any]:
        """Losses and gradient, averaged over labels with probabilities (n, K)."""
        if self.label_smoothing and not smoothed:
            share = self.label_smoothing / logits.shape[1]
            target = target * (1 - self.label_smoothing) + share
        if self.weight is not None:
            target = target * self.weight.to(logits)
        slope = objective.label_slope
        if slope is not None:
            # Losses of two labels differ by that of their logits: one label says it all.
            top = target.argmax(dim=1)
            rows = torch.arange(len(top), device=top.device)
            terms = objective.terms(logits, top)
            mass = target.sum(dim=1)
            products = torch.where(target > 0, target * logits, 0.0).sum(dim=1)
            losses = terms.loss * mass + slope * (logits[rows, top] * mass - products)
            gradient = terms.gradient() * mass[:, None] - slope * target
            gradient[rows, top] += slope * mass
            return losses, gradient
        losses, gradient = logits.new_zeros(len(logits)), torch.zeros_like(logits)
        rows, classes = (target > 0).nonzero(as_tuple=True)
        step = max(_PAIRS_AT_A_TIME // logits.shape[1], 1)
        for row, label in zip(rows.split(step), classes.split(step), strict=True):
            terms = objective.terms(logits[row], label)
            share = target[row, label]
            losses.index_add_(0, row, terms.loss * share)
            gradient.index_add_(0, row, terms.gradient() * share[:, None])
        return losses, gradient

    def _current(self, images: Any, labels: Any, kept: Any) -> Objective:
        """The objective at these logits (B, N, K), those of ignored rows among them."""
        return self.objective

    def _no_expectation(self) -> str | None:
        """Why the loss has no expectation over labels; None where it has one."""
        return None

    def _indices(self, logits: Any, labels: Any) -> tuple[Any, Any]:
        """Labels (n,) that can be indices, and which rows count."""
        kept = labels != self.ignore_index
        labels = torch.where(kept, labels, 0)
        if labels.device.type == "cpu":
            _check_range(labels, logits.shape[-1])
        # On a GPU that check would wait for the device. An index past the end stops the kernel by
        # itself; a negative one would count from the end.
        else:
            labels = torch.where(labels < 0, logits.shape[-1], labels)
        return labels, kept

    def _register(self) -> None:
        self.handle = next(_HANDLES)
        _MODULES[self.handle] = self


def _by_tiles(objective: Objective, images: Any, labels: Any, *, wanted: bool) -> tuple[Any, Any]:
    """Losses (n,), and the gradient (B, N, K) if it is wanted, of some rows after the other."""
    classes = images.shape[2]
    step = max(_ELEMENTS_OF_TILE // classes, 1)
    if images.device.type != "cpu" or len(labels) <= step:
        terms = objective.terms(images.reshape(-1, classes), labels)
        return terms.loss, terms.last_gradient().view(images.shape) if wanted else None
    losses = images.new_empty(len(labels))
    gradient = torch.empty_like(images) if wanted else None
    for begin in range(0, len(labels), step):
        end = min(begin + step, len(labels))
        terms = objective.terms(some_rows(images, begin, end), labels[begin:end])
        losses[begin:end] = terms.loss
        if gradient is not None:
            put_rows(gradient, begin, terms.last_gradient())
    return losses, gradient


def _objective(family: type[Objective], options: dict[str, Any]) -> Objective:
    """The objective with some of its options set."""
    known = _defaults(family)
    unknown = next((name for name in options if name not in known), None)
    if unknown is not None:
        listed = ", ".join(f"{name} (default {default})" for name, default in known.items())
        raise UsageError(
            f"{family.name} has no option {unknown!r}; it has {listed and f'{listed}, '}"
            "reduction, ignore_index, class_axis, weight and label_smoothing"
        )
    return family(**family.training_defaults | options)


def _signature(module: type[Loss]) -> inspect.Signature:
    """The parameters of a loss: the options of the objective, and those of the module itself."""
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in _defaults(module.family).items()
    ]
    shared = {
        each.name: each
        for base in module.__mro__
        if issubclass(base, Loss) and "__init__" in vars(base)
        for each in inspect.signature(base.__init__).parameters.values()
        if each.name != "self" and each.kind is not inspect.Parameter.VAR_KEYWORD
    }
    return inspect.Signature(sorted([*options, *shared.values()], key=lambda each: each.kind))


def _defaults(family: type[Objective]) -> dict[str, Any]:
    defaults = {option.name.replace("-", "_"): option.default for option in options_of(family)}
    return defaults | family.training_defaults


def _class_weights(weight: Any) -> Any:
    """Class weights as a vector, or None."""
    if weight is None:
        return None
    weights = torch.as_tensor(weight)
    if weights.ndim != 1 or not bool((weights >= 0).all()) or not bool(weights.isfinite().all()):
        raise DataError("weight must be a vector of finite numbers of at least 0, one a class")
    return weights if weights.is_floating_point() else weights.float()


def _check_range(labels: Any, classes: int) -> None:
    outside = (labels < 0) | (labels >= classes)
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise DataError(
            f"label {int(labels[row])} in row {row} is not from 0 to {classes - 1}; "
            "the label of rows that don't count is ignore_index"
        )
