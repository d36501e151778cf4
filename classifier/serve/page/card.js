// The card of an image: its preview, and what the server says of it.

import { fitToLimits, openImage } from "./image.js"
import { predict } from "./server.js"

const MAX_NAMED_CLASSES = 3
const percent = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 })

/** Return an answer in words: its title, a sentence on it, and whether to be careful. */
export function describe({ class_name, decision, prediction_set, is_out_of_distribution, labels = null, levels = [] }) {
  if (is_out_of_distribution) {
    const text = `The model has not learned from anything like this: do not rely on its classes. The nearest is ${class_name}.`
    return { title: "Unlike anything seen in training", text, isUncertain: true }
  }
  if (labels !== null) {
    const others = prediction_set.filter(name => !labels.includes(name))
    const named = orList(others.slice(0, MAX_NAMED_CLASSES), others.length)
    const text = others.length ? `It may also be ${named}.` : ""
    return { title: labels.join(", ") || "No label", text, isUncertain: false }
  }
  if (decision === null) {
    const named = prediction_set.slice(0, MAX_NAMED_CLASSES)
    const text = prediction_set.length > named.length
      ? `${prediction_set.length} classes are possible.`
      : named.length > 1 ? "Probably it is one of these." : "No class is probable enough to decide for it."
    const title = named.length ? `Not sure: ${orList(named, prediction_set.length)}` : "Not sure"
    return { title, text, isUncertain: true }
  }
  const inside = levels.length ? prediction_set.filter(name => name.startsWith(`${decision}/`)) : []
  if (inside.length) { // a class above the leaves
    const named = orList(inside.slice(0, MAX_NAMED_CLASSES), inside.length)
    return { title: decision, text: `Not sure which: ${named}.`, isUncertain: false }
  }
  const others = prediction_set.filter(name => name !== decision)
  const doubts = others.length ? `It may also be ${orList(others.slice(0, MAX_NAMED_CLASSES), others.length)}.` : ""
  const why = `${class_name} is more probable, but the thresholds of this model decide for ${decision}.`
  return { title: decision, text: decision === class_name ? doubts : why, isUncertain: false }
}

function orList(names, total) {
  const all = total > names.length ? [...names, "others"] : names
  return all.length < 2 ? all.join("") : `${all.slice(0, -1).join(", ")} or ${all.at(-1)}`
}

export class Card {
  /** file: the image; null for columns without one. on: {retry, remove}, called with the card. */
  constructor(file, on) {
    this.name = file ? file.name || "image" : "Without an image"
    this.element = clone("card_template")
    this.opened = file ? openImage(file).then(image => this.#preview(image)) : Promise.resolve({ file, url: "" })
    this.#say("name", this.name)
    this.#find(".image").alt = this.name
    for (const [name, act] of Object.entries(on)) this.#find(`.${name}`).onclick = () => act(this)
    for (const button of this.element.querySelectorAll("button")) button.ariaDescription = this.name
    this.#find(".map").onclick = () => this.#toggleMap()
  }

  /**
   * Ask a model, show its answer and return it in words; nothing if it was asked again since. ServerError: no answer.
   * columns: the values beside the image, or null.
   */
  async ask(model, columns) {
    this.#begin("Asking …")
    const asked = (this.asked = { model, columns })
    const image = await this.opened
    const { content, note } = image.file ? await fitToLimits(image, model) : { content: null, note: "" }
    const onWait = text => this.asked === asked && this.#say("title", text)
    let answer
    try {
      answer = await predict(content, model.name, { columns, onWait })
    } catch (error) {
      if (this.asked !== asked) return ""
      throw error
    }
    if (this.asked !== asked) return ""
    this.answered = { content, columns, ...answer }
    const { title, text, isUncertain } = describe(answer.prediction)
    this.#end(title, text, isUncertain ? "warning" : "")
    this.#find(".bars").replaceChildren(...answer.prediction.top.map(makeBar))
    this.#say("note", `${note} Answered by ${answer.model}, version ${answer.version}.`.trim())
    this.#find(".map").hidden = model.why_no_heatmaps !== null || content === null
    return `${title}. ${text}`
  }

  /** Show why there is no answer. */
  fail(error) {
    this.#end("No answer", error.message, "error")
    this.#find(".retry").hidden = !error.isPassing
  }

  wait() {
    this.#begin("Waiting …")
  }

  async remove() {
    this.asked = null
    this.element.remove()
    URL.revokeObjectURL((await this.opened).url)
  }

  async #toggleMap() {
    if (this.element.classList.contains("drawing")) return
    const isShown = this.#find(".map").ariaPressed === "true"
    if (isShown) return this.#show((await this.opened).url, this.name, "", false)
    const answered = this.answered
    const { model, bundle, content, columns, prediction } = answered
    this.element.classList.add("drawing")
    this.#say("caption", "Drawing … The first one of a server takes a while.")
    try {
      answered.heatmap ??= (await predict(content, model, { columns, version: bundle, maps: true })).prediction.heatmap
      if (this.answered !== answered) return // another model was asked meanwhile
      const caption = `What the model sees, and in orange what speaks for ${prediction.class_name} (Grad-CAM)`
      this.#show(`data:image/jpeg;base64,${answered.heatmap}`, `${this.name}. ${caption}`, caption, true)
    } catch (error) {
      if (this.answered !== answered) return
      this.#say("caption", error.message)
    }
    this.element.classList.remove("drawing")
  }

  #show(url, text, caption, isMap) {
    Object.assign(this.#find(".image"), { src: url, alt: text })
    this.#say("caption", caption)
    this.#find(".map").ariaPressed = isMap
  }

  #preview(image) {
    if (image.element) this.#find(".image").src = image.url
    else this.#say("caption", "This browser cannot show the file.")
    return image
  }

  #begin(title) {
    if (this.element.classList.contains("drawing")) this.#say("caption", "")
    this.element.className = "card"
    this.element.ariaBusy = true
    this.answered = null
    for (const name of ["text", "note"]) this.#say(name, "")
    for (const name of ["map", "retry"]) this.#find(`.${name}`).hidden = true
    this.#find(".bars").replaceChildren()
    this.#say("title", title)
    if (this.#find(".map").ariaPressed === "true") this.#toggleMap()
  }

  #end(title, text, style) {
    this.element.className = `card ${style}`
    this.element.ariaBusy = false
    this.#say("title", title)
    this.#say("text", text)
  }

  #say(name, text) {
    this.#find(`.${name}`).textContent = text
  }

  #find(selector) {
    return this.element.querySelector(selector)
  }
}

function makeBar({ class_name, probability }) {
  const bar = clone("bar_template")
  bar.querySelector(".class").textContent = class_name
  bar.querySelector(".share").textContent = percent.format(probability)
  bar.querySelector(".bar span").style.width = `${100 * probability}%`
  return bar
}

function clone(template) {
  return document.getElementById(template).content.cloneNode(true).firstElementChild
}
