// The page: images come in by choice, drop, paste or camera, and are answered a few at once.

import { hasCamera, photograph } from "./camera.js"
import { Card } from "./card.js"
import { readFields, showFields } from "./columns.js"
import { hasKey, listModels, saveKey } from "./server.js"

const AT_ONCE = 2
const MAX_NAMED_CLASSES = 12
const page = Object.fromEntries([...document.querySelectorAll("[id]")].map(element => [element.id, element]))

let models = [] // empty: not connected
let model = null
let cards = []
let waiting = []
let running = 0

async function connect() {
  showProblem("")
  try {
    models = await listModels()
  } catch (error) {
    return lose(error)
  }
  page.key_form.hidden = true
  page.model.replaceChildren(...models.map(({ name }) => new Option(name)))
  page.model_choice.hidden = models.length < 2
  page.main.hidden = false
  choose(models.find(({ name }) => name === model?.name) ?? models[0])
  work()
}

/** Stop asking, and say what is needed to go on. */
function lose(error) {
  models = []
  const needsKey = error.status === 401
  page.key_form.hidden = !needsKey
  page.key_insecure.hidden = isSecureContext
  showProblem(needsKey && !hasKey() ? "" : error.message)
  page.reconnect.hidden = needsKey
  if (needsKey) page.key.focus()
}

function showProblem(text) {
  page.problem.textContent = text
  page.problem.hidden = text === ""
  page.reconnect.hidden = true
}

function choose(chosen) {
  const before = model
  model = chosen
  page.model.selectedIndex = models.indexOf(model)
  const { class_names, why_no_heatmaps, columns } = model
  if (JSON.stringify(before?.columns) !== JSON.stringify(columns)) showFields(page.fields, columns)
  page.columns.hidden = columns.length === 0
  const more = class_names.length - MAX_NAMED_CLASSES
  const named = class_names.slice(0, MAX_NAMED_CLASSES).join(", ") + (more > 0 ? ` and ${more.toLocaleString("en")} more` : "")
  page.classes.textContent = `The model ${model.name} tells ${class_names.length.toLocaleString("en")} classes apart: ${named}.`
  page.no_maps.hidden = why_no_heatmaps === null
  page.no_maps.textContent = `What speaks for an answer cannot be shown in the image here: ${why_no_heatmaps}.`
}

function add(files) {
  const added = [...files].map(file => new Card(file, { retry: card => ask([card]), remove }))
  cards = [...added, ...cards]
  page.cards.prepend(...added.map(card => card.element))
  count()
  ask(added)
}

function remove(...removed) {
  cards = cards.filter(card => !removed.includes(card))
  waiting = waiting.filter(card => !removed.includes(card))
  for (const card of removed) card.remove()
  count()
  page.choose.focus()
}

function count() {
  page.overview.hidden = cards.length < 2
  page.count.textContent = `${cards.length} images`
}

function ask(asked) {
  for (const card of asked) card.wait()
  waiting = [...waiting.filter(card => !asked.includes(card)), ...asked]
  work()
}

function work() {
  while (models.length && waiting.length && running < AT_ONCE) {
    running++
    answer(waiting.shift()).finally(() => {
      running--
      work()
    })
  }
}

async function answer(card) {
  try {
    const text = await card.ask(model, readFields(page.fields))
    if (text) tell(`${card.name}: ${text}`)
  } catch (error) {
    if (error.status === 401) {
      if (!cards.includes(card)) return
      card.wait()
      waiting.unshift(card)
      return lose(error)
    }
    card.fail(error)
    tell(`${card.name}: no answer. ${error.message}`)
  }
}

/** Have a screen reader say something. */
function tell(text) {
  const line = document.createElement("p")
  line.textContent = text
  page.news.append(line)
  if (page.news.childElementCount > 20) page.news.firstElementChild.remove()
}

page.key_form.onsubmit = event => {
  event.preventDefault()
  saveKey(page.key.value)
  page.key.value = ""
  connect()
}
page.reconnect.onclick = connect
page.model.onchange = () => {
  choose(models[page.model.selectedIndex])
  ask(cards)
}
page.columns.onsubmit = event => event.preventDefault()
page.columns.onchange = () => ask(cards)
page.imageless.onclick = () => add([null])
page.choose.onclick = () => page.files.click()
page.photograph.onclick = async () => {
  page.photograph.disabled = true // a second camera would never be switched off
  await photograph(page, add, showProblem)
  page.photograph.disabled = false
}
page.clear.onclick = () => remove(...cards)
for (const input of [page.files, page.capture]) {
  input.onchange = () => {
    add(input.files)
    input.value = "" // the same file may be chosen again
  }
}
for (const [name, isOver] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  addEventListener(name, event => {
    event.preventDefault()
    document.body.classList.toggle("dragging", isOver)
    if (name === "drop" && event.dataTransfer.files.length) add(event.dataTransfer.files)
  })
}
addEventListener("paste", event => {
  if (event.clipboardData.files.length) add(event.clipboardData.files)
})

page.photograph.hidden = !(await hasCamera())
connect()
