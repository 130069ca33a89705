"""What a VRT may contain.

A VRT is a program in XML: it can name remote files, raw bytes of any file and Python code. Only the plain mosaics that
gdalbuildvrt writes are opened, and only after every element, attribute and source has been looked at.

GDAL's XML parser is laxer than Python's (case, comments, child elements in the place of attributes). What the two could
read differently is refused.
"""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ET

MAX_VRT_BYTES = 64 << 20

_ELEMENTS = """
VRTDataset SRS GeoTransform GCPList GCP Metadata MDI VRTRasterBand ColorInterp ColorTable Entry NoDataValue Description
HideNoDataValue UnitType Offset Scale CategoryNames Category SimpleSource ComplexSource SourceFilename SourceBand
SourceProperties SrcRect DstRect NODATA UseMaskBand MaskBand ScaleOffset ScaleRatio LUT ColorTableComponent OverviewList
Overview BlockXSize BlockYSize
"""
_ATTRIBUTES = """
rasterXSize rasterYSize dataType band blockXSize blockYSize dataAxisToSRSAxisMapping coordinateEpoch relativeToVRT
shared RasterXSize RasterYSize DataType BlockXSize BlockYSize xOff yOff xSize ySize resampling key domain c1 c2 c3 c4
Id Info Pixel Line X Y Z Projection
"""
KNOWN_ELEMENTS = frozenset(_ELEMENTS.split())
KNOWN_ATTRIBUTES = frozenset(_ATTRIBUTES.split())


def vrt_sources(path: str) -> list[str]:
    """Absolute paths of the files that a VRT is made of. ValueError when it is more than a mosaic of local files."""
    if os.path.getsize(path) > MAX_VRT_BYTES:
        raise ValueError(f"it is larger than {MAX_VRT_BYTES >> 20} MB")
    with open(path, encoding="utf-8-sig") as file:
        text = file.read()  # a UnicodeDecodeError is a ValueError
    if "<!" in text or "<?" in text[1:]:
        raise ValueError("it holds comments, entities or instructions")
    try:
        root = ET.fromstring(text)
    except ET.ParseError as error:
        raise ValueError(f"it is not XML ({error})") from None
    if root.tag != "VRTDataset":
        raise ValueError(f"its root is <{root.tag}>")
    for element in root.iter():
        _check(element)
    folder = os.path.dirname(path)
    return list(dict.fromkeys(_source_path(element, folder) for element in root.iter("SourceFilename")))


def _check(element: ET.Element) -> None:
    if element.tag not in KNOWN_ELEMENTS:
        raise ValueError(f"it holds <{element.tag}>, more than a plain mosaic")
    for name, value in element.attrib.items():
        harmless = name in KNOWN_ATTRIBUTES and (name != "domain" or re.fullmatch("[A-Z_]*", value))
        plain_band = element.tag == "VRTRasterBand" and (name, value) == ("subClass", "VRTSourcedRasterBand")
        if not (harmless or plain_band):
            raise ValueError(f"it holds {name}={value!r}, more than a plain mosaic")


def _source_path(element: ET.Element, folder: str) -> str:
    name = element.text or ""
    relative = element.get("relativeToVRT", "0") == "1"
    # GDAL gives prefixes such as GTIFF_DIR: and vrt: a meaning of their own; no plain file name needs a colon
    if not name or re.match(r"[^/\\]*:", name) or (relative and os.path.isabs(name)):
        raise ValueError(f"its source {name!r} is not a plain file name")
    full = os.path.normpath(os.path.join(folder, name)) if relative else name
    if not os.path.isabs(full) or full.startswith("/vsi"):
        raise ValueError(f"its source {name!r} is not a local file")
    return full
