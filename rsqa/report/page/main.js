// One state, one way to show it.

function start(data) {
  const state = { question: 0, threshold: 0, hidden: new Set(), tile: -1 };
  const question = () => data.questions[state.question];
  const map = new TileMap(byId("map"), data, pick, hover);

  function showQuestion() {
    const counts = countOutcomes(data, question(), state.threshold);
    fillLegend(data, question(), counts, state.hidden, (what, shown) => {
      if (shown) state.hidden.delete(what);
      else state.hidden.add(what);
      map.paint(question(), state.threshold, state.hidden);
    });
    const answered = [...counts].reduce((sum, [what, n]) => sum + (typeof what === "number" ? n : 0), 0);
    byId("count").textContent = `${whole(answered)} of ${whole(question().status.length)} tiles answered`;
    if (state.threshold) byId("count").textContent += ` with confidence ${state.threshold.toFixed(2)} or more`;
    byId("threshold-value").textContent = state.threshold.toFixed(2);
    byId("sureness").hidden = false; // a canvas that is hidden has no size
    byId("sureness").hidden = !drawHistogram(data, question(), state.threshold) && !data.boxes;
    map.paint(question(), state.threshold, state.hidden);
    if (map.showsEvidence) map.paintEvidence(question());
  }

  function showObjects() {
    if (!data.boxes) return;
    fillObjects(data, state.threshold, map.hiddenBoxes, (label, shown) => {
      if (shown) map.hiddenBoxes.delete(label);
      else map.hiddenBoxes.add(label);
      map.redraw();
    });
    map.redraw();
  }

  function choose(number) {
    state.question = (number + data.questions.length) % data.questions.length;
    state.hidden.clear();
    byId("questions").querySelectorAll("input")[state.question].checked = true;
    showQuestion();
    fillTile(data, state.question, state.tile, choose);
  }

  function pick(tile) {
    state.tile = tile;
    fillTile(data, state.question, tile, choose);
    map.resize(); // the tile's column may have come or gone
    map.select(tile);
  }

  function hover(tile) {
    if (tile < 0 || !data.questions.length) return void (byId("hover").textContent = "");
    const sure = isKnown(data, question(), tile) ? sureness(data, question(), tile) : null;
    const answer = answerText(data, question(), tile);
    const where = data.sources.length > 1 ? `${locate(data, tile).source.name}  ` : "";
    byId("hover").textContent = where + (sure === null ? answer : `${answer}  ${sure.toFixed(2)}`);
  }

  byId("threshold").addEventListener("input", (event) => {
    state.threshold = event.target.value / 100;
    map.minScore = state.threshold;
    byId("threshold-value").textContent = state.threshold.toFixed(2);
    if (data.questions.length) showQuestion();
    showObjects();
  });
  byId("evidence").addEventListener("change", (event) => {
    map.showsEvidence = event.target.checked;
    showQuestion();
  });
  byId("opacity").addEventListener("input", (event) => {
    map.opacity = event.target.value / 100;
    map.redraw();
  });
  byId("zoom-in").addEventListener("click", () => map.zoom(1.6));
  byId("zoom-out").addEventListener("click", () => map.zoom(1 / 1.6));
  byId("fit").addEventListener("click", () => map.fit());
  byId("close").addEventListener("click", () => pick(-1));
  const keys = {
    ArrowUp: () => map.step(-1, 0),
    ArrowDown: () => map.step(1, 0),
    ArrowLeft: () => map.step(0, -1),
    ArrowRight: () => map.step(0, 1),
    "+": () => map.zoom(1.6),
    "=": () => map.zoom(1.6),
    "-": () => map.zoom(1 / 1.6),
    0: () => map.fit(),
    "[": () => choose(state.question - 1),
    "]": () => choose(state.question + 1),
    Escape: () => pick(-1),
  };
  byId("map").addEventListener("keydown", (event) => {
    if (!(event.key in keys) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[event.key]();
  });

  byId("title").textContent = data.title;
  byId("subtitle").textContent = data.subtitle;
  byId("opacity").value = 100 * map.opacity;
  byId("objects").hidden = !data.boxes;
  byId("looked").hidden = !data.blocks;
  showObjects();
  for (const note of data.notes) byId("notes").append(element("li", { textContent: note }));
  byId("notes").hidden = !data.notes.length;
  for (const [name, value] of data.about) {
    byId("facts").append(element("dt", { textContent: name }), element("dd", { textContent: value }));
  }
  map.onView = () => showScale(data, map.view.scale);
  byId("threshold-value").textContent = "0.00";
  fillQuestions(data, choose);
  if (data.questions.length) choose(0);
  loadPictures(data.sources, (source) => {
    map.redraw();
    if (state.tile >= 0 && locate(data, state.tile).source === source) fillTile(data, state.question, state.tile, choose);
  });
  byId("wait").remove();
  document.documentElement.dataset.ready = "yes";
}

// A round length on the ground that takes about a tenth of the map.
function showScale(data, scale) {
  const box = byId("scale");
  box.hidden = !data.map.metres;
  if (box.hidden) return;
  const metres = (120 * data.map.metres) / scale;
  const power = 10 ** Math.floor(Math.log10(metres));
  const round = power * [5, 2, 1].find((n) => n * power <= metres);
  box.querySelector("i").style.width = `${(round * scale) / data.map.metres}px`;
  box.querySelector("span").textContent = round >= 1000 ? `${whole(round / 1000)} km` : `${+round.toPrecision(1)} m`;
}

unpack().then(start).catch((error) => {
  const wait = document.getElementById("wait");
  if (wait) wait.textContent = `This browser can't show the page: ${error.message}. A newer one can.`;
  throw error;
});
