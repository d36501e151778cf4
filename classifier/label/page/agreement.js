// How well annotators agree, and the images on which they do not.

import { ask } from "./server.js"

const join = labels => labels.join(" + ") || "none of the classes"

/** Show what annotators agree on. page: elements by id; tell: says something; fail: says what went wrong. */
export async function showAgreement(page, tell, fail, found) {
  try {
    found ??= await ask("agreement")
  } catch (error) {
    return fail(error.message)
  }
  page.agreement.querySelector("table").hidden = found.kappas.length === 0
  page.no_kappas.hidden = found.kappas.length > 0
  page.kappas.replaceChildren(...found.kappas.map(({ annotators, images, same, value }) => {
    const row = document.createElement("tr")
    const kappa = value === null ? "not defined" : `${value.toFixed(2)} (${annotators.length > 2 ? "Fleiss" : "Cohen"})`
    for (const text of [annotators.join(", "), images, `${same} of ${images}`, kappa]) row.insertCell().append(text)
    return row
  }))
  page.disagreements_title.hidden = found.disagreements.length === 0
  page.disagreements.replaceChildren(...found.disagreements.map(({ image, name, key, said }) => {
    const item = document.createElement("li"), text = document.createElement("p"), actions = document.createElement("p")
    if (key !== null) {
      const shown = document.createElement("img")
      shown.src = `image/${key}`
      shown.alt = name
      item.append(shown)
    }
    text.textContent = name
    text.className = "faint"
    actions.className = "actions"
    const choices = new Map(Object.values(said).map(labels => [JSON.stringify(labels), { labels, by: [] }]))
    for (const [who, labels] of Object.entries(said)) choices.get(JSON.stringify(labels)).by.push(who)
    for (const { labels, by } of choices.values()) {
      const button = document.createElement("button")
      button.type = "button"
      button.textContent = `${join(labels)} (${by.join(", ")})`
      button.onclick = async () => {
        try {
          const next = await ask("resolve", { image, labels })
          tell(`${name} is ${join(labels)}.`)
          showAgreement(page, tell, fail, next)
        } catch (error) {
          fail(error.message)
        }
      }
      actions.append(button)
    }
    item.append(text, actions)
    return item
  }))
}
