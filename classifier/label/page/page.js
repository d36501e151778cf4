// The page: an image at a time is answered by key, click or touch. What it shows is set as text, never as markup.

import { showAgreement } from "./agreement.js"
import { assignKeys, isShortcut } from "./keys.js"
import { ask } from "./server.js"

const page = Object.fromEntries([...document.querySelectorAll("[id]")].map(element => [element.id, element]))
const AHEAD = 3 // images fetched before they are needed

let state = null
let current = null // key of the image that is shown; null where all are answered
let selected = new Set() // labels of it, where there may be several
let keys = new Map()
let pending = new Map() // answers that are not confirmed yet, by key of the image
let queue = Promise.resolve()

const join = labels => labels.join(" + ") || "none of the classes"
const find = key => state.items.find(item => item.key === key)
const position = () => state.items.findIndex(item => item.key === current)

function tell(text) {
  page.news.textContent = text
}

function fail(text) {
  page.problem.textContent = text
  page.problem.hidden = text === ""
}

/** Take over what the server says, but for answers that are still on their way to it. */
function update(next) {
  state = next
  for (const [key, labels] of pending) {
    const item = find(key)
    if (item) Object.assign(item, { is_answered: true, answer: labels })
  }
}

/** Send something after all that was sent before. */
function send(address, sent, then) {
  queue = queue.then(async () => {
    try {
      then(await ask(address, sent))
    } catch (error) {
      pending.clear()
      fail(error.message)
      try {
        update(await ask("state"))
        if (sent.key !== undefined) current = sent.key
        show()
      } catch { /* the sentence says that there is no server */ }
    }
  })
}

function answer(labels) {
  const item = find(current)
  if (!item) return
  fail("")
  pending.set(item.key, labels)
  Object.assign(item, { is_answered: true, answer: labels })
  tell(labels ? `${join(labels)}.` : "Skipped.")
  goToOpen()
  send("answer", { key: item.key, labels }, next => {
    if (pending.get(item.key) === labels) pending.delete(item.key)
    update(next)
    show()
    if (state.annotators > 1) showAgreement(page, tell, fail)
  })
}

function undo() {
  fail("")
  send("undo", {}, next => {
    update(next)
    if (next.undone !== null && find(next.undone)) {
      current = next.undone
      tell("The last answer was taken back.")
    }
    showCurrent()
  })
}

/** Answer by a class: at once where an image has one, else it is added to the labels or removed from them. */
function choose(name) {
  if (!state.is_multilabel) return answer([name])
  selected.has(name) ? selected.delete(name) : selected.add(name)
  if (!state.classes.includes(name)) state.classes.push(name)
  show()
}

function accept() {
  const item = find(current)
  if (!item) return
  if (state.is_multilabel) return answer([...selected])
  if (item.guess) answer(item.guess)
}

/** Show the next image without an answer, or that there is none. */
function goToOpen() {
  const rows = state.items, start = position() + 1
  const next = [...rows.slice(start), ...rows.slice(0, start)].find(item => !item.is_answered)
  current = next ? next.key : null
  showCurrent()
  if (!next) page.done.focus()
}

function move(step) {
  const row = state.items[position() + step]
  if (current === null || !row) return
  current = row.key
  showCurrent()
}

/** Show an image anew, with the labels that it has. */
function showCurrent() {
  const item = find(current)
  selected = new Set(item ? (item.is_answered ? item.answer : item.label ?? item.guess) ?? [] : [])
  show()
}

function show() {
  const item = find(current), count = state.items.length
  const answered = state.items.filter(row => row.is_answered).length
  document.title = `${answered}/${count} ${state.title}`
  page.title.textContent = state.title
  page.progress.max = count || 1
  page.progress.value = answered
  page.count.textContent = `${answered} of ${count} answered`
  page.work.hidden = !item
  page.done.hidden = Boolean(item)
  page.undo.disabled = page.undo_done.disabled = !state.can_undo && pending.size === 0
  keys = assignKeys(state.classes)
  if (item) showItem(item)
  else showDone()
  showThumbnails()
  page.where.textContent = `${state.answered} images labelled by ${state.annotator}, in ${state.manifest}`
  page.agreement.hidden = state.annotators < 2
}

