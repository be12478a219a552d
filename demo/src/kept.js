const [DATABASE, STORE] = ["distilface", "kept"];

function answer(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/**
 * What this browser keeps of the page until it is told to forget: the text, and the vectors of its pieces by the model
 * that made them. Where a browser keeps nothing (a private window), everything here does nothing.
 */
export class Kept {
  constructor() {
    this.database = this.open().catch(() => undefined);
  }

  async open() {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE);
    return answer(request);
  }

  async use(mode, act) {
    const database = await this.database;
    try {
      return database && (await answer(act(database.transaction(STORE, mode).objectStore(STORE))));
    } catch {
      return undefined; // the disk is full, or the browser has taken the place away: the page works as before
    }
  }

  text() {
    return this.use("readonly", (store) => store.get("text"));
  }

  keepText(text, isDocument) {
    return this.use("readwrite", (store) => store.put({ text, isDocument }, "text"));
  }

  /** The vectors that a model made of the last text: a Map of its pieces to { vector, tokens, isCut }. */
  async vectors(model) {
    const index = await this.use("readonly", (store) => store.get("index"));
    const found = new Map();
    if (index?.model !== model) return found;
    const width = index.vectors.length / index.lines.length;
    index.lines.forEach((line, row) => {
      const vector = index.vectors.slice(row * width, (row + 1) * width);
      found.set(line, { vector, tokens: index.tokens[row], isCut: index.isCut[row] });
    });
    return found;
  }

  keepVectors(model, lines, found) {
    const entries = lines.map((line) => found.get(line));
    const width = entries[0].vector.length;
    const vectors = new Float32Array(lines.length * width);
    entries.forEach(({ vector }, row) => vectors.set(vector, row * width));
    const [tokens, isCut] = [entries.map((entry) => entry.tokens), entries.map((entry) => entry.isCut)];
    return this.use("readwrite", (store) => store.put({ model, lines, vectors, tokens, isCut }, "index"));
  }

  forget() {
    return this.use("readwrite", (store) => store.clear());
  }
}
