/* The line of what is chosen. */
const line = element.querySelector("p");
function say() {
  line.textContent = props.lines[props.value] ?? "";
}
watch("value", say);
say();
