/* A line of what happens, which a screen reader speaks when it changes; it stands beside the button that was pressed,
   too. While something runs only "Stop" can be pressed. */
const RUN = "#ask, #follow, #examples button", TOOLS = "#explain, #compare, #hide, #hide-top, #check";
const SAVES = "#save-report, #save-arrays, #save-gif";
const line = element.querySelector("[role=status]"), time = element.querySelector(".time");
const ON_MAP = "#explain, #compare"; // what they tell of stands in the map
let near = null, pressed = null, since = 0, has = false;

function say() {
  const { kind = "", text = "", answered = has } = props.value ?? {};
  const busy = kind === "busy";
  has = answered;
  if (line.textContent !== text) line.textContent = text;
  line.dataset.kind = kind;
  line.classList.toggle("beside", Boolean(text && near?.closest("[role=tabpanel]"))); // whole there: nothing moves
  document.querySelectorAll(".told").forEach((told) => {
    told.textContent = told === near ? text : "";
    told.dataset.kind = kind;
  });
  since = busy ? since || Date.now() : 0;
  document.body.classList.toggle("runs", busy);
  enable();
  if (!busy && pressed) settle(kind);
}

/* What the pressed button has told comes into view, and the focus, which a button loses when it is disabled, comes back. */
function settle(kind) {
  const table = near?.closest("[role=tabpanel]")?.querySelector("#changes table");
  if (kind === "error" || !pressed.matches(ON_MAP)) for (const told of [table, near]) told?.scrollIntoView({ block: "nearest" });
  const active = document.activeElement;
  if (active === document.body || active.disabled) again(pressed).focus({ preventScroll: true });
  pressed = null;
}

/* Gradio may have made the button anew. */
function again(button) {
  return button.isConnected ? button : document.getElementById(button.id) ?? button;
}

function enable() {
  const busy = document.body.classList.contains("runs");
  able(RUN, !busy);
  able(`#follow, ${TOOLS}, ${SAVES}`, has && !busy);
  able("#stop", busy);
}

function able(buttons, may) {
  document.querySelectorAll(buttons).forEach((button) => (button.disabled = !may));
}

/* From the click on, not only once the server says so. */
function begin(button) {
  pressed = button;
  near = button?.closest("[role=tabpanel], .asking")?.querySelector(".told");
  props.value = { ...props.value, kind: "busy", text: "Waiting for the model …" };
  say();
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.(`${RUN}, ${TOOLS}`);
  if (button && !button.disabled) setTimeout(begin, 0, button);
  const saves = event.target.closest?.(SAVES);
  if (saves) near = saves.closest("[role=tabpanel]")?.querySelector(".told");
});
document.addEventListener(
  "keydown",
  (event) => {
    if (event.key !== "Enter" || event.shiftKey || !event.target.closest?.("#question")) return;
    if (document.body.classList.contains("runs")) event.stopImmediatePropagation(), event.preventDefault();
    else setTimeout(begin, 0, document.querySelector("#ask"));
  },
  true,
);
setInterval(() => {
  const seconds = since ? Math.floor((Date.now() - since) / 1000) : 0;
  time.textContent = seconds > 1 ? `${seconds} s` : "";
}, 500);
/* A tab's buttons are made once it is opened. */
new MutationObserver(() => requestAnimationFrame(enable)).observe(document.body, { childList: true, subtree: true });
function sayOnceDrawn() {
  if (props.value?.kind !== "news" || !document.body.classList.contains("draws")) return say();
  setTimeout(say, 5000); // whatever the frame does
}
window.addEventListener("drawn", say);
watch("value", () => setTimeout(sayOnceDrawn));
say();
