"""The maps from logits to log-probabilities, one family a file.

`base` has the contracts: a `Calibrator` is a fitted map, a `Family` what can be fitted by name.
`registry` knows all of them; `parameters` reads those of a stage from a file, `chain` runs stages
one after the other. `links` turns what an improper loss asks for into probabilities; `groups`,
`top` and the mixtures of `chain` are made of other calibrators.

Smooth maps share `affine` (vectors and matrices), `binary` (two classes), `piecewise` (linear
functions and their knots) and `curvature` (derivatives for solvers). One-vs-rest curves share
`curves`, `logistic`, and what `isotonic`, `binning` and `augmented_isotonic` make of a sample.
"""
