const HUB = "https://huggingface.co/";

/**
 * Find the model: `?model=owner/name` of the Hub, else what model.json beside the page says: a name on the Hub, or a
 * folder beside the page, from which nothing leaves this server.
 *
 * @returns { name, source, id, host, path, local, dtype }: the last five are what the worker loads
 */
export async function findModel(address) {
  const asked = new URLSearchParams(address.search).get("model");
  if (asked !== null) return onHub(asked);
  const base = new URL(".", address.href);
  const response = await fetch(new URL("model.json", base), { cache: "no-cache" });
  if (!response.ok) throw new Error(`${response.status} for model.json, which says which model the page runs`);
  const { name, folder, dtype = "int8" } = await response.json();
  if (!folder) return onHub(name);
  return { name, source: "from this server", id: folder, host: base.href, path: "{model}/", local: true, dtype };
}

function onHub(name) {
  if (!/^[\w.-]+\/[\w.-]+$/.test(name)) throw new Error(`"${name}" is not a name on the Hub; it has the form owner/name`);
  return {
    name,
    source: "from the Hugging Face Hub",
    id: name,
    host: HUB,
    path: "{model}/resolve/{revision}/",
    local: false,
    dtype: "int8",
  };
}
