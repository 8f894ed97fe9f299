"""The options of ``convert_output``: honoured, nearest, or refused with a reason."""

from __future__ import annotations

from typing import Any

import pytest

from app.errors import InvalidRequest
from app.images import JpegOptions, WebpOptions, check_options
from schemas.prompt import ConvertOutput


def checked(kind: Any, **options: Any) -> Any:
    """The options in their own type."""
    return check_options(ConvertOutput(format=kind, options=options))


@pytest.mark.parametrize(("kind", "model"), [("jpeg", JpegOptions), ("jpg", JpegOptions), ("webp", WebpOptions)])
def test_the_format_decides(kind: Any, model: type) -> None:
    """WebP options are read as WebP options, which comfyui-api did not do."""
    assert isinstance(checked(kind), model)


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("jpeg", {}, {"quality": 80, "progressive": False, "subsampling": "4:2:0", "optimize": True}),
        ("jpeg", {"quality": 1}, {"quality": 1}),
        ("jpeg", {"quality": 100.0}, {"quality": 100}),
        ("jpeg", {"progressive": True}, {"progressive": True}),
        ("jpeg", {"chromaSubsampling": "4:4:4"}, {"subsampling": "4:4:4"}),
        ("jpeg", {"optimizeCoding": False}, {"optimize": False}),
        ("jpeg", {"mozjpeg": True, "optimizeCoding": False}, {"progressive": True, "optimize": True}),
        ("jpeg", {"optimizeScans": True}, {"progressive": True}),
        ("jpeg", {"trellisQuantisation": False, "overshootDeringing": False, "quantisationTable": 0}, {}),
        ("webp", {}, {"quality": 80, "alpha_quality": 100, "lossless": False, "exact": False, "method": 4}),
        ("webp", {"alphaQuality": 0}, {"alpha_quality": 0}),
        ("webp", {"lossless": True}, {"lossless": True, "exact": True}),
        ("webp", {"nearLossless": True}, {"lossless": True}),
        ("webp", {"effort": 6}, {"method": 6}),
        ("webp", {"smartSubsample": False, "preset": "default"}, {}),
    ],
)
def test_what_the_encoder_gets(kind: Any, options: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each option that is honoured or met as nearly as possible reaches Pillow's encoder."""
    given = checked(kind, **options).pillow()
    assert {key: given[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("jpeg", "quality", 0),
        ("jpeg", "quality", 101),
        ("jpeg", "quality", 500),
        ("jpeg", "quality", 80.5),
        ("jpeg", "quality", "80"),
        ("jpeg", "quality", True),
        ("jpeg", "progressive", 1),
        ("jpeg", "progressive", "true"),
        ("jpeg", "chromaSubsampling", "4:2:2"),
        ("jpeg", "optimizeCoding", None),
        ("jpeg", "mozjpeg", "yes"),
        ("jpeg", "trellisQuantisation", True),
        ("jpeg", "overshootDeringing", True),
        ("jpeg", "quantisationTable", 3),
        ("jpeg", "quantisationTable", 9),
        ("jpeg", "background", "red"),
        ("jpeg", "effort", 4),
        ("jpeg", "Quality", 80),
        ("jpeg", "", 80),
        ("webp", "quality", 0),
        ("webp", "alphaQuality", 101),
        ("webp", "alphaQuality", -1),
        ("webp", "effort", 7),
        ("webp", "effort", 99),
        ("webp", "lossless", 1),
        ("webp", "smartSubsample", True),
        ("webp", "preset", "photo"),
        ("webp", "preset", "nice"),
        ("webp", "progressive", True),
        ("webp", "keepMetadata", "no"),
    ],
)
def test_refused_before_the_run(kind: Any, name: str, value: Any) -> None:
    """A value out of range, of the wrong type or not possible here, and an unknown name, are told with their place."""
    with pytest.raises(InvalidRequest) as caught:
        checked(kind, **{name: value})
    assert caught.value.location == f"convert_output.options.{name}".rstrip(".")
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(("kind", "model"), [("jpeg", JpegOptions), ("webp", WebpOptions)])
def test_every_option_of_comfyui_api_is_known(kind: Any, model: Any) -> None:
    """None of the names that requests for comfyui-api have is unknown here, and the defaults are theirs."""
    theirs = {
        "jpeg": {
            "quality": 80,
            "progressive": False,
            "chromaSubsampling": "4:2:0",
            "optimizeCoding": True,
            "mozjpeg": False,
            "trellisQuantisation": False,
            "overshootDeringing": False,
            "optimizeScans": False,
            "quantisationTable": 0,
        },
        "webp": {
            "quality": 80,
            "alphaQuality": 100,
            "lossless": False,
            "nearLossless": False,
            "smartSubsample": False,
            "preset": "default",
            "effort": 4,
        },
    }[kind]
    assert checked(kind, **theirs) == checked(kind)
    assert {name: model.model_fields[name].default for name in theirs} == theirs
