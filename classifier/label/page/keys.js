// The key of each class: digits first, then letters that mean nothing else.

const KEYS = "1234567890abcdefghijlmopqrtvwxyz"

/** Return a map from keys to classes. */
export function assignKeys(classes) {
  return new Map(classes.slice(0, KEYS.length).map((name, n) => [KEYS[n], name]))
}

/** Is this key pressed for the page, rather than typed into a field or meant for the browser? */
export function isShortcut(event) {
  const isTyped = event.target.matches("input:not([type=checkbox]), textarea, select")
  return !isTyped && !event.altKey && !event.metaKey && !event.isComposing && !event.repeat
}
