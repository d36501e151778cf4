// An image before it is sent: opened for its preview, and made smaller where it is over the server's limits.

import { ServerError } from "./server.js"

// Of a canvas: browsers of phones draw no more.
const MAX_CANVAS_PIXELS = 16_000_000
const QUALITY = 0.92

/** Open a file: {file, url, width, height}; without a size if this browser cannot show it, which the server may still read. */
export async function openImage(file) {
  const url = URL.createObjectURL(file)
  const element = new Image()
  element.src = url
  try {
    await element.decode()
  } catch {
    return { file, url, element: null, width: 0, height: 0 }
  }
  return { file, url, element, width: element.naturalWidth, height: element.naturalHeight }
}

/** Return what is sent, and a note if it had to be made smaller. ServerError if it is too large and cannot be. */
export async function fitToLimits({ file, element, width, height }, { max_bytes, max_pixels }) {
  try {
    await file.slice(0, 1).arrayBuffer()
  } catch {
    throw new ServerError("The file cannot be read: is it a folder, or was it moved?", 400)
  }
  if (file.size <= max_bytes && width * height <= max_pixels) return { content: file, note: "" }
  if (!element) {
    throw new ServerError(
      `The file has ${inMegabytes(file.size)}, the server takes ${inMegabytes(max_bytes)}, and this browser cannot make it smaller.`,
      413,
    )
  }
  let pixels = Math.min(width * height, max_pixels, MAX_CANVAS_PIXELS)
  for (; pixels > 1000; pixels /= 2) {
    const scale = Math.sqrt(pixels / (width * height))
    const size = [width, height].map(length => Math.max(1, Math.floor(scale * length)))
    const content = await draw(element, ...size)
    if (content && content.size <= max_bytes) {
      const [before, after] = [[width, height], size].map(lengths => lengths.map(one => one.toLocaleString("en")).join(" × "))
      return { content, note: `Made smaller for the server's limits: ${after} pixels, from ${before}.` }
    }
  }
  throw new ServerError("The image is too large, and this browser cannot make it smaller.", 413)
}

/** Draw an image or a video in a size; return it as a JPEG, on white where it is transparent. */
export function draw(source, width, height) {
  const canvas = document.createElement("canvas")
  Object.assign(canvas, { width, height })
  const context = canvas.getContext("2d")
  context.fillStyle = "#fff"
  context.fillRect(0, 0, width, height)
  context.imageSmoothingQuality = "high"
  context.drawImage(source, 0, 0, width, height)
  return new Promise(resolve => canvas.toBlob(resolve, "image/jpeg", QUALITY))
}

function inMegabytes(bytes) {
  return `${(bytes / 2 ** 20).toFixed(1)} MB`
}
