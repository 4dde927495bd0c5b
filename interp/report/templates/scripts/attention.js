// The attention weights and vectors of the data block, and what of them is being looked at.
var attended = data.attention;
var looked = { prompt: 0, head: "", dest: 0, src: 0 };
var whenLooked = []; // called after any of these has changed
var weights = null; // a byte per head, pair of words and prompt

function loadWeights() {
  if (!attended || !attended.patterns) return Promise.reject(new Error("no patterns"));
  return Promise.all([inflate(attended.patterns.weights), inflate(attended.patterns.prompts)]).then(function (buffers) {
    attended.patterns.prompts = JSON.parse(new TextDecoder().decode(buffers[1]));
    weights = new Uint8Array(buffers[0]); // hundredths
  });
}
function weightOf(prompt, head, dest, src) {
  var patterns = attended.patterns;
  var pairs = (patterns.length * (patterns.length + 1)) / 2;
  var at = patterns.heads.indexOf(head) * pairs + (dest * (dest + 1)) / 2 + src;
  return weights[at * patterns.prompts.length + prompt] / 100;
}
function wordsOf(prompt) {
  return attended.patterns.prompts[prompt].tokens;
}
// The position of a role in a prompt: its last token, which alone has seen the whole word.
function placeOf(role, prompt) {
  var span = attended.patterns.prompts[prompt].roles[role];
  return span ? span[1] : null;
}
// Look at something else; what is left out stays, and is kept within the prompt and behind the reading word.
function look(change) {
  Object.keys(change).forEach(function (key) { looked[key] = change[key]; });
  looked.dest = Math.min(looked.dest, wordsOf(looked.prompt).length - 1);
  looked.src = Math.min(looked.src, looked.dest);
  whenLooked.forEach(function (call) { call(); });
}
function startLooking() {
  var lesson = attended.lesson;
  looked.head = attended.patterns.heads.indexOf(lesson.head) >= 0 ? lesson.head : attended.patterns.heads[0];
  looked.dest = lesson.dest === undefined ? wordsOf(0).length - 1 : lesson.dest;
  looked.src = lesson.src === undefined ? 0 : lesson.src;
}
// A labelled select; what it offers is [value, text], and whether it cannot be chosen.
function chooser(label, changed) {
  var select = make("select", {});
  select.addEventListener("change", function () { changed(select.value); });
  return { box: make("label", { class: "chooser" }, [make("span", {}, label), select]), select: select };
}
function offer(select, pairs, value) {
  select.replaceChildren.apply(select, pairs.map(function (pair) { return make("option", { value: pair[0], disabled: pair[2] ? "" : null }, pair[1]); }));
  select.value = String(value);
}
// ``missing`` says of a prompt whether it lacks what the part needs.
function promptChooser(missing) {
  var made = chooser(say("prompt"), function (value) { look({ prompt: Number(value) }); });
  offer(made.select, attended.patterns.prompts.map(function (prompt, i) {
    var text = (i + 1) + ": " + prompt.text;
    return missing && missing(i) ? [i, say("without vectors", { what: text }), true] : [i, text];
  }), looked.prompt);
  if (data.prompts_lang) made.select.lang = data.prompts_lang;
  whenLooked.push(function () { made.select.value = String(looked.prompt); });
  return made.box;
}
// What a part that lives replaces is folded away, and opened again to be printed.
function liveInsteadOf(figure) {
  figure.classList.add("lives");
  var old = figure.dataset.instead.split(" ").map(function (id) { return document.getElementById(id); }).filter(Boolean);
  if (!old.length) return;
  var folded = make("details", { class: "still" }, make("summary", {}, say("as printed")));
  figure.after(folded);
  old.forEach(function (node) { folded.append(node); });
  window.addEventListener("beforeprint", function () { folded.open = true; });
}
