/* Shows the report in a frame of its own origin, which can reach nothing of this page, and hands it each new state. */
const frame = element.querySelector("iframe");
const empty = element.querySelector(".nothing-yet");
let shown = "", run, ready = false;

function show() {
  const state = props.value;
  empty.hidden = Boolean(state && state.page);
  frame.hidden = !empty.hidden;
  if (frame.hidden) return;
  const grows = state.chips || state.final;
  frame.classList.toggle("grows", Boolean(state.chips));
  if (state.page === shown && state.run === run) return send();
  [shown, run, ready] = [state.page, state.run, false];
  draws(true);
  frame.srcdoc = grows ? shown.replace('<body class="', '<body class="growing ') : shown;
  if (away()) element.scrollIntoView({ block: "start" });
}

/* The line of news waits until what it tells of can be seen. */
function draws(now) {
  document.body.classList.toggle("draws", now);
  if (!now) window.dispatchEvent(new Event("drawn"));
}

/* Whether nothing of it can be seen: a browser does not draw there either. */
function away() {
  const { top, bottom } = element.getBoundingClientRect();
  return bottom < 80 || top > innerHeight - 80;
}

function send() {
  const { page, run: _, ...state } = props.value;
  if (!ready || !Object.keys(state).length) return;
  draws(Boolean(state.final));
  frame.contentWindow.postMessage({ state }, "*");
}

window.addEventListener("message", (event) => {
  if (event.source !== frame.contentWindow) return;
  if (event.data.height) frame.style.height = `${event.data.height}px`;
  if (event.data.drawn) draws(false);
  if (event.data.ready) {
    ready = true;
    draws(false);
    frame.dataset.ready = "true";
    darken();
    send();
  }
});
/* A frame of another colour scheme than its page's would not be see-through. */
function darken() {
  const dark = document.body.classList.contains("dark");
  frame.style.colorScheme = dark ? "dark" : "light";
  if (ready) frame.contentWindow.postMessage({ dark }, "*");
}
new MutationObserver(darken).observe(document.body, { attributeFilter: ["class"] });
watch("value", show);
show();
