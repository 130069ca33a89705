"""The words of the nano corpus: nouns, class names, what a class implies, and the ways in which people ask."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rsqa.scenes.scene import COVERS, OBJECTS
from rsqa.tasks.detect import ALL


@dataclass(frozen=True, slots=True)
class Noun:
    """One thing that may be on the ground."""

    one: tuple[str, ...]
    """With its article, or a mass noun; the first is the plain name."""
    many: tuple[str, ...] = ()
    """Plurals; empty for mass nouns."""


NOUNS: dict[str, Noun] = {
    # The 17 labels of UC Merced, under their own names.
    "airplane": Noun(("an airplane", "a plane", "an aircraft"), ("airplanes", "planes", "aircraft")),
    "bare-soil": Noun(("bare soil", "bare ground", "soil", "exposed earth")),
    "buildings": Noun(("a building", "a roof"), ("buildings", "rooftops")),
    "cars": Noun(("a car", "a vehicle"), ("cars", "vehicles")),
    "chaparral": Noun(("chaparral", "shrubland", "scrub"), ("shrubs", "bushes")),
    "court": Noun(("a court", "a tennis court", "a sports court"), ("courts", "tennis courts")),
    "dock": Noun(("a dock", "a pier"), ("docks", "piers")),
    "field": Noun(
        ("a field", "farmland", "a farm field", "cropland", "agricultural land"), ("fields", "crops", "farm fields")
    ),
    "grass": Noun(("grass", "a lawn", "green grass")),
    "mobile-home": Noun(("a mobile home", "a trailer home"), ("mobile homes",)),
    "pavement": Noun(("pavement", "asphalt", "a paved area", "concrete")),
    "sand": Noun(("sand", "a sandy area")),
    "sea": Noun(("sea", "a sea", "the sea", "ocean", "the ocean", "sea water")),
    "ship": Noun(("a ship", "a boat", "a vessel"), ("ships", "boats", "vessels")),
    "tanks": Noun(("a tank", "a storage tank", "an oil tank"), ("tanks", "storage tanks", "oil tanks")),
    "trees": Noun(("a tree", "vegetation with trees"), ("trees",)),
    "water": Noun(("water", "a body of water", "a water surface"), ("water bodies",)),
    # What classes, boxes and procedural truth add.
    "river": Noun(("a river", "a stream"), ("rivers",)),
    "pond": Noun(("a pond", "a lake"), ("ponds", "lakes")),
    "road": Noun(("a road", "a street"), ("roads", "streets")),
    "freeway": Noun(("a freeway", "a highway", "a motorway"), ("freeways", "highways")),
    "bridge": Noun(("a bridge",), ("bridges",)),
    "overpass": Noun(("an overpass", "a viaduct", "a flyover"), ("overpasses", "viaducts")),
    "intersection": Noun(("an intersection", "a crossroads", "a road crossing"), ("intersections",)),
    "runway": Noun(("a runway", "an airstrip"), ("runways",)),
    "airport": Noun(("an airport", "an airfield"), ("airports",)),
    "parking-lot": Noun(("a parking lot", "a car park"), ("parking lots", "car parks")),
    "harbor": Noun(("a harbor", "a port", "a marina"), ("harbors", "ports")),
    "beach": Noun(("a beach", "a sandy shore"), ("beaches",)),
    "forest": Noun(("a forest", "woodland", "dense forest"), ("forests", "woods")),
    "desert": Noun(("a desert", "sand dunes"), ("deserts", "dunes")),
    "mountain": Noun(("a mountain", "a ridge"), ("mountains", "hills")),
    "meadow": Noun(("a meadow", "grassland", "pasture"), ("meadows",)),
    "golf-course": Noun(("a golf course",), ("golf courses",)),
    "baseball-field": Noun(("a baseball field", "a baseball diamond"), ("baseball fields", "baseball diamonds")),
    "stadium": Noun(("a stadium", "a sports arena"), ("stadiums",)),
    "track": Noun(("a running track", "a playground", "a ground track field"), ("running tracks", "playgrounds")),
    "basketball-court": Noun(("a basketball court",), ("basketball courts",)),
    "railway": Noun(("a railway", "a railroad", "a train station"), ("railway tracks", "trains", "rails")),
    "church": Noun(("a church",), ("churches",)),
    "residential": Noun(("a residential area", "a neighborhood", "a house", "housing"), ("houses", "homes")),
    "industrial": Noun(("an industrial area", "a factory", "a warehouse"), ("factories", "warehouses")),
    "pool": Noun(("a swimming pool", "a pool"), ("swimming pools", "pools")),
}


def plain(noun: str) -> str:
    """The plain name of a noun without its article."""
    return bare(NOUNS[noun].one[0])


def bare(name: str) -> str:
    """A name without its article."""
    return name.removeprefix("a ").removeprefix("an ").removeprefix("the ")


UCM_LABELS = (
    "airplane", "bare-soil", "buildings", "cars", "chaparral", "court", "dock", "field", "grass", "mobile-home",
    "pavement", "sand", "sea", "ship", "tanks", "trees", "water",
)  # fmt: skip
"""The multi-labels of UC Merced, under their own names."""


def shown_labels(labels: Iterable[str]) -> frozenset[str]:
    """What a picture with these labels shows, as people say it: the label "water" is for inland water alone, never
    beside "sea", but asked for water they call the sea water, too.
    """
    given = frozenset(labels)
    return given | {"water"} if "sea" in given else given


SCENE_NOUNS = {
    "field": "field", "forest": "forest", "water": "water", "road": "road", "building": "buildings",
    "parking lot": "parking-lot", "ship": "ship", "plane": "airplane", "storage tank": "tanks",
}  # fmt: skip
"""Scene label -> key of NOUNS."""
BOXED = ("airplane", "buildings", "ship", "tanks")
"""Nouns whose boxes visual tokens are taught to know."""
GROUND_OF = {noun: label for label, noun in SCENE_NOUNS.items()}
PLURALS = {noun: NOUNS[noun].many[0] for label, noun in SCENE_NOUNS.items() if label in OBJECTS}
GROUND = (*COVERS, *(thing for thing in OBJECTS if thing not in COVERS))
"""What a place in a scene shows: its cover, or the ship, plane or tank on it."""

NEVER = (
    "a volcano", "an iceberg", "snow", "a glacier", "a castle", "an elephant", "a whale", "a wind turbine",
    "a solar farm",
    "a waterfall", "a pyramid", "a coral reef", "a rocket", "a tank battle", "a rainbow", "a geyser", "lava", "a zebra",
    "a windmill", "an oil rig", "a ferris wheel", "a rice terrace", "a quarry lake with ice", "a lighthouse",
    "a dinosaur",
)  # fmt: skip
"""Not in these pictures; asked rarely, so that an unknown noun leans to no."""

SAME_PLACE = ({"harbor", "port"}, {"overpass", "viaduct"}, {"airport", "runway", "airplane"}, {"park", "square",
"resort"},
              {"buildings", "commercial area", "center"}, {"bare land", "desert"}, {"farmland", "meadow"})  # fmt: skip
"""Class names that may both be right; never offered against each other across data sets."""

URBAN = frozenset({
    "airport", "buildings", "center", "church", "commercial area", "dense residential", "industrial area",
    "intersection",
    "medium residential", "mobile home park", "overpass", "parking lot", "railway station", "school", "square",
    "stadium",
    "viaduct", "port", "tennis court",
})  # fmt: skip
RURAL = frozenset(
    {"farmland", "forest", "chaparral", "desert", "meadow", "mountain", "bare land", "sparse residential"}
)

GENERIC = frozenset(
    {"trees", "grass", "cars", "buildings", "road", "pavement", "bare-soil", "water", "residential", "pool"}
)
"""May be in nearly any scene: unknown unless a class says more."""

# class name: surely there | may be there | generic things that surely are not. What is named nowhere is not there.
_IMPLIED = """
airport: airport runway pavement road | airplane parking-lot field meadow industrial freeway | sea
bare land: bare-soil | field meadow chaparral sand desert mountain road | water
baseball field: baseball-field grass | court basketball-court track parking-lot stadium field meadow |
beach: beach sand sea water | ship dock mountain forest harbor | cars
bridge: bridge water road | river pond sea ship freeway overpass forest dock harbor intersection |
center: buildings pavement road | stadium parking-lot intersection freeway industrial pond |
church: church buildings | parking-lot intersection |
commercial area: buildings road | parking-lot intersection freeway industrial overpass |
dense residential: residential buildings road trees | parking-lot intersection freeway |
desert: desert sand | bare-soil mountain | buildings water trees grass cars pavement
farmland: field | meadow bare-soil road forest pond | pool
forest: forest trees | mountain | buildings water cars pavement
industrial area: industrial buildings road | parking-lot tanks intersection freeway railway |
meadow: meadow grass | field forest | buildings cars water pavement
medium residential: residential buildings trees road | intersection parking-lot pond |
mountain: mountain | forest bare-soil desert chaparral | buildings cars pavement
park: trees grass | pond river forest meadow bridge parking-lot track baseball-field basketball-court court ship dock |
parking lot: parking-lot cars pavement | industrial intersection |
playground: track grass | court basketball-court baseball-field stadium parking-lot |
pond: pond water | field forest meadow river bridge |
port: harbor water ship dock | sea parking-lot tanks industrial bridge river |
railway station: railway buildings | bridge parking-lot overpass freeway industrial intersection stadium |
resort: buildings trees | pool pond sea beach sand forest dock ship golf-course court water parking-lot harbor |
river: river water | field forest meadow bridge ship mountain sand |
school: buildings trees | track court basketball-court baseball-field parking-lot stadium |
sparse residential: residential trees | forest field meadow mountain pond buildings desert |
square: pavement | pond parking-lot intersection church trees stadium |
stadium: stadium | track grass baseball-field parking-lot court basketball-court |
storage tanks: tanks | industrial sea harbor field parking-lot river railway dock ship |
viaduct: overpass road freeway | bridge intersection forest field railway parking-lot |
airplane: airplane pavement airport | runway parking-lot |
buildings: buildings | parking-lot intersection industrial road |
chaparral: chaparral | bare-soil desert mountain forest meadow | buildings cars water
freeway: freeway road cars | intersection bridge overpass field |
golf course: golf-course grass trees | pond sand meadow forest water |
harbor: harbor ship water dock | sea |
intersection: intersection road | parking-lot freeway |
mobile home park: residential | road |
overpass: overpass freeway road | bridge intersection railway |
runway: runway pavement airport | field meadow road |
tennis court: court | basketball-court track parking-lot residential pool road |
"""


@dataclass(frozen=True, slots=True)
class Implied:
    """What a class name says about nouns; all others are unknown."""

    present: frozenset[str]
    absent: frozenset[str]


def _implied() -> dict[str, Implied]:
    table = {}
    for line in _IMPLIED.strip().splitlines():
        name, facts = line.split(":")
        sure, maybe, never = (frozenset(part.split()) for part in facts.split("|"))
        absent = (frozenset(NOUNS) - sure - maybe - GENERIC) | never
        # Vague or overlapping words are not denied on the strength of a class name alone.
        vague = {"water": {"sea", "pond", "river"}, "sea": {"water"}, "sand": {"beach", "desert"}, "field": {"meadow"}}
        open_words = {noun for noun, kin in vague.items() if kin & (sure | maybe) and noun not in never}
        table[name] = Implied(sure, absent - open_words)
    return table


IMPLIED = _implied()

ASK_ONE = (
    "Is there {}?", "Is there {}?", "Is there {} in the image?", "Is there {} in this picture?",
    "Does the image show {}?",
    "Does this picture contain {}?", "Can you see {} in this image?", "Can you see {}?", "Is {} visible?",
    "Does the scene contain {}?", "Do you see {} here?", "Is {} present in the image?", "Does this tile contain {}?",
    "Is there {} here?", "Does the image contain {}?", "Is there {} in this area?",
)  # fmt: skip
ASK_MASS = ("Is there any {}?", "Is there any {} in the image?", "Can you see any {}?", "Is some {} visible here?")
ASK_MANY = (
    "Are there {}?", "Are there any {}?", "Are there any {} in the image?", "Are there {} in this picture?",
    "Does the image show {}?", "Does this picture contain {}?", "Can you see any {}?",
    "Can you see {} in this picture?",
    "Are {} visible?", "Do you see any {} here?", "Are {} present in the image?", "Are there some {} here?",
)  # fmt: skip
ASK_IS_THIS = (
    "Is this {}?",
    "Is it {}?",
    "Does the image show {}?",
    "Is this a picture of {}?",
    "Does this look like {}?",
)
ASK_CLASS = (
    "What kind of scene is this?", "Which class is it?", "What is the land use?", "What does the image show?",
    "What type of area is this?", "Which scene is shown?", "What is this?", "Classify the image.",
    "What is the scene category?", "Which land use class does this image belong to?",
)  # fmt: skip
ASK_OF_LIST = (
    "Classify the image within one of the given classes: {}. Answer with one word or short phrase.",
    "Which of these is it: {}?", "Which class is it? Choose one of: {}.",
    "What kind of scene is this? Choose one of: {}.",
    "What is the land use? Choose one of: {}.", "What does the image show? Choose one of: {}.",
    "Which of the following best describes the image: {}?", "Which is it? Choose one of: {}.",
)  # fmt: skip
ASK_PAIR = ("Is it {} or {}?", "Is this {} or {}?", "Does the image show {} or {}?")
ASK_COUNT = (
    "How many {} are there?", "How many {} are there in the image?", "How many {} can you see?",
    "How many {} in the picture?",
    "How many {} are visible?", "What is the number of {}?", "Count the {}.", "How many {} does the image show?",
)  # fmt: skip
ASK_MORE = (
    "Are there more {} than {}?", "Are there more {} than {} in the image?",
    "Is the number of {} larger than the number of {}?",
)  # fmt: skip
ASK_AREA = (
    "Is it a rural or an urban area?", "Is it a rural or an urban area", "Is this area rural or urban?",
    "Rural or urban?",
    "Is this an urban or a rural area?", "Is it urban or rural?",
)  # fmt: skip
ASK_CAPTION = (
    "Describe the image.", "Describe the scene.", "What is in the image?", "Describe this picture in one sentence.",
    "Write a short caption.", "Describe what you see.", "Give a short description of the image.", "Caption this image.",
)  # fmt: skip
ASK_BOX = (
    "Where is {}?", "Locate {}.", "Find {}.", "Output the box of {}.", "Give the bounding box of {}.", "Mark {}.",
)  # fmt: skip
ASK_EVERY = (ALL, ALL, "Find every {}.", "Locate every {}.", "Where is every {}?", "all {} objects")
ASK_WHERE = ("Where is the {}?", "Where in the image is the {}?", "In which part of the image is the {}?")
ASK_MAIN = ("What covers most of the image?", "What is the main land cover?", "Which land cover is the largest?")

_BELOW_20 = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
NUMBER_WORDS = {word: n for n, word in enumerate(_BELOW_20)} | {word: 20 + 10 * n for n, word in enumerate(_TENS)}


def number_in_digits(text: str) -> str | None:
    """The number that "twenty-eight" or "28" means, as "28"; None where it is no plain number."""
    words = text.strip().lower().replace("-", " ").split()
    if len(words) == 1 and words[0].isdigit():
        return words[0]
    if not words or len(words) > 2 or any(word not in NUMBER_WORDS for word in words):
        return None
    values = [NUMBER_WORDS[word] for word in words]
    if len(values) == 2 and not (values[0] >= 20 and 1 <= values[1] <= 9):
        return None
    return str(sum(values))
