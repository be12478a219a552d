import { element } from "./element.js";

export const SHOWN = 50;

/** The list of sentences: nearest first, walked with the arrow keys, picked for the heat map with Space. */
export class Results {
  /**
   * @param list the element with role listbox
   * @param toggle called with the line that was picked or dropped
   * @param leave called when the keyboard goes up beyond the first one
   */
  constructor(list, toggle, leave) {
    this.list = list;
    this.rows = new Map();
    this.toggle = toggle;
    this.leave = leave;
    list.addEventListener("click", ({ target }) => this.choose(target.closest("[role=option]")));
    list.addEventListener("keydown", (event) => this.press(event));
  }

  /** Show items { line, score, note }, of which score may be undefined; `picked` is a set of lines. */
  show(items, picked, { label, isWaiting }) {
    this.list.ariaLabel = label;
    this.list.ariaBusy = String(isWaiting);
    const focused = this.list.contains(document.activeElement) ? document.activeElement.line : undefined;
    const rows = items.slice(0, SHOWN).map((item) => this.row(item, picked.has(item.line)));
    this.list.replaceChildren(...rows);
    this.rows = new Map(rows.map((row) => [row.line, row]));
    const current = this.rows.get(focused) ?? rows[0];
    for (const row of rows) row.tabIndex = row === current ? 0 : -1;
    if (focused !== undefined) current?.focus();
  }

  row({ line, score, note }, isPicked) {
    const row = this.rows.get(line) ?? newRow(line);
    row.setAttribute("aria-selected", String(isPicked));
    row.querySelector(".note").textContent = note;
    row.querySelector(".score").textContent = score === undefined ? "" : score.toFixed(3);
    row.style.setProperty("--score", Math.max(0, score ?? 0).toFixed(3));
    return row;
  }

  focusFirst() {
    this.list.firstElementChild?.focus();
  }

  choose(row) {
    if (row) this.toggle(row.line);
  }

  press(event) {
    const row = event.target.closest("[role=option]");
    if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
    const steps = {
      ArrowDown: () => row.nextElementSibling?.focus(),
      ArrowUp: () => (row.previousElementSibling ? row.previousElementSibling.focus() : this.leave()),
      Home: () => this.list.firstElementChild.focus(),
      End: () => this.list.lastElementChild.focus(),
      Escape: () => this.leave(),
      Enter: () => this.choose(row),
      " ": () => this.choose(row),
    };
    if (!steps[event.key]) return;
    event.preventDefault();
    steps[event.key]();
  }
}

function newRow(line) {
  const row = element("li", { role: "option", tabIndex: -1 }, [
    element("span", { className: "tick", ariaHidden: "true" }),
    element("span", { className: "line", textContent: line }),
    element("span", { className: "note" }),
    element("span", { className: "score" }),
    element("span", { className: "bar", ariaHidden: "true" }),
  ]);
  row.line = line;
  return row;
}
