/* A finger that rests on something: what Shift and a click are to a mouse. */

const HELD_AFTER = 450; // milliseconds: before a browser opens a menu of its own
const STILL_WITHIN = 10; // pixels: a finger that moves further scrolls

function onHold(element, act) {
  let timer = 0, start = null, held = false;
  const stop = () => clearTimeout(timer);
  element.addEventListener("pointerdown", (event) => {
    stop();
    [start, held] = [event, false];
    if (event.pointerType !== "touch" || !event.isPrimary) return;
    timer = setTimeout(() => {
      held = true;
      act(event);
    }, HELD_AFTER);
  });
  element.addEventListener("pointermove", ({ clientX, clientY }) => {
    if (start && Math.hypot(clientX - start.clientX, clientY - start.clientY) > STILL_WITHIN) stop();
  });
  for (const end of ["pointerup", "pointercancel"]) document.addEventListener(end, stop);
  element.addEventListener("contextmenu", (event) => held && event.preventDefault());
  /* Lifting the finger is a click to some browsers. */
  element.addEventListener("click", (event) => held && event.stopImmediatePropagation(), true);
}
