// What the copy buttons of a page get wrong: a list of sentences. Code is copied without prompts, and without what it printed.
async () => {
  const problems = [];
  const lines = (text) => text.split("\n").map((line) => line.trimEnd()).filter(Boolean);
  const session = (line) => line.match(/^(?:>>>|\.\.\.|\$)(?: (.*)|$)/);
  for (const button of document.querySelectorAll("button.copybtn")) {
    const shown = lines(document.querySelector(button.dataset.clipboardTarget).textContent);
    const typed = shown.filter(session).map((line) => session(line)[1] ?? "");
    const expected = (typed.length ? typed : shown).filter(Boolean);
    let copied = null;
    const listen = () => (copied = document.activeElement.value ?? getSelection().toString());
    document.addEventListener("copy", listen, { once: true });
    button.click();
    document.removeEventListener("copy", listen);
    if (copied === null || lines(copied).join("\n") !== expected.join("\n"))
      problems.push(`a button copies ${JSON.stringify(copied)}, expected ${JSON.stringify(expected.join("\n"))}`);
  }
  return problems;
}
