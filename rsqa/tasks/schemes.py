"""Scene classes of published sets, in the words of their papers: what `--scheme` names.

Where a set's folders are known, they lead to the words. Words that alone would say less than the pictures show are said
whole, in all sets alike: `commercial` and `industrial` are areas, `parking` is a parking lot.
"""

from __future__ import annotations

from collections.abc import Mapping

UCM_NAMES = {
    "agricultural": "farmland", "airplane": "airplane", "baseballdiamond": "baseball field", "beach": "beach",
    "buildings": "buildings", "chaparral": "chaparral", "denseresidential": "dense residential", "forest": "forest",
    "freeway": "freeway", "golfcourse": "golf course", "harbor": "harbor", "intersection": "intersection",
    "mediumresidential": "medium residential", "mobilehomepark": "mobile home park", "overpass": "overpass",
    "parkinglot": "parking lot", "river": "river", "runway": "runway", "sparseresidential": "sparse residential",
    "storagetanks": "storage tanks", "tenniscourt": "tennis court",
}  # fmt: skip
AID_NAMES = {
    "Airport": "airport", "BareLand": "bare land", "BaseballField": "baseball field", "Beach": "beach",
    "Bridge": "bridge",
    "Center": "center", "Church": "church", "Commercial": "commercial area", "DenseResidential": "dense residential",
    "Desert": "desert", "Farmland": "farmland", "Forest": "forest", "Industrial": "industrial area", "Meadow": "meadow",
    "MediumResidential": "medium residential", "Mountain": "mountain", "Park": "park", "Parking": "parking lot",
    "Playground": "playground", "Pond": "pond", "Port": "port", "RailwayStation": "railway station", "Resort": "resort",
    "River": "river", "School": "school", "SparseResidential": "sparse residential", "Square": "square",
    "Stadium": "stadium", "StorageTanks": "storage tanks", "Viaduct": "viaduct",
}  # fmt: skip
EUROSAT_NAMES = {
    "AnnualCrop": "annual crop", "Forest": "forest", "HerbaceousVegetation": "herbaceous vegetation",
    "Highway": "highway", "Industrial": "industrial area", "Pasture": "pasture", "PermanentCrop": "permanent crop",
    "Residential": "residential area", "River": "river", "SeaLake": "sea or lake",
}  # fmt: skip
# Cheng, Han and Lu, 2017 (arXiv:1703.00121), and the authors' page of the set.
NWPU45_NAMES = (
    "airplane", "airport", "baseball diamond", "basketball court", "beach", "bridge", "chaparral", "church",
    "circular farmland", "cloud", "commercial area", "dense residential", "desert", "forest", "freeway",
    "golf course", "ground track field", "harbor", "industrial area", "intersection", "island", "lake", "meadow",
    "medium residential", "mobile home park", "mountain", "overpass", "palace", "parking lot", "railway",
    "railway station", "rectangular farmland", "river", "roundabout", "runway", "sea ice", "ship", "snowberg",
    "sparse residential", "stadium", "storage tank", "tennis court", "terrace", "thermal power station", "wetland",
)  # fmt: skip
# Xia et al., Structural high-resolution satellite image indexing, 2010; Dai and Yang, Satellite image classification
# via two-layer sparse coding with biased image representation, 2011; the names of the set's folders.
WHU_RS19_NAMES = (
    "airport", "beach", "bridge", "commercial area", "desert", "farmland", "football field", "forest",
    "industrial area", "meadow", "mountain", "park", "parking lot", "pond", "port", "railway station",
    "residential area", "river", "viaduct",
)  # fmt: skip
# Zhao et al., Dirichlet-derived multiple topic scene classification model for high spatial resolution remote sensing
# imagery, 2016; the names of the set's folders.
SIRI_WHU_NAMES = (
    "agriculture", "commercial area", "harbor", "idle land", "industrial area", "meadow", "overpass", "park", "pond",
    "residential area", "river", "water",
)  # fmt: skip

SCHEMES: Mapping[str, tuple[str, ...]] = {
    "aid": tuple(AID_NAMES.values()),
    "eurosat": tuple(EUROSAT_NAMES.values()),
    "nwpu45": NWPU45_NAMES,
    "siri-whu": SIRI_WHU_NAMES,
    "ucm": tuple(UCM_NAMES.values()),
    "whu-rs19": WHU_RS19_NAMES,
}
"""Scheme -> its labels: AID 30, EuroSAT 10, NWPU-RESISC45 45, SIRI-WHU 12, UC Merced 21, WHU-RS19 19."""
