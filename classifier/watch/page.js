"use strict";
// Asks for the state twice a second. What it shows is set as text, never as markup.
const find = (id) => document.getElementById(id);
let shown = -1, alerts = "";

// Sets the text only where it is another: it is read out then.
function showMessage(text, isLost) {
  if (find("state").textContent !== text) find("state").textContent = text;
  find("state").classList.toggle("lost", isLost);
}

function showClasses(top) {
  find("classes").replaceChildren(...top.map(([name, share]) => {
    const row = document.createElement("tr"), bar = document.createElement("progress");
    bar.value = share;
    bar.setAttribute("aria-label", name);
    for (const content of [name, bar, (100 * share).toFixed(1) + " %"]) {
      row.insertCell().append(content);
    }
    return row;
  }));
}

function showEvents(events) {
  const text = JSON.stringify(events);
  if (text === alerts) return;
  alerts = text;
  find("none").hidden = events.length > 0;
  find("alerts").replaceChildren(...events.map((event) => {
    const item = document.createElement("li");
    const what = event.event === "alert" ? event.rule : event.event === "alert_ended" ? "over: " + event.rule : event.answer;
    item.className = event.event;
    item.textContent = new Date(event.time).toLocaleTimeString() + "  " + what;
    return item;
  }));
}

function showState(state) {
  document.title = (state.is_on ? "(!) " : "") + state.source;
  find("source").textContent = state.source;
  find("alerts-title").textContent = state.has_rules ? "Alerts" : "Answers";
  showMessage(state.frame === null ? "Waiting for the first frame." : "", false);
  find("counts").textContent = state.frames + " frames, " + state.answered + " answered, " + state.dropped + " dropped"
    + (state.reconnects ? ", " + state.reconnects + " reconnects" : "");
  if (state.frame !== null && state.frame !== shown) {
    shown = state.frame;
    find("frame").hidden = false;
    find("frame").src = "frame.jpg?" + shown;
    find("frame").alt = "Frame " + shown + ": " + state.answer;
    find("caption").textContent = "frame " + shown + " at " + state.seconds.toFixed(1) + " s";
    find("answer").textContent = state.answer;
    showClasses(state.top);
  }
  showEvents(state.events);
}

async function poll() {
  try {
    const response = await fetch("state", { signal: AbortSignal.timeout(5000) });
    showState(await response.json());
  } catch {
    showMessage("The watching has ended, or cannot be reached.", true);
  }
  setTimeout(poll, 500);
}

poll();
