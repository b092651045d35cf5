// What an anywidget's model is to a page, without a kernel behind it.
export function still(state) {
  return { address: state.address, get: (name) => state[name], set: (name, value) => { state[name] = value; }, on() {}, off() {}, save_changes() {} };
}
