// The page of `crossroads serve`. Text from the server is only ever set as text, never as HTML.
const byId = (id) => document.getElementById(id);
const maxBody = Number(document.body.dataset.maxBody);
let models = [];
let latest = 0; // number of the last request; answers to earlier ones are ignored
let shown = null; // the file of the last request

const show = (id, on) => { byId(id).hidden = !on; };
const percent = (fraction) => `${(100 * fraction).toFixed(1)} %`;
const chosen = () => models.find((model) => model.name === byId("model").value) ?? models[0];

async function loadModels() {
  const answer = await fetch("/v1/models");
  if (!answer.ok) throw new Error("The server does not list its models.");
  models = (await answer.json()).models;
  byId("model").replaceChildren(...models.map((model) => new Option(model.name, model.name)));
  show("choice", models.length > 1);
  describe();
}

function describe() {
  const model = chosen();
  const names = model.classes.slice(0, 6).join(", ") + (model.classes.length > 6 ? ", …" : "");
  byId("title").textContent = models.length > 1 ? "Image classifiers" : `Image classifier: ${model.name}`;
  document.title = `Crossroads: ${model.name}`;
  const facts = [`${model.classes.length} classes (${names})`];
  if (model.accuracy) facts.push(`accuracy ${percent(model.accuracy.accuracy)}, measured on ${model.accuracy.images} images`);
  byId("facts").textContent = facts.join(" · ");
  byId("report").href = `/report/${encodeURIComponent(model.name)}`;
  show("report", model.report);
}

function fail(message) {
  byId("error").textContent = message;
  show("error", true);
  show("status", false);
  show("result", false);
}

function preview(file) {
  const image = byId("preview");
  if (image.src) URL.revokeObjectURL(image.src);
  image.onerror = () => { show("stage", false); show("invite", true); byId("drop").classList.remove("full"); };
  image.onload = () => image.classList.toggle("small", image.naturalWidth < 160);
  image.src = URL.createObjectURL(file);
  show("heat", false);
  show("heat-choice", false);
  show("near", false);
  show("stage", true);
  show("invite", false);
  byId("drop").classList.add("full");
}

const post = (path, file) =>
  fetch(path, { method: "POST", body: file, headers: { "content-type": "application/octet-stream" } });

async function classify(file) {
  const mine = ++latest;
  shown = file;
  show("error", false);
  show("result", false);
  show("status", true);
  byId("status").textContent = "Classifying …";
  preview(file);
  if (file.size > maxBody) {
    fail(`The image has ${(file.size / 1e6).toFixed(1)} MB; the server accepts at most ${(maxBody / 1e6).toFixed(1)} MB.`);
    return;
  }
  try {
    const began = performance.now();
    const query = new URLSearchParams({ top: "5", model: chosen().name });
    const answer = await post(`/v1/predict?${query}`, file);
    const { predictions, error } = await answer.json();
    if (mine !== latest) return;
    if (error) fail([error.message, error.hint].filter(Boolean).join("; "));
    else {
      showLabels(predictions[0].labels, performance.now() - began);
      explain(file, mine);
    }
  } catch {
    if (mine === latest) fail("The server did not answer. Try again.");
  }
}

function showLabels(labels, milliseconds) {
  byId("winner").textContent = labels[0].label;
  byId("bars").replaceChildren(...labels.map(bar));
  byId("time").textContent = `${Math.round(milliseconds)} ms`;
  byId("status").textContent = `${labels[0].label}, ${percent(labels[0].probability)}`;
  show("status", false);
  show("result", true);
}

// The heat map and the nearest training images are extras: where they fail, the page goes on without them.
async function explain(file, mine) {
  const model = chosen();
  const answer = await post(`/v1/explain?${new URLSearchParams({ near: "6", model: model.name })}`, file).catch(() => null);
  if (!answer?.ok) return;
  const { heat_map, label, neighbours } = await answer.json();
  if (mine !== latest) return;
  const middle = model.resize.mode === "crop" ? ", in the middle of the image that the classifier sees" : "";
  byId("heat-text").textContent = `Show what speaks for ${label}${middle}`;
  showHeat(heat_map, model.resize);
  byId("neighbours").replaceChildren(...neighbours.map(neighbour));
  show("near", neighbours.length > 0);
}

// Lays the heat map over the part of the image that the network sees.
function showHeat(picture, { mode, crop_fraction }) {
  const { naturalWidth: width, naturalHeight: height } = byId("preview");
  if (!width) return;
  const shorter = Math.min(width, height);
  const part = (side) => 100 * crop_fraction * (mode === "crop" ? shorter / side : 1);
  const heat = byId("heat");
  heat.src = picture;
  for (const [size, start, side] of [["width", "left", width], ["height", "top", height]]) {
    heat.style[size] = `${part(side)}%`;
    heat.style[start] = `${(100 - part(side)) / 2}%`;
  }
  show("heat-choice", true);
  show("heat", byId("heat-on").checked);
}

function neighbour({ name, label, similarity, thumbnail }) {
  const item = document.createElement("li");
  if (thumbnail) item.append(Object.assign(new Image(), { src: thumbnail, alt: name }));
  const text = document.createElement("div");
  text.textContent = thumbnail ? label : `${label}: ${name}`;
  text.title = `${name}, similarity ${similarity.toFixed(2)}`;
  item.append(text);
  return item;
}

function bar({ label, probability }) {
  const item = document.createElement("li");
  const names = document.createElement("div");
  names.className = "names";
  for (const text of [label, percent(probability)]) names.append(Object.assign(document.createElement("span"), { textContent: text }));
  const drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const fill = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  drawing.setAttribute("aria-hidden", "true");
  fill.setAttribute("width", `${100 * probability}%`);
  fill.setAttribute("height", "100%");
  drawing.append(fill);
  item.append(names, drawing);
  return item;
}

const firstImage = (files) => [...files].find((file) => file.type.startsWith("image/")) ?? files[0];

for (const id of ["file", "camera"]) {
  byId(id).addEventListener("change", ({ target }) => {
    if (target.files.length) classify(target.files[0]);
    target.value = "";
  });
}
// A desktop has no camera behind this button: it would open the same dialog as the other one.
show("camera-label", matchMedia("(pointer: coarse)").matches);

const drop = byId("drop");
addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  if (event.dataTransfer.files.length) classify(firstImage(event.dataTransfer.files));
});
addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) classify(firstImage(event.clipboardData.files));
});
byId("heat-on").addEventListener("change", ({ target }) => show("heat", target.checked));
byId("model").addEventListener("change", () => { describe(); if (shown) classify(shown); });

loadModels().catch((error) => fail(error.message));
