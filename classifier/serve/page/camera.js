// Photographs: by the phone's camera app, or by a camera in a dialog where the browser allows it.

import { draw } from "./image.js"

const isTouched = matchMedia("(pointer: coarse)").matches

/** Whether there is a camera to take a photograph with. */
export async function hasCamera() {
  if (isTouched) return true
  const devices = (await navigator.mediaDevices?.enumerateDevices().catch(() => [])) ?? [] // none without encryption
  return devices.some(device => device.kind === "videoinput")
}

/** Take a photograph, which `add` gets as a file. say: shows a sentence where that fails. */
export async function photograph({ camera, video, shoot, cancel, capture }, add, say) {
  if (isTouched) return capture.click()
  let stream
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } })
  } catch (error) {
    const isRefused = error.name === "NotAllowedError"
    return say(isRefused ? "The browser does not let this page use the camera." : "The camera cannot be used: is it in use?")
  }
  video.srcObject = stream
  camera.onclose = () => stream.getTracks().forEach(track => track.stop())
  cancel.onclick = () => camera.close()
  shoot.onclick = async () => {
    const content = await draw(video, video.videoWidth, video.videoHeight)
    camera.close()
    if (content) add([new File([content], "photograph.jpg", { type: content.type })])
  }
  camera.showModal()
}
