// What every part below uses: the page's data, its sentences, elements, and numbers as the page writes them.
document.documentElement.classList.add("js");
var data = JSON.parse(document.getElementById("report-data").textContent);

// A sentence of the page with its {names} filled in.
function say(key, values) {
  return data.words[key].replace(/\{(\w+)\}/g, function (whole, name) {
    return values && name in values ? String(values[name]) : whole;
  });
}
// A number as Python writes it on this page: fixed decimals, a true minus sign.
function number(value, digits) {
  if (value === null || !isFinite(value)) return "\u2013";
  var text = value.toFixed(digits);
  if (Number(text) === 0) text = text.replace("-", "");
  return text.replace("-", "\u2212");
}
// An element; attributes and children are text, never markup.
function make(name, attributes, children) {
  var drawn = /^(svg|g|rect|text|title|line|path|desc)$/.test(name);
  var node = drawn ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  Object.keys(attributes || {}).forEach(function (key) {
    if (attributes[key] !== null && attributes[key] !== undefined) node.setAttribute(key, attributes[key]);
  });
  [].concat(children === undefined || children === null ? [] : children).forEach(function (child) {
    node.append(child);
  });
  return node;
}
// The bytes of a text that was compressed (zlib) and written in base64; rejected where a browser cannot.
function inflate(text) {
  if (typeof DecompressionStream === "undefined") return Promise.reject(new Error("no DecompressionStream"));
  var bytes = Uint8Array.from(atob(text), function (character) { return character.charCodeAt(0); });
  var stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}