function showItem(item) {
  const number = position() + 1, address = `image/${item.key}`
  if (page.image.getAttribute("src") !== address) page.image.src = address
  page.image.alt = `Image ${number} of ${state.items.length}`
  page.caption.textContent = item.name
  const is_error = state.kind === "errors"
  page.question.textContent = is_error ? "Is this label right?" : "What is in this image?"
  page.stored.hidden = !item.label
  page.stored.textContent = item.label ? `Labelled ${join(item.label)}.` : ""
  page.guess.hidden = !item.guess
  if (item.guess) page.guess.textContent = `The model thinks ${join(item.guess)}, ${(100 * item.probability).toFixed(0)} %.`
  const labels = state.is_multilabel ? [...selected] : item.guess
  page.accept.hidden = !labels
  page.accept.setAttribute("aria-keyshortcuts", "Enter")
  if (labels) setButton(page.accept, `${state.is_multilabel ? "Save" : "Accept"} ${join(labels)}`, "Enter")
  page.keep.hidden = !item.label
  if (item.label) setButton(page.keep, `Keep ${join(item.label)}`, "K")
  const given = state.is_multilabel ? selected : new Set(item.is_answered ? item.answer ?? [] : [])
  const key_of = new Map([...keys].map(([key, name]) => [name, key]))
  if (page.classes.childElementCount !== state.classes.length) {
    page.classes.replaceChildren(...state.classes.map(() => document.createElement("button")))
  }
  state.classes.forEach((name, n) => {
    const button = page.classes.children[n]
    button.type = "button"
    button.onclick = () => choose(name)
    button.setAttribute("aria-pressed", given.has(name))
    setButton(button, name, key_of.get(name)?.toUpperCase())
  })
  page.names.replaceChildren(...state.classes.map(name => new Option(name)))
  page.skip.disabled = false
  page.before.disabled = number === 1
  page.after.disabled = number === state.items.length
  for (const row of state.items.slice(number, number + AHEAD)) new Image().src = `image/${row.key}`
}

function setButton(button, text, key) {
  const parts = [text]
  if (key) {
    const hint = document.createElement("kbd")
    hint.textContent = key
    hint.ariaHidden = "true"
    parts.push(hint)
    button.setAttribute("aria-keyshortcuts", key)
  }
  button.replaceChildren(...parts)
}

function showDone() {
  const count = state.items.length
  page.done_title.textContent = count ? `All ${count} images are answered.` : "There is no image to label."
  page.done_text.textContent = state.kind === "errors" ? `The corrected labels are in ${state.manifest}.`
    : `The labels are in ${state.manifest}, for classifier train and classifier update.`
  page.more.hidden = state.kind === "errors"
}

function showThumbnails() {
  const list = page.thumbnails
  const shown = [...list.children].map(row => row.dataset.key).join()
  if (shown !== state.items.map(item => item.key).join()) list.replaceChildren(...state.items.map(makeThumbnail))
  state.items.forEach((item, n) => {
    const row = list.children[n], button = row.firstElementChild
    const said = item.is_answered ? (item.answer ? join(item.answer) : "skipped") : ""
    row.className = item.is_answered ? (item.answer ? "answered" : "skipped") : ""
    button.lastElementChild.textContent = said
    button.setAttribute("aria-label", `Image ${n + 1}${said ? `, ${said}` : ", not answered"}`)
    button.setAttribute("aria-current", item.key === current)
  })
}

function makeThumbnail(item) {
  const row = document.createElement("li"), button = document.createElement("button"), image = document.createElement("img")
  row.dataset.key = item.key
  image.loading = "lazy"
  image.alt = ""
  image.src = `thumbnail/${item.key}`
  button.type = "button"
  button.onclick = () => {
    current = item.key
    showCurrent()
    page.work.scrollIntoView({ block: "nearest" })
  }
  button.append(image, document.createElement("span"))
  row.append(button)
  return row
}

page.accept.onclick = accept
page.keep.onclick = () => answer(find(current).label)
page.skip.onclick = () => answer(null)
page.undo.onclick = page.undo_done.onclick = undo
page.before.onclick = () => move(-1)
page.after.onclick = () => move(1)
page.name_form.onsubmit = event => {
  event.preventDefault()
  const name = page.name.value.trim()
  page.name.value = ""
  page.name.blur()
  if (name) choose(name)
}
page.name.onkeydown = event => {
  if (event.key === "Escape") page.name.blur()
}
page.more.onclick = () => {
  page.more.disabled = true
  page.done_text.textContent = "Choosing images …"
  send("more", {}, next => {
    page.more.disabled = false
    update(next)
    if (next.added) goToOpen()
    else {
      show()
      page.done_text.textContent = "There are no more images."
    }
  })
}

addEventListener("keydown", event => {
  if (!state || !isShortcut(event) || !page.shortcuts.checked) return
  const key = event.key.toLowerCase()
  if (event.ctrlKey) {
    if (key !== "z" || event.shiftKey) return
    undo()
  } else if (key === "enter") {
    if (event.target.matches("button, a") || page.accept.hidden || current === null) return // the button's own key
    accept()
  } else if (key === "u") undo()
  else if (current === null) return
  else if (key === "s") answer(null)
  else if (key === "n") page.name.focus()
  else if (key === "k" && !page.keep.hidden) answer(find(current).label)
  else if (key === "arrowleft") move(-1)
  else if (key === "arrowright") move(1)
  else if (keys.has(key)) choose(keys.get(key))
  else return
  event.preventDefault()
})

// A clicked button gives up the focus, or Enter would press it again rather than accept the guess.
addEventListener("click", event => {
  if (event.detail) event.target.closest("button")?.blur()
})

async function start() {
  try {
    update(await ask("state"))
  } catch (error) {
    return fail(error.message)
  }
  page.main.hidden = false
  goToOpen()
  if (state.annotators > 1) showAgreement(page, tell, fail)
}

start()
