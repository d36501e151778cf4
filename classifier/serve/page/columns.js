// The fields of a model that takes columns beside an image: their values belong to every image on the page.

const INPUTS = { number: { type: "number", step: "any" }, date: { type: "date" }, category: {}, text: {} }

/** Show a field for each column {name, kind, values}; none for a model of images alone. */
export function showFields(place, columns) {
  place.replaceChildren(...columns.map(makeField))
}

/** Return the values by the names of their columns, or null for a model of images alone. Empty fields are missing. */
export function readFields(place) {
  const inputs = [...place.querySelectorAll("input")]
  return inputs.length ? Object.fromEntries(inputs.map(input => [input.name, input.value.trim() || null])) : null
}

function makeField({ name, kind, values }, number) {
  const label = document.createElement("label")
  const [title, input] = ["span", "input"].map(tag => document.createElement(tag))
  title.textContent = name
  Object.assign(input, { name, autocomplete: "off", placeholder: kind }, INPUTS[kind])
  label.append(title, input)
  if (values.length) {
    const list = document.createElement("datalist")
    list.id = `values_${number}`
    list.append(...values.map(value => new Option(value, value)))
    input.setAttribute("list", list.id)
    label.append(list)
  }
  return label
}
