// What stands beside the map. Text of questions, answers and files only ever becomes text nodes.

const LISTED = 12; // answers in the legend before the rest is folded away

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

const byId = (id) => document.getElementById(id);
const whole = (number) => number.toLocaleString("en");
const percent = (share) => (share > 0 && share < 0.01 ? "<1 %" : `${Math.round(100 * share)} %`);

function bar(share, colour) {
  const filled = element("i");
  filled.style.width = `${100 * share}%`;
  if (colour) filled.style.background = colour;
  return element("span", { className: "bar" }, filled);
}

// A radio button for each question.
function fillQuestions(data, onChoose) {
  const list = element("div");
  data.questions.forEach((question, number) => {
    const input = element("input", { type: "radio", name: "question", value: number });
    input.addEventListener("change", () => onChoose(number));
    list.append(element("label", { title: question.id }, input, element("span", { textContent: question.text })));
  });
  byId("questions").append(list);
  byId("questions").hidden = !data.questions.length;
}

// Outcome -> tiles.
function countOutcomes(data, question, threshold) {
  const counts = new Map();
  for (let tile = 0; tile < question.status.length; tile++) {
    const what = outcome(data, question, tile, threshold);
    counts.set(what, (counts.get(what) || 0) + 1);
  }
  return counts;
}

// One row an answer: what it looks like, how often it was given, a box to hide it. Then what is not known.
function fillLegend(data, question, counts, hidden, onToggle) {
  const total = question.status.length;
  const answers = [...counts.keys()].filter((what) => typeof what === "number");
  const inOrder = question.kind === "count" || question.kind === "yesno";
  answers.sort((a, b) => (inOrder ? a - b : counts.get(b) - counts.get(a)));
  const most = Math.max(1, ...counts.values());
  const row = (what) => {
    const known = typeof what === "number";
    const name = known ? question.options[what] ?? "answered in words" : UNKNOWN[what][0];
    const input = element("input", { type: "checkbox", checked: !hidden.has(what) });
    input.addEventListener("change", () => onToggle(what, input.checked));
    const swatch = element("span", { className: "swatch" });
    if (known) swatch.style.background = question.colours[what] ?? question.colours[0];
    else swatch.style.backgroundImage = `url(${hatching("#20242a", "#ffffff").toDataURL()})`;
    const n = counts.get(what);
    const number = element("span", { textContent: `${whole(n)} · ${percent(n / total)}` });
    const label = element("label", { className: known ? "row" : "row unknown", title: known ? "" : UNKNOWN[what][1] }, input, swatch);
    label.append(element("b", { textContent: name }), number, bar(n / most));
    return label;
  };
  const rows = answers.map(row);
  const legend = byId("legend");
  legend.replaceChildren(element("h2", { textContent: "Answers" }), ...rows.slice(0, LISTED));
  if (rows.length > LISTED) {
    const more = rows.slice(LISTED);
    legend.append(element("details", {}, element("summary", { textContent: `${more.length} more` }), ...more));
  }
  legend.append(...Object.keys(UNKNOWN).filter((what) => counts.has(what)).map(row));
}

// One row a sort of object: its colour, how many are sure enough, a box to hide them.
function fillObjects(data, threshold, hidden, onToggle) {
  const { label, score, labels, colours } = data.boxes;
  const counts = labels.map(() => 0);
  for (let box = 0; box < label.length; box++) if (!(score[box] < threshold)) counts[label[box]]++;
  const most = Math.max(1, ...counts);
  const rows = labels.map((name, number) => {
    const input = element("input", { type: "checkbox", checked: !hidden.has(number) });
    input.addEventListener("change", () => onToggle(number, input.checked));
    const swatch = element("span", { className: "swatch" });
    swatch.style.background = colours[number];
    const row = element("label", { className: "row" }, input, swatch, element("b", { textContent: name }));
    row.append(element("span", { textContent: whole(counts[number]) }), bar(counts[number] / most));
    return row;
  });
  byId("objects").replaceChildren(element("h2", { textContent: "Objects" }), ...rows);
}

// How many answers are how sure, in hundredths.
function drawHistogram(data, question, threshold) {
  const bins = new Array(50).fill(0);
  for (let tile = 0; tile < question.status.length; tile++) {
    const sure = question.confidence[tile];
    if (sure === data.steps.noConfidence || data.statuses[question.status[tile]] !== "ok") continue;
    bins[Math.min(49, Math.floor((50 * sure) / data.steps.confidence))]++;
  }
  const canvas = byId("histogram");
  const style = getComputedStyle(document.documentElement);
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  Object.assign(canvas, { width: width * ratio, height: height * ratio });
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const most = Math.max(1, ...bins);
  const inset = 8; // half the knob of the slider below, so that both have one scale
  const step = (width - 2 * inset) / bins.length;
  bins.forEach((n, i) => {
    const tall = n && Math.max(2, (height - 2) * Math.sqrt(n / most)); // by the root: few are seen beside many
    context.fillStyle = style.getPropertyValue(i / 50 >= threshold - 1e-9 ? "--accent" : "--line");
    context.fillRect(inset + i * step, height - tall, Math.max(1, step - 1), tall);
  });
  return bins.some(Boolean);
}

