/** Make an element of its properties and children. Text of users comes in as textContent alone. */
export function element(name, properties = {}, children = []) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}
