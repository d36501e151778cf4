// Requests to the server, and what to say where they fail.

const ANSWER_SECONDS = 90
const TRIES = 7
const MAX_WAIT_SECONDS = 8
const KEY = "classifier-key"
let key = ""

/** A failure in a sentence for people. status: of HTTP; 0 if there was no answer. */
export class ServerError extends Error {
  constructor(message, status = 0, seconds = 1) {
    super(message)
    this.status = status
    this.seconds = seconds
  }

  /** Whether the same request may succeed later. */
  get isPassing() {
    return [0, 408, 429].includes(this.status) || this.status >= 500
  }
}

try {
  key = sessionStorage.getItem(KEY) ?? ""
} catch {
  // A browser without storage: the key is kept in this page only.
}

export function saveKey(text) {
  key = text.trim()
  try {
    sessionStorage.setItem(KEY, key)
  } catch {
    // as above
  }
}

export function hasKey() {
  return key !== ""
}

/** Return the models: {name, class_names, max_bytes, max_pixels, why_no_heatmaps, columns}. */
export async function listModels() {
  return (await request("models")).models
}

/**
 * Return the answer to an image: {model, version, bundle, prediction}. version: a bundle, too. columns: the values beside
 * the image, which may then be null. onWait: called with a sentence before it is asked again.
 */
export async function predict(image, model, { columns = null, version = "", maps = false, onWait = () => {} } = {}) {
  const query = new URLSearchParams({ top: 5 })
  if (version) query.set("version", version)
  if (maps) query.set("maps", true)
  for (let attempt = 1; ; attempt++) {
    try {
      const answer = await request(`predict/${encodeURIComponent(model)}?${query}`, {
        method: "POST",
        body: columns ? makeForm(image, columns) : image,
        headers: columns ? {} : { "Content-Type": "application/octet-stream" },
      })
      return { ...answer, prediction: answer.predictions[0] }
    } catch (error) {
      if (error.status !== 429 || attempt === TRIES) throw error
      const seconds = Math.max(error.seconds, Math.min(2 ** (attempt - 1), MAX_WAIT_SECONDS))
      onWait(`The server is busy: trying again in ${seconds} s.`)
      await new Promise(resolve => setTimeout(resolve, 1000 * seconds))
    }
  }
}

function makeForm(image, columns) {
  const form = new FormData() // the browser writes its Content-Type
  if (image) form.append("image", image)
  form.append("columns", JSON.stringify(columns))
  return form
}

async function request(path, { headers = {}, ...options } = {}) {
  let response, text
  try {
    if (key) headers = { ...headers, Authorization: `Bearer ${key}` }
    response = await fetch(path, { ...options, headers, signal: AbortSignal.timeout(1000 * ANSWER_SECONDS) })
    text = await response.text()
  } catch (error) {
    if (error.name === "TimeoutError") throw new ServerError(`There was no answer within ${ANSWER_SECONDS} seconds.`)
    throw new ServerError("The server cannot be reached: is it running, and is there a connection to it?")
  }
  const answer = parse(text)
  if (response.ok && answer) return answer
  throw new ServerError(explain(response.status, answer), response.status, Number(response.headers.get("Retry-After")) || 1)
}

function explain(status, answer) {
  if (status === 401) return hasKey() ? "The server does not know this key." : "The server needs a key."
  if (status === 429) return "The server is busy, and was so at every try."
  const reason = answer?.error ?? answer?.predictions?.[0]?.error
  if (typeof reason === "string") return toSentence(reason)
  if (status === 413) return "The image is too large for the server."
  return `The server gave no answer that can be understood (HTTP ${status}).`
}

function parse(text) {
  try {
    return JSON.parse(text)
  } catch {
    return null // of a proxy before it, perhaps
  }
}

function toSentence(text) {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`
}