// The picture of a tile, cut out of its source's, with some of its surroundings.
function cutPicture(place) {
  const { source } = place;
  const core = corePixels(place);
  const canvas = canvasOf(448, Math.max(1, Math.round((448 * core.height) / core.width)));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  const by = source.step;
  const cut = [core.left / by, core.top / by, core.width / by, core.height / by];
  context.drawImage(source.image, ...cut, 0, 0, canvas.width, canvas.height);
  return canvas;
}

function answerText(data, question, tile) {
  const what = outcome(data, question, tile, 0);
  if (typeof what !== "number") return UNKNOWN[what][0];
  return question.options[what] ?? data.strings[question.words?.[tile] ?? 0];
}

const isKnown = (data, question, tile) => typeof outcome(data, question, tile, 0) === "number";

function sureness(data, question, tile) {
  const sure = question.confidence[tile];
  return sure === data.steps.noConfidence ? null : sure / data.steps.confidence;
}

function fillTile(data, number, tile, onChoose) {
  byId("hint").hidden = tile >= 0;
  byId("tile").hidden = tile < 0;
  const body = byId("tile-body");
  body.replaceChildren();
  if (tile < 0) return;
  const place = locate(data, tile);
  const where = place.source.single ? "" : ` · row ${place.row}, column ${place.col}`;
  const name = place.source.name + where;
  if (place.source.image) {
    const canvas = cutPicture(place);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Picture of ${name}`);
    body.append(canvas);
    if (place.source.step > 1) {
      body.append(element("p", { className: "name", textContent: `shown at 1 : ${place.source.step} of its resolution` }));
    }
  }
  body.append(element("p", { className: "name", textContent: name }));
  if (data.map.crs) body.append(element("p", { className: "name", textContent: coordinates(data, place) }));
  const question = data.questions[number];
  if (question) fillAnswer(data, question, tile, body);
  if (data.boxes) fillFound(objectsIn(data, place), body);
  if (data.questions.length > 1) fillOthers(data, number, tile, body, onChoose);
}

function fillFound(objects, body) {
  if (!objects.length) return;
  body.append(element("h2", { textContent: "Objects here" }));
  for (const { label, score } of objects.slice(0, LISTED)) {
    body.append(element("p", { textContent: Number.isNaN(score) ? label : `${label}, score ${score.toFixed(2)}` }));
  }
  if (objects.length > LISTED) body.append(element("p", { textContent: `and ${whole(objects.length - LISTED)} more` }));
}

// The middle of a tile in the coordinates of its source.
function coordinates(data, place) {
  const { crs, origin, x_scale } = data.map;
  const core = corePixels(place);
  const [a, b, c, d, e, f] = place.source.transform;
  const [col, row] = [core.left + core.width / 2, core.top + core.height / 2];
  const digits = Math.hypot(d, e) < 0.01 ? 6 : 1; // degrees or metres
  const x = origin[0] + (a * col + b * row + c) / x_scale;
  const y = origin[1] + d * col + e * row + f;
  return `${crs} ${x.toFixed(digits)}, ${y.toFixed(digits)}`;
}

function fillAnswer(data, question, tile, body) {
  const sure = sureness(data, question, tile);
  const answer = element("p", { className: "answer", textContent: answerText(data, question, tile) });
  if (sure !== null && isKnown(data, question, tile)) {
    answer.append(" ", element("small", { textContent: `confidence ${sure.toFixed(2)}` }));
  }
  body.append(element("p", { className: "name", textContent: question.text }), answer);
  const what = outcome(data, question, tile, 0);
  if (typeof what !== "number") body.append(element("p", { textContent: UNKNOWN[what][1] }));
  const kept = question.options.length ? question.top_options.length / question.status.length : 0;
  for (let i = tile * kept; i < (tile + 1) * kept; i++) {
    const steps = question.probabilities[i];
    if (steps === data.steps.noProbability) continue;
    const option = question.top_options[i];
    const share = steps / data.steps.probability;
    const label = question.options[option] ?? "";
    const row = element("div", { className: "chance" }, element("span", { textContent: label, title: label }));
    row.append(bar(share), element("span", { textContent: percent(share) }));
    body.append(row);
  }
  for (const [title, field] of [["Reasoning", "reasoning"], ["In the model's words", "words"], ["Fault", "error"]]) {
    const text = question[field] && data.strings[question[field][tile]];
    if (!text || (field === "words" && isKnown(data, question, tile) && !question.options.length)) continue;
    body.append(element("h2", { textContent: title }), element("p", { className: "said", textContent: text }));
  }
}

function fillOthers(data, number, tile, body, onChoose) {
  const table = element("table");
  data.questions.forEach((question, other) => {
    if (other === number) return;
    const button = element("button", { type: "button", textContent: question.text });
    button.addEventListener("click", () => onChoose(other));
    const sure = isKnown(data, question, tile) ? sureness(data, question, tile) : null;
    const row = table.insertRow();
    row.insertCell().append(button);
    row.insertCell().textContent = answerText(data, question, tile);
    row.insertCell().textContent = sure === null ? "" : sure.toFixed(2);
  });
  body.append(element("h2", { textContent: "Its other answers" }), table);
}
