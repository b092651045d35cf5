// A decision tree: the questions of one path, and the advice at its end.

import { element, mark, put, still } from "./controls.js";

// Whether a rule holds, as far as the first questions can say.
const holds = (rule, chosen, known) => Object.entries(rule.if).every(([question, choice]) => !known.includes(question) || chosen[question] === choice);

function render({ model, el }) {
  const [questions, rules] = ["questions", "rules"].map((name) => model.get(name)), names = Object.keys(questions);
  const root = element("div", el, { className: "lb-explorer lb-advice" }), path = element("div", root, { className: "lb-path" });
  const card = element("div", root, { className: "lb-card" }, { role: "status", "aria-live": "polite" });
  const boxes = names.map((name) => {
    const box = element("fieldset", path);
    element("legend", box, { textContent: name });
    const row = element("div", box, { className: "lb-row" });
    const buttons = questions[name].map((choice) => element("button", row, { type: "button", textContent: choice }));
    buttons.forEach((button, n) => button.addEventListener("click", () => {
      model.set("chosen", { ...model.get("chosen"), [name]: questions[name][n] });
      model.save_changes();
      show();
    }));
    return { box, buttons };
  });
  const show = () => {
    const chosen = model.get("chosen"), held = rules.filter((rule) => holds(rule, chosen, names)), [end] = held.filter((rule) => rule.use);
    boxes.forEach(({ box, buttons }, n) => {
      put(box, "hidden", !rules.some((rule) => names[n] in rule.if && holds(rule, chosen, names.slice(0, n))));
      buttons.forEach((button, i) => mark(button, { "aria-pressed": String(chosen[names[n]] === questions[names[n]][i]) }));
    });
    const line = (rule) => element("li", null, { textContent: rule.say });
    const list = element("ul", null);
    list.append(...held.filter((rule) => !rule.use).map(line));
    card.replaceChildren(element("strong", null, { textContent: end.use }), element("p", null, { textContent: end.say }), list);
  };
  model.on("change:chosen", show);
  show();
  return () => model.off("change:chosen", show);
}

export { still };
export default { render };
