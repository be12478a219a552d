const KEPT = 3000; // vectors of texts that are no longer in the list, as of queries on the way to the last one
const TIMED = 200; // texts whose time the median is of

/** The model on its own thread: one text at a time, the newest query first, then the lines in their order. */
export class Encoder {
  /**
   * @param place where the model lies, as place.js gives it
   * @param heard called with each message of the worker: "progress", "ready", "failed", "vector" or "unread"
   */
  constructor(place, heard) {
    this.found = new Map(); // text: { vector, tokens, isCut, milliseconds }
    this.unread = new Set();
    this.times = [];
    this.lines = [];
    this.query = "";
    this.isBusy = true;
    this.heard = heard;
    this.worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data }) => this.hear(data);
    this.worker.onerror = (event) => heard({ type: "failed", reason: event.message ?? "the worker did not start" });
    this.worker.postMessage({ type: "load", ...place });
  }

  /** Have the vectors of these texts. What was asked before and is not among them is no longer read. */
  want(lines, query) {
    [this.lines, this.query] = [lines, query];
    if (this.found.size > KEPT + lines.length) this.forget();
    this.next();
  }

  /** Take vectors that are known already: a Map of texts to what "vector" says of one. */
  know(vectors) {
    for (const [text, entry] of vectors) this.found.set(text, entry);
  }

  get waiting() {
    return this.lines.filter((line) => !this.isDone(line)).length;
  }

  /** Median time of a text in milliseconds, or undefined. */
  get median() {
    return this.times.toSorted((a, b) => a - b)[this.times.length >> 1];
  }

  isDone(text) {
    return this.found.has(text) || this.unread.has(text);
  }

  forget() {
    const wanted = new Set([...this.lines, this.query]);
    for (const text of this.found.keys()) if (!wanted.has(text)) this.found.delete(text);
  }

  next() {
    if (this.isBusy) return;
    const text = [this.query, ...this.lines].find((wanted) => wanted && !this.isDone(wanted));
    if (!text) return;
    this.isBusy = true;
    this.worker.postMessage({ type: "embed", text });
  }

  hear(message) {
    if (message.type === "vector") {
      this.found.set(message.text, message);
      this.times = [...this.times, message.milliseconds].slice(-TIMED);
    } else if (message.type === "unread") {
      this.unread.add(message.text);
    }
    if (message.type === "ready") this.width = message.dimensions;
    if (!["progress", "failed"].includes(message.type)) this.isBusy = false;
    this.heard(message);
    this.next();
  }
}
