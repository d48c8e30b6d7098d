/* Saves what the server hands over, which was never a file there. */
let saved = 0;
watch("value", () => {
  const file = props.value;
  if (!file || file.number === saved) return;
  saved = file.number;
  const bytes = Uint8Array.from(atob(file.data), (letter) => letter.charCodeAt(0));
  const link = Object.assign(document.createElement("a"), { download: file.name });
  link.href = URL.createObjectURL(new Blob([bytes], { type: "application/octet-stream" }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
});
