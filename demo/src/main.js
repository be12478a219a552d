import "./style.css";

import { Encoder } from "./encoder.js";
import { MOST_COMPARED, drawHeatMap } from "./heatmap.js";
import { Index, isIndex } from "./index.js";
import { Kept } from "./kept.js";
import { MOST_LINES, rawLines, readLines, readTextFile } from "./lines.js";
import { findModel } from "./place.js";
import { Results, SHOWN } from "./results.js";
import { rank } from "./similarity.js";
import { LINES, QUERY } from "./starter.js";
import { Status } from "./status.js";
import { themeButton } from "./theme.js";

// A WebAssembly module of one instruction on 128 bits, without which the runtime cannot run.
const SIMD = Uint8Array.of(
  ...[0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11],
);
const ALIEN = 0.3; // mean cosine of an index to this model's own vectors below which they are not of one space

const get = (id) => document.getElementById(id);
const [text, query, kind] = [get("text"), get("query"), get("kind")];
const kept = new Kept();
const status = new Status(get);
const picked = new Set();
const results = new Results(get("results"), pick, () => query.focus());
let place, limit, encoder;
let isGivenUp = false; // there will be no vectors
let read = readLines("");
let drawing = 0;
let modelKey, keptLines; // what made the vectors, and of which lines they are kept
let index; // vectors of another model that are searched in place of the text
let answered; // the vector of the last query that has one: the list keeps its order until the next one is there

function plural(count, word) {
  return `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
}

/** Read the text anew and have what is new in it embedded. */
function refresh() {
  read = index ? { lines: index.checked } : readLines(text.value, kind.value === "document");
  if (!index) for (const line of picked) if (!read.lines.includes(line)) picked.delete(line);
  ask();
}

/** Have the query embedded too, and draw. */
function ask() {
  encoder?.want(read.lines, query.value.trim());
  draw();
}

/** Read the text anew, and keep it. */
function changed() {
  status.notice("");
  kept.keepText(text.value, kind.value === "document");
  refresh();
}

/** Keep the vectors of the text once they are all there. */
function keepVectors() {
  const isWhole = modelKey && !index && read.lines.length && read.lines.every((line) => encoder.found.has(line));
  if (!isWhole || keptLines === read.lines) return;
  keptLines = read.lines;
  kept.keepVectors(modelKey, read.lines, encoder.found);
}

/** Draw once before the next paint, however many vectors came in. */
function draw() {
  cancelAnimationFrame(drawing);
  drawing = requestAnimationFrame(() => {
    const found = encoder?.found ?? new Map();
    const items = drawResults(found);
    const [lines, vectors] = index ? comparedRows(items) : [compared(), found];
    drawHeatMap(get("heatmap"), get("legend"), lines, vectors);
    get("empty-map").hidden = lines.some((line) => vectors.has(line));
    get("none").disabled = picked.size === 0;
    get("save").disabled = Boolean(index) || !read.lines.some((line) => found.has(line));
    drawCounts(found);
    keepVectors();
  });
}

function compared() {
  return picked.size > 0 ? [...picked] : read.lines.slice(0, MOST_COMPARED);
}

/** Of an index, what the heat map shows: the rows picked among those found, else the first ones. */
function comparedRows(items) {
  const rows = new Map(items.filter((item) => item.vector).map((item) => [item.line, item]));
  for (const line of picked) if (!rows.has(line)) picked.delete(line);
  return [picked.size > 0 ? [...picked] : [...rows.keys()].slice(0, MOST_COMPARED), rows];
}

function drawResults(found) {
  const asked = query.value.trim();
  const isRead = (each) => !each || encoder?.isDone(each);
  const isWaiting = !isGivenUp && !(limit && [asked, ...read.lines].every(isRead));
  answered = asked ? (found.get(asked)?.vector ?? answered) : undefined;
  const items = index ? searched() : answered ? rank(answered, read.lines, found) : read.lines.map((line) => ({ line }));
  for (const item of items) item.note = noteOf(found.get(item.line));
  const isFresh = found.has(asked) && !isWaiting;
  const label = isFresh ? `Sentences, nearest to ${asked} first` : "Sentences";
  results.show(items, picked, { label, isWaiting });
  const first = isFresh && items[0];
  status.nearest(first ? `Nearest, ${first.score.toFixed(2)}: ${first.line.slice(0, 200)}` : "");
  get("hint").textContent = hint(items);
  return items;
}

function searched() {
  return answered ? index.nearest(answered, SHOWN) : [];
}

function noteOf(entry) {
  return entry?.isCut ? `cut: ${entry.tokens} tokens, of which the first ${limit} are read` : "";
}

function hint(items) {
  if (index && items.length) return `The nearest ${items.length} of ${plural(index.rows, "row")}.`;
  if (index) return "Type a query to search the index.";
  if (read.lines.length === 0) return "No sentences yet: paste some, one a line, or drop a text file.";
  if (!query.value.trim()) return "Type a query to order the sentences by how near they are.";
  return items.length > SHOWN ? `The nearest ${SHOWN} of ${plural(items.length, "sentence")}.` : "";
}

function drawCounts(found) {
  get("counts").hidden = Boolean(index);
  if (limit) status.work(read.lines.length - encoder.waiting, read.lines.length, encoder.median);
  if (index) return checkIndex(found);
  const cut = read.lines.filter((line) => found.get(line)?.isCut).length;
  const unread = read.lines.filter((line) => encoder?.unread.has(line)).length;
  const parts = [plural(read.lines.length, kind.value === "document" ? "passage" : "sentence")];
  if (read.repeated) parts.push(`${plural(read.repeated, "repeated line")} left out`);
  if (read.beyond) parts.push(`only the first ${MOST_LINES.toLocaleString("en")} are used, ${read.beyond} more are not`);
  if (cut) parts.push(`${plural(cut, "line")} cut at ${limit} tokens`);
  if (unread) parts.push(`${plural(unread, "line")} could not be read`);
  get("counts").textContent = `${parts.join("; ")}.`;
}

/** Warn of an index whose vectors of its own texts are far from those of this model. */
function checkIndex(found) {
  const mean = index.nearness(found);
  const texts = plural(index.checked.length, "text");
  const words = `The vectors of ${index.name} are not of this model's space: of ${texts} the mean cosine`;
  if (mean < ALIEN) status.notice(`${words} is ${mean.toFixed(2)}. It needs those of its teacher, or its own.`);
}

