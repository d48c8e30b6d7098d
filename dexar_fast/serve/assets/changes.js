/* The probability of each token, whole and with a part hidden. */
const body = element.querySelector("tbody");
function draw() {
  const rows = props.value?.tokens ?? [];
  element.querySelector("table").hidden = !rows.length;
  body.replaceChildren(...rows.map(row));
}
function row({ text, before, after }) {
  const line = document.createElement("tr");
  const name = Object.assign(document.createElement("th"), { scope: "row", textContent: text.trim() || "␣" });
  name.dir = "auto";
  const bars = document.createElement("td");
  bars.className = "bars";
  bars.append(bar("before", before), bar("after", after));
  line.append(name, bars, number(before), number(after), number(after - before, true));
  line.classList.toggle("fell", before - after >= 0.1);
  return line;
}
function bar(kind, value) {
  const line = Object.assign(document.createElement("i"), { className: kind });
  line.style.width = `${100 * value}%`;
  return line;
}
function number(value, signed = false) {
  const digits = Math.abs(value).toFixed(3);
  const sign = Number(digits) === 0 ? "" : value < 0 ? "−" : signed ? "+" : "";
  return Object.assign(document.createElement("td"), { textContent: sign + digits });
}
watch("value", draw);
draw();
