/* The words before a piece of the answer: underlined by how much it rests on each, the strongest by name. */

class Underlines {
  /* Takes the steps of all pieces, [pieces + 1, words]. */
  constructor(root, text, steps) {
    const article = root.closest("article");
    this.words = [...article.querySelectorAll(".prompt .word"), ...root.querySelectorAll(".chip")];
    this.line = root.querySelector(".rests");
    Object.assign(this, { text, steps });
  }

  show(piece) {
    const steps = this.steps.subarray(piece * this.words.length);
    this.words.forEach((word, k) => {
      word.classList.toggle("rested", steps[k] > 0);
      word.style.setProperty("--share", steps[k] / this.text.steps);
    });
    const strongest = (this.text.strongest[piece] ?? []).map(([word, value]) => `“${word}” ${short(value)}`);
    if (piece >= this.text.strongest.length) this.line.textContent = "Choose one token to see what it rests on";
    else this.line.textContent = strongest.length ? `Rests on ${strongest.join(" · ")}` : "Rests on no word before it";
  }
}
