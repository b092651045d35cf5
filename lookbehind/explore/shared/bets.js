// A bet is a question with a few choices; all bets of a page are counted by its tally.

import { element, say, mark, still } from "./controls.js";

// What the reader chose, by question: one place for all widgets of a page, whichever script made them.
const placed = (globalThis.__lookbehindBets ||= { bets: new Map(), heard: new EventTarget() });

function bet(model, root) {
  const [question, choices, right] = ["question", "choices", "right"].map((name) => model.get(name));
  const box = element("fieldset", root, { className: "lb-bet" });
  element("legend", box, { textContent: `Your bet? ${question}` });
  const row = element("div", box, { className: "lb-row" });
  const buttons = choices.map((choice) => element("button", row, { type: "button", textContent: choice }));
  const said = element("div", box, { className: "lb-soft" }, { role: "status", "aria-live": "polite" });
  const show = () => {
    const choice = model.get("choice");
    buttons.forEach((button, n) => mark(button, { "aria-pressed": String(choices[n] === choice) }));
    say(said, choice ? "It stands. What follows answers; until then you may change your mind." : "Choose before you read on.");
    placed.bets.set(question, { choice, right });
    placed.heard.dispatchEvent(new Event("bet"));
  };
  buttons.forEach((button, n) => button.addEventListener("click", () => {
    model.set("choice", choices[n]);
    model.save_changes();
    show();
  }));
  model.on("change:choice", show);
  show();
  return () => model.off("change:choice", show);
}

function tally(root) {
  const said = element("div", root, {}, { role: "status", "aria-live": "polite" }), list = element("ul", root, { className: "lb-soft" });
  const show = () => {
    const all = [...placed.bets], made = all.filter(([, { choice }]) => choice);
    const right = made.filter(([, bet]) => bet.choice === bet.right).length;
    say(said, made.length ? `Right: ${right} of ${made.length} bet${made.length > 1 ? "s" : ""}. The page has ${all.length}.` : `No bet yet: the page has ${all.length}.`);
    list.replaceChildren(...made.map(([question, bet]) => {
      const verdict = bet.choice === bet.right ? `✓ ${bet.choice}` : `✗ ${bet.choice}; it was: ${bet.right}`;
      return element("li", null, { textContent: `${question} ${verdict}` });
    }));
  };
  placed.heard.addEventListener("bet", show);
  show();
  return () => placed.heard.removeEventListener("bet", show);
}

function render({ model, el }) {
  const root = element("div", el, { className: "lb-explorer" });
  return model.get("question") ? bet(model, root) : tally(root);
}

export { still };
export default { render };
