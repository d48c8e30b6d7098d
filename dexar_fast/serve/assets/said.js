/* A line that a screen reader speaks when it changes. */
const line = element.querySelector("[role=status]");
function say() {
  line.textContent = props.value?.text ?? "";
  line.dataset.kind = props.value?.kind ?? "";
}
watch("value", say);
say();