function pick(line) {
  if (!picked.delete(line)) {
    if (picked.size >= MOST_COMPARED) return status.notice(`The heat map holds ${MOST_COMPARED} sentences: untick one.`);
    picked.add(line);
  }
  status.notice("");
  draw();
}

async function takeFile(file) {
  if (!file) return;
  try {
    if (isIndex(file)) return await useIndex(file);
    text.value = await readTextFile(file);
    leaveIndex();
    changed();
  } catch (error) {
    status.notice(error.message);
  }
}

/** Search what another model has embedded in place of the text. */
async function useIndex(file) {
  const found = await Index.read(file, rawLines(text.value));
  const width = encoder?.width;
  if (width && width !== found.columns)
    throw new Error(`${file.name} has ${found.columns} numbers a row, and this model's vectors ${width}: they are of another model.`);
  index = found;
  picked.clear();
  status.notice("");
  const texts = found.texts ? "" : "; the lines of the box are not as many, so rows have their numbers";
  get("index-facts").textContent = `${found.name}: ${plural(found.rows, "row")} of ${found.columns} numbers${texts}.`;
  showIndex();
}

function leaveIndex() {
  index = undefined;
  picked.clear();
  showIndex();
}

function showIndex() {
  get("index").hidden = !index;
  refresh();
}

/** Take away what this browser keeps, and start as at first. */
async function forget() {
  await kept.forget();
  [text.value, query.value, kind.value, keptLines] = [LINES.join("\n"), QUERY, "lines", undefined];
  encoder?.found.clear();
  status.notice("");
  leaveIndex();
}

/** Offer the vectors of the query and all lines as a file. */
function save() {
  const wanted = [query.value.trim(), ...read.lines].filter((each) => encoder.found.has(each));
  const sentences = [...new Set(wanted)].map((each) => {
    const { vector, tokens, isCut } = encoder.found.get(each);
    return { text: each, tokens, cut: isCut, vector: [...vector] };
  });
  const content = JSON.stringify({ model: place.name, dtype: place.dtype, sentences });
  const address = URL.createObjectURL(new Blob([content], { type: "application/json" }));
  const link = Object.assign(document.createElement("a"), { href: address, download: "vectors.json" });
  link.click();
  URL.revokeObjectURL(address);
}

function heard(message) {
  if (message.type === "progress") return status.loading(place, message.loaded, message.total);
  if (message.type === "failed") return giveUp(() => status.failed(place, message.reason));
  if (message.type === "ready") {
    kept.vectors(message.key).then((vectors) => {
      encoder.know(vectors);
      [limit, modelKey] = [message.limit, message.key];
      status.ready(place, message);
      refresh();
    });
  }
  draw();
}

function giveUp(tell) {
  isGivenUp = true;
  tell();
  draw();
}

function later(milliseconds, act) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(act, milliseconds);
  };
}

function listen() {
  query.addEventListener(
    "input",
    later(80, () => {
      if (!index) status.notice("");
      ask();
    }),
  );
  text.addEventListener("input", later(250, changed));
  kind.addEventListener("change", changed);
  get("leave-index").addEventListener("click", leaveIndex);
  get("forget").addEventListener("click", forget);
  query.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown") return;
    event.preventDefault();
    results.focusFirst();
  });
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.matches?.("input, textarea");
    if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    query.select();
  });
  get("open").addEventListener("click", () => get("file").click());
  get("file").addEventListener("change", ({ target }) => takeFile(target.files[0]).then(() => (target.value = "")));
  get("save").addEventListener("click", save);
  get("none").addEventListener("click", () => {
    picked.clear();
    draw();
  });
  // Anywhere on the page, or a file that misses the box would replace the page.
  document.addEventListener("dragover", (event) => {
    if (event.dataTransfer.types.includes("Files")) event.preventDefault();
  });
  document.addEventListener("drop", (event) => {
    if (event.dataTransfer.files.length === 0) return;
    event.preventDefault();
    takeFile(event.dataTransfer.files[0]);
  });
}

async function start() {
  themeButton(get("theme"));
  const last = await kept.text();
  if (last) [text.value, kind.value] = [last.text, last.isDocument ? "document" : "lines"];
  text.value ||= LINES.join("\n");
  query.value ||= QUERY;
  listen();
  refresh();
  if (typeof WebAssembly === "undefined" || !WebAssembly.validate(SIMD)) return giveUp(() => status.noWebAssembly());
  try {
    place = await findModel(location);
  } catch (error) {
    return giveUp(() => status.failed(undefined, error.message));
  }
  status.loading(place, 0, 0);
  encoder = new Encoder(place, heard);
}

start();
