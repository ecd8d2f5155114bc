"""The maps from logits to log-probabilities, one family a file.

`base` has the contracts: a `Calibrator` is a fitted map, a `Family` what can be fitted by name.
`registry` knows all of them; `reading` checks the parameters of a stage, `chain` runs stages one
after the other. `links` turns what an improper loss asks for into probabilities, `groups`, `top`
and `log_linear` are made of other calibrators.

Smooth maps share `affine` (vectors and matrices), `binary` (two classes), `pieces` and `knots`
(piecewise linear functions) and `curvature` (metrics for solvers). One-vs-rest curves share
`curves`, `logistic`, and what `isotonic`, `histogram` and `augmented_isotonic` (on `hulls`) do with
a sample.
"""
