// The map: pictures, above them one pixel per tile blown up to its size, above that hatching, lines and outlines.
// A source's transform takes its pixels (col, row) to the map (x, y; y grows upwards), the view takes that to the screen.

const GRID_FROM = 14; // screen pixels of a tile from which lines between tiles help
const QUIET = 130; // of 255: how much colour an answer gets that says that nothing is there
const EVIDENCE = [88, 24, 130]; // a violet that no answer has
const PICK_SLACK = 4; // screen pixels that a click may drift

class TileMap {
  constructor(canvas, data, onPick, onHover) {
    Object.assign(this, { canvas, data, onPick, onHover });
    this.context = canvas.getContext("2d");
    this.veil = document.createElement("canvas"); // where hatching is put together
    this.view = { x: 0, y: 0, scale: 1 };
    this.selected = -1;
    this.opacity = 0.6;
    this.hiddenBoxes = new Set(); // numbers of labels
    this.minScore = 0;
    this.showsEvidence = false; // in place of the answers
    this.pending = false;
    for (const source of data.sources) {
      if (data.blocks) source.evidence = canvasOf(source.cols * data.blocks, source.rows * data.blocks);
      source.single = source.rows * source.cols === 1; // thousands of chips: a colour each, not canvases
      if (source.single) continue;
      source.answers = canvasOf(source.cols, source.rows);
      source.unknown = canvasOf(source.cols, source.rows);
    }
    this.readColours();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.readColours();
      this.redraw();
    });
    new ResizeObserver(() => this.resize()).observe(canvas);
    this.listen();
  }

  readColours() {
    const style = getComputedStyle(document.documentElement);
    const named = (name) => style.getPropertyValue(name).trim();
    this.ink = named("--ink");
    this.sheet = named("--sheet");
    this.line = named("--line");
    this.hatch = this.context.createPattern(hatching(named("--hatch-dark"), named("--hatch-light")), "repeat");
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !height) return;
    if (width === this.width && height === this.height && ratio === this.ratio) return;
    const first = !this.width;
    if (!first) { // the upper left corner stays
      this.view.x += (width - this.width) / 2 / this.view.scale;
      this.view.y -= (height - this.height) / 2 / this.view.scale;
    }
    Object.assign(this, { ratio, width, height });
    for (const canvas of [this.canvas, this.veil]) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    if (first) this.fit();
    else this.draw();
  }

  // One pixel a tile: its colour, and apart from that whether it is to be hatched.
  paint(question, threshold, hidden) {
    for (const source of this.data.sources) {
      if (source.single) {
        const what = outcome(this.data, question, source.first, threshold);
        source.anyUnknown = typeof what !== "number" && !hidden.has(what);
        source.colour = typeof what === "number" && !hidden.has(what) ? question.rgb[what] || question.rgb[0] : null;
        continue;
      }
      const n = source.rows * source.cols;
      source.anyUnknown = false;
      const answers = new ImageData(source.cols, source.rows);
      const unknown = new ImageData(source.cols, source.rows);
      for (let i = 0; i < n; i++) {
        const what = outcome(this.data, question, source.first + i, threshold);
        if (hidden.has(what)) continue;
        if (typeof what === "number") {
          const colour = question.rgb[what] || question.rgb[0];
          answers.data.set(colour, 4 * i);
          answers.data[4 * i + 3] = colour.quiet ? QUIET : 255;
        } else {
          unknown.data[4 * i + 3] = 255;
          source.anyUnknown = true;
        }
      }
      source.answers.getContext("2d").putImageData(answers, 0, 0);
      source.unknown.getContext("2d").putImageData(unknown, 0, 0);
    }
    this.redraw();
  }

  // One pixel a block: the more it weighed, the less of the picture is seen.
  paintEvidence(question) {
    const side = this.data.blocks;
    for (const source of this.data.sources) {
      const cells = new ImageData(source.cols * side, source.rows * side);
      for (let row = 0; row < cells.height; row++) {
        for (let col = 0; col < cells.width; col++) {
          const tile = source.first + Math.floor(row / side) * source.cols + Math.floor(col / side);
          const steps = question.evidence[(tile * side + (row % side)) * side + (col % side)];
          if (steps === this.data.steps.noProbability) continue;
          const at = 4 * (row * cells.width + col);
          cells.data.set(EVIDENCE, at);
          cells.data[at + 3] = (255 * steps) / this.data.steps.probability;
        }
      }
      source.evidence.getContext("2d").putImageData(cells, 0, 0);
    }
    this.redraw();
  }

  redraw() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.draw();
    });
  }

  // (a, b, c, d, e, f) as canvases count: x = a * col + c * row + e, y = b * col + d * row + f.
  toScreen(source) {
    const [a, b, c, d, e, f] = source.transform;
    const s = this.view.scale;
    const x = this.width / 2 - this.view.x * s;
    const y = this.height / 2 + this.view.y * s;
    return [a * s, -d * s, b * s, -e * s, c * s + x, -f * s + y];
  }

  place(context, source) {
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.transform(...this.toScreen(source));
  }

  visible(source) {
    const [a, b, c, d, e, f] = this.toScreen(source);
    const { width, height } = source;
    const xs = [e, e + a * width, e + c * height, e + a * width + c * height];
    const ys = [f, f + b * width, f + d * height, f + b * width + d * height];
    return Math.max(...xs) > 0 && Math.min(...xs) < this.width && Math.max(...ys) > 0 && Math.min(...ys) < this.height;
  }

  draw() {
    if (!this.width) return;
    const { context, veil } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    const over = veil.getContext("2d");
    over.setTransform(1, 0, 0, 1, 0, 0);
    over.globalCompositeOperation = "source-over";
    over.clearRect(0, 0, veil.width, veil.height);
    const shown = this.data.sources.filter((source) => this.visible(source));
    for (const source of shown) this.drawSource(source, over);
    over.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    over.globalCompositeOperation = "source-in"; // the pattern stays where the mask is
    over.fillStyle = this.hatch;
    over.fillRect(0, 0, this.width, this.height);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.globalAlpha = Math.min(1, this.opacity + 0.25);
    context.drawImage(veil, 0, 0);
    context.globalAlpha = 1;
    for (const source of shown) this.drawLines(source);
    if (this.data.boxes) this.drawBoxes();
    if (this.selected >= 0) this.drawSelected();
    this.onView?.(this);
  }

  drawSource(source, over) {
    const { context } = this;
    const width = source.cols * source.tile_px;
    const height = source.rows * source.tile_px;
    const begin = (layer) => {
      layer.save();
      this.place(layer, source);
      layer.imageSmoothingEnabled = layer === context;
      if (width === source.width && height === source.height) return;
      layer.beginPath();
      layer.rect(0, 0, source.width, source.height); // the last tiles reach beyond it
      layer.clip();
    };
    begin(context);
    if (source.image) {
      context.drawImage(source.image, 0, 0, source.image.width * source.step, source.image.height * source.step);
    } else {
      context.fillStyle = this.line;
      context.fillRect(0, 0, source.width, source.height);
    }
    context.imageSmoothingEnabled = false;
    context.globalAlpha = this.opacity;
    if (this.showsEvidence) context.drawImage(source.evidence, 0, 0, width, height);
    else if (!source.single) context.drawImage(source.answers, 0, 0, width, height);
    else if (source.colour) {
      if (source.colour.quiet) context.globalAlpha *= QUIET / 255;
      context.fillStyle = `rgb(${source.colour})`;
      context.fillRect(0, 0, source.width, source.height);
    }
    context.restore();
    if (!source.anyUnknown || this.showsEvidence) return;
    begin(over);
    if (source.single) over.fillRect(0, 0, source.width, source.height);
    else over.drawImage(source.unknown, 0, 0, width, height);
    over.restore();
  }

  // Lines between tiles, where these are large enough; the path is the source's, the width the screen's.
  drawLines(source) {
    const { context } = this;
    const [a, b, c, d] = this.toScreen(source);
    const side = Math.min(Math.hypot(a, b), Math.hypot(c, d)) * source.tile_px;
    if (side < GRID_FROM) return;
    context.save();
    this.place(context, source);
    context.beginPath();
    for (let row = 1; row < source.rows; row++) {
      context.moveTo(0, row * source.tile_px);
      context.lineTo(source.width, row * source.tile_px);
    }
    for (let col = 1; col < source.cols; col++) {
      context.moveTo(col * source.tile_px, 0);
      context.lineTo(col * source.tile_px, source.height);
    }
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.globalAlpha = 0.35;
    context.strokeStyle = this.sheet;
    context.lineWidth = 1;
    context.stroke();
    context.restore();
  }

  drawBoxes() {
    const { context, data, view } = this;
    const { corners, label, score, colours } = data.boxes;
    const paths = colours.map(() => new Path2D());
    const x = (i) => (corners[i] - view.x) * view.scale + this.width / 2;
    const y = (i) => this.height / 2 - (corners[i] - view.y) * view.scale;
    for (let box = 0; box < label.length; box++) {
      if (score[box] < this.minScore || this.hiddenBoxes.has(label[box])) continue;
      const at = 8 * box;
      if (x(at) < -200 || x(at) > this.width + 200 || y(at + 1) < -200 || y(at + 1) > this.height + 200) continue;
      const path = paths[label[box]];
      path.moveTo(x(at), y(at + 1));
      for (let i = at + 2; i < at + 8; i += 2) path.lineTo(x(i), y(i + 1));
      path.closePath();
    }
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    for (const [colour, width] of [["#fff", 3.5], [null, 1.8]]) {
      context.lineWidth = width;
      paths.forEach((path, i) => {
        context.strokeStyle = colour || colours[i];
        context.stroke(path);
      });
    }
  }

  drawSelected() {
    const { context } = this;
    const place = locate(this.data, this.selected);
    const core = corePixels(place);
    this.place(context, place.source);
    context.beginPath();
    context.rect(core.left, core.top, core.width, core.height);
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    for (const [colour, width] of [["#000", 6], ["#fff", 3]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.stroke();
    }
  }

  // Screen -> the tile there, -1 for none.
  tileAt(screenX, screenY) {
    const x = this.view.x + (screenX - this.width / 2) / this.view.scale;
    const y = this.view.y - (screenY - this.height / 2) / this.view.scale;
    return this.tileOn(x, y);
  }

  // A place of the map -> the tile there, -1 for none.
  tileOn(x, y) {
    for (let number = this.data.sources.length - 1; number >= 0; number--) {
      const source = this.data.sources[number];
      const [col, row] = toPixel(source, x, y);
      if (col < 0 || row < 0 || col >= source.width || row >= source.height) continue;
      return source.first + Math.floor(row / source.tile_px) * source.cols + Math.floor(col / source.tile_px);
    }
    return -1;
  }

  // The middle of a tile on the map.
  middle(tile) {
    const place = locate(this.data, tile);
    const core = corePixels(place);
    const [a, b, c, d, e, f] = place.source.transform;
    const col = core.left + core.width / 2;
    const row = core.top + core.height / 2;
    return { x: a * col + b * row + c, y: d * col + e * row + f };
  }

  fit() {
    let [west, south, east, north] = [Infinity, Infinity, -Infinity, -Infinity];
    for (const { transform: [a, b, c, d, e, f], width, height } of this.data.sources) {
      for (const [col, row] of [[0, 0], [width, 0], [0, height], [width, height]]) {
        const x = a * col + b * row + c;
        const y = d * col + e * row + f;
        west = Math.min(west, x);
        east = Math.max(east, x);
        south = Math.min(south, y);
        north = Math.max(north, y);
      }
    }
    const scale = 0.94 * Math.min(this.width / (east - west), this.height / (north - south));
    this.view = { x: (west + east) / 2, y: (south + north) / 2, scale };
    this.leastScale = scale / 4;
    this.redraw();
  }

  zoom(by, screenX = this.width / 2, screenY = this.height / 2) {
    const { view } = this;
    const scale = Math.max(this.leastScale, view.scale * by);
    const dx = (screenX - this.width / 2) * (1 / view.scale - 1 / scale);
    const dy = (screenY - this.height / 2) * (1 / view.scale - 1 / scale);
    this.view = { x: view.x + dx, y: view.y - dy, scale };
    this.redraw();
  }

  select(tile) {
    this.selected = tile;
    if (tile >= 0) {
      const { x, y } = this.middle(tile);
      const { view } = this;
      const far = (there, here, side) => Math.abs(there - here) * view.scale > side / 2 - 10;
      if (far(x, view.x, this.width) || far(y, view.y, this.height)) Object.assign(view, { x, y });
    }
    this.redraw();
  }

  step(down, right) {
    const place = locate(this.data, Math.max(this.selected, 0));
    if (this.selected < 0) return this.onPick(0);
    const row = place.row + down;
    const col = place.col + right;
    if (row < 0 || col < 0 || row >= place.source.rows || col >= place.source.cols) return this.leave(place, down, right);
    this.onPick(place.source.first + row * place.source.cols + col);
  }

  // To the source that lies beside this one on the map, if there is one.
  leave({ source, row, col }, down, right) {
    const beside = corePixels({ source, row: row + down, col: col + right });
    const [a, b, c, d, e, f] = source.transform;
    const x = beside.left + source.tile_px / 2;
    const y = beside.top + source.tile_px / 2;
    const tile = this.tileOn(a * x + b * y + c, d * x + e * y + f);
    if (tile >= 0) this.onPick(tile);
  }

  listen() {
    const { canvas } = this;
    const fingers = new Map();
    let moved = 0;
    const at = (event) => [event.offsetX, event.offsetY];
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, at(event));
      if (fingers.size === 1) moved = 0;
    });
    canvas.addEventListener("pointermove", (event) => {
      const [x, y] = at(event);
      const before = fingers.get(event.pointerId);
      if (!before) return this.onHover(this.tileAt(x, y));
      const [dx, dy] = [x - before[0], y - before[1]];
      moved += Math.hypot(dx, dy);
      if (fingers.size === 2) {
        const other = [...fingers].find(([id]) => id !== event.pointerId)[1];
        const spread = ([px, py]) => Math.hypot(px - other[0], py - other[1]);
        this.zoom(Math.max(1, spread([x, y])) / Math.max(1, spread(before)), other[0], other[1]);
      } else if (moved > PICK_SLACK) {
        canvas.classList.add("dragging");
        this.view.x -= dx / this.view.scale;
        this.view.y += dy / this.view.scale;
        this.redraw();
      }
      fingers.set(event.pointerId, [x, y]);
    });
    const up = (event) => {
      const known = fingers.delete(event.pointerId);
      canvas.classList.remove("dragging");
      if (known && !fingers.size && moved <= PICK_SLACK && event.type === "pointerup") {
        this.onPick(this.tileAt(...at(event)));
      }
    };
    canvas.addEventListener("pointerup", up);
    canvas.addEventListener("pointercancel", up);
    canvas.addEventListener("pointerleave", () => this.onHover(-1));
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 16 : 1;
      this.zoom(Math.exp(-event.deltaY * lines * 0.0018), ...at(event));
    }, { passive: false });
  }
}

function canvasOf(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}

function hatching(dark, light) {
  const side = 10;
  const tile = canvasOf(side, side);
  const context = tile.getContext("2d");
  for (const [colour, shift] of [[dark, 0], [light, 2]]) {
    context.strokeStyle = colour;
    context.lineWidth = 1.2;
    context.beginPath();
    for (let x = -side; x <= 2 * side; x += side) {
      context.moveTo(x + shift - 2, side + 2);
      context.lineTo(x + shift + side + 2, -2);
    }
    context.stroke();
  }
  return tile;
}
