/* The questions and answers before the one that is shown. */
function draw() {
  const turns = props.value || [];
  const entries = turns.flatMap(([question, answer]) => [entry("asked", question), entry("said", answer)]);
  element.querySelector("ol").replaceChildren(...entries);
  element.querySelector("section").hidden = !turns.length;
}
function entry(kind, text) {
  const item = Object.assign(document.createElement("li"), { className: kind, textContent: text });
  item.dir = "auto";
  return item;
}
watch("value", draw);
draw();
