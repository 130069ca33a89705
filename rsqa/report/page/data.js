"use strict";
// What rsqa packed into this page: words as JSON, numbers as one gzipped run of arrays.

function fromBase64(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

async function unpack() {
  const facts = JSON.parse(document.getElementById("facts-json").textContent);
  const packed = new Blob([fromBase64(document.getElementById("arrays").textContent)]);
  const content = await new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  const types = { Uint8Array, Uint16Array, Uint32Array, Float32Array };
  const array = (where) => new types[where.type](content, where.at, where.n);
  const strings = JSON.parse(new TextDecoder().decode(array(facts.strings)));
  const questions = facts.questions.map((asked) => {
    const own = Object.fromEntries(Object.entries(asked.arrays).map(([name, where]) => [name, array(where)]));
    const rgb = asked.colours.map((hex) => Object.assign(parseColour(hex), { quiet: hex === facts.quiet }));
    return { ...asked, ...own, none: asked.options.length < 256 ? 255 : 65535, rgb };
  });
  const boxes = facts.boxes && {
    ...facts.boxes,
    corners: array(facts.boxes.corners),
    label: array(facts.boxes.label),
    score: array(facts.boxes.score),
  };
  return { ...facts, strings, questions, boxes };
}

function parseColour(hex) {
  const number = parseInt(hex.slice(1), 16);
  return [number >> 16, (number >> 8) & 255, number & 255];
}

// Pictures are decoded beside the first drawing, each drawn when it is ready.
function loadPictures(sources, ready) {
  for (const source of sources) {
    source.image = null;
    if (!source.picture) continue;
    const image = new Image();
    image.onload = () => {
      source.image = image;
      ready(source);
    };
    image.src = "data:image/webp;base64," + document.getElementById(source.picture).textContent;
  }
}

// Why there is no answer -> in a word, and at length.
const UNKNOWN = {
  unsure: ["less sure", "The confidence is below the one asked for."],
  off_list: ["off the list", "The model would rather have said what is no allowed answer. Of those that are, how likely each was:"],
  abstained: ["not sure enough", "The label was less sure than asked for when the tiles were classified."],
  unparsed: ["not understood", "What the model said could not be read as an answer."],
  truncated: ["cut off", "The model was still reasoning when its room was used up."],
  nodata: ["no data", "Too few pixels are valid; the model was not asked."],
  error: ["failed", "The tile could not be read or answered."],
  missing: ["not asked", "There is no row for this tile."],
};

// What a tile says to a question: the number of an option, or (as text) why there is no answer.
function outcome(data, question, tile, threshold) {
  const status = question.status[tile];
  if (status === data.steps.noRow) return "missing";
  if (data.statuses[status] !== "ok") return data.statuses[status];
  if (!question.options.length) return 0;
  const value = question.value[tile];
  if (value === question.none) return "unparsed";
  const sure = question.confidence[tile];
  if (threshold > 0 && (sure === data.steps.noConfidence || sure < threshold * data.steps.confidence)) return "unsure";
  return value;
}

// The source and the place in it of a tile's number.
function locate(data, tile) {
  let low = 0;
  let high = data.sources.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (data.sources[middle].first <= tile) low = middle;
    else high = middle - 1;
  }
  const source = data.sources[low];
  const row = Math.floor((tile - source.first) / source.cols);
  return { source, row, col: tile - source.first - row * source.cols };
}

// The pixels of its source that a tile answers for.
function corePixels({ source, row, col }) {
  const left = col * source.tile_px;
  const top = row * source.tile_px;
  return {
    left, top,
    width: Math.min(source.tile_px, source.width - left),
    height: Math.min(source.tile_px, source.height - top),
  };
}

// The pixel (col, row) of a source at a place of the map.
function toPixel(source, x, y) {
  const [a, b, c, d, e, f] = source.transform;
  const determinant = a * e - b * d;
  return [(e * (x - c) - b * (y - f)) / determinant, (a * (y - f) - d * (x - c)) / determinant];
}

// The objects whose middle lies in a tile, the likeliest first.
function objectsIn(data, place) {
  const { corners, label, score } = data.boxes;
  const core = corePixels(place);
  const found = [];
  for (let box = 0; box < label.length; box++) {
    const at = 8 * box;
    const [col, row] = toPixel(place.source, (corners[at] + corners[at + 4]) / 2, (corners[at + 1] + corners[at + 5]) / 2);
    const inside = col >= core.left && row >= core.top && col < core.left + core.width && row < core.top + core.height;
    if (inside) found.push({ label: data.boxes.labels[label[box]], score: score[box] });
  }
  return found.sort((a, b) => (b.score || 0) - (a.score || 0));
}
