import "./style.css";

import { Encoder } from "./encoder.js";
import { MOST_COMPARED, comparedOf, drawHeatMap, vectorsOf } from "./heatmap.js";
import { Index, isIndex } from "./index.js";
import { Kept } from "./kept.js";
import { rawLines, readLines, readTextFile } from "./lines.js";
import { listen } from "./listen.js";
import { findModel } from "./place.js";
import { Results, SHOWN } from "./results.js";
import { saveVectors } from "./save.js";
import { hasSimd } from "./simd.js";
import { rank } from "./similarity.js";
import { LINES, QUERY } from "./starter.js";
import { Status } from "./status.js";
import { themeButton } from "./theme.js";
import { alienWarning, countsOf, indexFacts, indexHint, noteOf, textHint } from "./words.js";

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

/** Answer the query as it is now. */
function typed() {
  if (!index) status.notice("");
  ask();
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
    const vectors = index ? vectorsOf(items, picked) : found;
    const lines = comparedOf(index ? [...vectors.keys()] : read.lines, picked);
    drawHeatMap(get("heatmap"), get("legend"), lines, vectors);
    get("empty-map").hidden = lines.some((line) => vectors.has(line));
    get("none").disabled = picked.size === 0;
    get("save").disabled = Boolean(index) || !read.lines.some((line) => found.has(line));
    drawCounts(found);
    keepVectors();
  });
}

function drawResults(found) {
  const asked = query.value.trim();
  const isRead = (each) => !each || encoder?.isDone(each);
  const isWaiting = !isGivenUp && !(limit && [asked, ...read.lines].every(isRead));
  answered = asked ? (found.get(asked)?.vector ?? answered) : undefined;
  const items = index ? searched() : answered ? rank(answered, read.lines, found) : read.lines.map((line) => ({ line }));
  for (const item of items) item.note = noteOf(found.get(item.line), limit);
  const isFresh = found.has(asked) && !isWaiting;
  const label = isFresh ? `Sentences, nearest to ${asked} first` : "Sentences";
  results.show(items, picked, { label, isWaiting });
  status.nearest(isFresh ? items[0] : undefined);
  get("hint").textContent = index ? indexHint(index, items) : textHint(read.lines, asked, items);
  return items;
}

function searched() {
  return answered ? index.nearest(answered, SHOWN) : [];
}

function drawCounts(found) {
  get("counts").hidden = Boolean(index);
  if (limit) status.work(read.lines.length - encoder.waiting, read.lines.length, encoder.median);
  if (!index) get("counts").textContent = countsOf(read, encoder, kind.value === "document", limit);
  const warning = index && alienWarning(index, found);
  if (warning) status.notice(warning);
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
  if (encoder?.width) found.checkWidth(encoder.width);
  index = found;
  picked.clear();
  status.notice("");
  get("index-facts").textContent = indexFacts(found);
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

/** Save the vectors of the query and all lines. */
function save() {
  saveVectors(place, [query.value.trim(), ...read.lines], encoder.found);
}

function untick() {
  picked.clear();
  draw();
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

async function start() {
  themeButton(get("theme"));
  const last = await kept.text();
  if (last) [text.value, kind.value] = [last.text, last.isDocument ? "document" : "lines"];
  text.value ||= LINES.join("\n");
  query.value ||= QUERY;
  listen(get, { typed, changed, leaveIndex, forget, save, untick, takeFile, enterList: () => results.focusFirst() });
  refresh();
  if (!hasSimd()) return giveUp(() => status.noWebAssembly());
  try {
    place = await findModel(location);
  } catch (error) {
    return giveUp(() => status.failed(undefined, error.message));
  }
  status.loading(place, 0, 0);
  encoder = new Encoder(place, heard);
}

start();
