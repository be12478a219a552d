function later(milliseconds, act) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(act, milliseconds);
  };
}

/**
 * Have the page answer to what a person does.
 *
 * @param get gives the element of an id
 * @param act what is done: { typed, changed, leaveIndex, forget, save, untick, takeFile, enterList }
 */
export function listen(get, act) {
  get("query").addEventListener("input", later(80, act.typed));
  get("text").addEventListener("input", later(250, act.changed));
  get("kind").addEventListener("change", act.changed);
  get("leave-index").addEventListener("click", act.leaveIndex);
  get("forget").addEventListener("click", act.forget);
  get("save").addEventListener("click", act.save);
  get("none").addEventListener("click", act.untick);
  listenToKeys(get("query"), act.enterList);
  listenToFiles(get, act.takeFile);
}

function listenToKeys(query, enterList) {
  query.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown") return;
    event.preventDefault();
    enterList();
  });
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.matches?.("input, textarea");
    if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    query.focus(); // of itself, select() does that in Chromium and not in Firefox
    query.select();
  });
}

function listenToFiles(get, takeFile) {
  get("open").addEventListener("click", () => get("file").click());
  get("file").addEventListener("change", ({ target }) => takeFile(target.files[0]).then(() => (target.value = "")));
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
