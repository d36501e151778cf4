// Asks the server of this page, and sends answers to it.

/** Return the JSON of a reply. Error with its sentence if it is refused, or if there is no server. */
export async function ask(address, sent) {
  const headers = { "Content-Type": "application/json" }
  const options = sent === undefined ? {} : { method: "POST", headers, body: JSON.stringify(sent) }
  let reply
  try {
    reply = await fetch(address, options)
  } catch {
    throw new Error("The program that labels has ended: start it again by the same command, and reload this page.")
  }
  const content = await reply.json()
  if (!reply.ok) throw new Error(content.error)
  return content
}
