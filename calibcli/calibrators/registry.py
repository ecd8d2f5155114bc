"""All calibrators: what can be fitted by name, and what a parameter file may hold.

A line leads to a class as an entry point of a plugin does, and its module is imported at the first
use: who applies a temperature waits for no other map.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from inspect import isabstract
from pkgutil import resolve_name
from typing import Any

from calibcli.calibrators.base import Calibrator, Family
from calibcli.calibrators.parameters import Parameters
from calibcli.errors import ParamsError, UsageError
from calibcli.registry import Registry

_FAMILIES = {
    "temperature": "temperature:TemperatureMap",
    "ridge-temperature": "temperature:RidgeTemperatureMap",
    "ensemble-temperature": "ensemble_temperature:EnsembleTemperatureMap",
    "focal-temperature": "focal_temperature:FocalTemperatureMap",
    "parameterized-temperature": "parameterized_temperature:ParameterizedTemperatureMap",
    "class-temperature": "class_temperature:ClassTemperatureMap",
    "vector": "affine:VectorMap",
    "matrix": "affine:MatrixMap",
    "dirichlet": "affine:DirichletMap",
    "laplace": "laplace:LaplaceMap",
    "svs": "affine:StructuredVectorMap",
    "sms": "affine:StructuredMatrixMap",
    "low-rank": "low_rank:LowRankMap",
    "monotone": "monotone:MonotoneMap",
    "curved-svs": "curved:CurvedVectorMap",
    "curved-sms": "curved:CurvedMatrixMap",
    "gap-temperature": "gap_temperature:GapTemperatureMap",
    "bias-corrected-temperature": "affine:BiasCorrectedTemperatureMap",
    "platt": "binary:PlattMap",
    "beta": "binary:BetaMap",
    "quadratic": "binary:QuadraticMap",
    "spline": "spline:SplineMap",
    "isotonic": "isotonic:IsotonicMap",
    "centered-isotonic": "isotonic:CenteredIsotonicMap",
    "histogram": "binning:HistogramMap",
    "scaling-binning": "binning:ScalingBinningMap",
    "bbq": "binning:BbqMap",
    "venn-abers": "venn_abers:VennAbersMap",
}

_STAGES = {
    "none": "identity:Identity",
    "temperature": "temperature:Temperature",
    "vector": "affine:VectorScaling",
    "matrix": "affine:MatrixScaling",
    "low-rank": "low_rank:LowRank",
    "ensemble-temperature": "ensemble_temperature:EnsembleTemperature",
    "focal-temperature": "focal_temperature:FocalTemperature",
    "parameterized-temperature": "parameterized_temperature:ParameterizedTemperature",
    "class-temperature": "class_temperature:ClassTemperature",
    "laplace": "laplace:LaplaceMixture",
    "monotone": "monotone:Monotone",
    "curved-vector": "curved:CurvedVector",
    "curved-matrix": "curved:CurvedMatrix",
    "gap-temperature": "gap_temperature:GapTemperature",
    "platt": "binary:Platt",
    "beta": "binary:Beta",
    "quadratic": "binary:Quadratic",
    "one-vs-rest": "curves:OneVsRest",
    "spline": "spline:SplineCurves",
    "link": "links:Link",
    "log-linear": "chain:LogLinear",
    "groups": "groups:Groups",
    "top": "top:Top",
    "venn-abers": "venn_abers:VennAbers",
}


def _check_stage(family: type[Family]) -> None:
    """Refuse a plugin's method whose stages a parameter file could not name."""
    stage = family.stage
    if stage is None:
        return
    if not (isinstance(stage, type) and issubclass(stage, Calibrator)) or isabstract(stage):
        raise UsageError(f"its stage {stage!r} is not a complete Calibrator")
    if stage.kind != family.name:
        raise UsageError(f"the kind of its stage is {stage.kind!r}; it must be the method's name")


MAPS: Registry[type[Family]] = Registry(
    "method",
    Family,
    {name: f"calibcli.calibrators.{place}" for name, place in _FAMILIES.items()},
    group="calibcli.methods",
    reserved=("auto", *_STAGES),
    check=_check_stage,
)
"""Families that can be fitted, by name."""


class StageKinds(Mapping[str, type[Calibrator]]):
    """What the stages of a parameter file can be, by kind, the stages of plugins' methods too."""

    def __getitem__(self, kind: str) -> type[Calibrator]:
        if kind in _STAGES:
            calibrator: type[Calibrator] = resolve_name(f"calibcli.calibrators.{_STAGES[kind]}")
            return calibrator
        stage = MAPS[kind].stage
        if stage is None:
            raise KeyError(kind)
        return stage

    def __iter__(self) -> Iterator[str]:
        yield from _STAGES
        yield from (name for name, family in MAPS.items() if family.stage is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


CALIBRATORS = StageKinds()


def read_calibrator(kind: str, values: dict[str, Any], classes: int) -> Calibrator:
    """The calibrator for K classes that a stage of a parameter file describes.

    Raises
    ------
    ParamsError
        An unknown kind, or parameters that it can't have.
    """
    if kind not in CALIBRATORS:
        known = ", ".join(_STAGES)
        raise ParamsError(f"unknown kind of stage {kind!r}; this version knows {known}")
    return CALIBRATORS[kind].from_parameters(Parameters(kind, values, CALIBRATORS), classes)
