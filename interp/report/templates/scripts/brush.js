// Linked views: choosing what any mark is about (a head, a layer, a position, a role) lights it everywhere.
// A mark is lit if it is about the same, about a part of it, or about more than it, and says nothing else.
var FACETS = ["layer", "head", "position", "role"];
var MARKS = FACETS.map(function (name) { return "[data-" + name + "]"; }).join(",");
var index = null; // "facet=value" -> marks, made when first needed
var lit = { lit: [], chosen: [] }; // class -> the marks that have it
var chosen = null; // what is chosen: facet -> value
var whenChosen = []; // called with what is chosen, or null

function aboutOf(node) {
  var found = {};
  for (var i = 0; i < FACETS.length; i += 1) {
    var value = node.getAttribute("data-" + FACETS[i]);
    if (value !== null) found[FACETS[i]] = value;
  }
  if (found.head) found.layer = found.head.slice(1, found.head.indexOf("H"));
  return found;
}
// The rows of a table are about what the columns that have a facet say.
var rowsMarked = false;
whenUnpacked.push(function (table) {
  if (rowsMarked) markRows(table);
  marksChanged();
});
function markRows(within) {
  within.querySelectorAll("th[data-facet]").forEach(function (heading) {
    var facet = heading.dataset.facet;
    var column = heading.cellIndex;
    Array.prototype.forEach.call(heading.closest("table").tBodies[0].rows, function (row) {
      var text = row.cells[column].dataset.name || row.cells[column].textContent;
      if (facet !== "head") row.dataset[facet] = text;
      else if (/^L\d+H\d+$/.test(text)) row.dataset.head = text;
      else if (/^\d+$/.test(text) && /^\d+$/.test(row.dataset.layer || "")) row.dataset.head = "L" + row.dataset.layer + "H" + text;
    });
  });
}
function indexed() {
  if (index) return index;
  if (!rowsMarked) markRows(document);
  rowsMarked = true;
  index = new Map();
  document.querySelectorAll(MARKS).forEach(function (node) {
    var about = aboutOf(node);
    var entry = { node: node, about: about, size: Object.keys(about).length };
    Object.keys(about).forEach(function (name) {
      var key = name + "=" + about[name];
      if (!index.has(key)) index.set(key, []);
      index.get(key).push(entry);
    });
  });
  return index;
}
if ("requestIdleCallback" in window) requestIdleCallback(indexed); // so that the first choice need not wait for it
function marksOf(about) {
  var names = Object.keys(about);
  var found = new Set();
  names.forEach(function (name) {
    (indexed().get(name + "=" + about[name]) || []).forEach(function (entry) {
      if (about.head && entry.about.layer && !entry.about.head) return; // of the layer, not of the head
      var common = 0;
      names.forEach(function (each) { if (entry.about[each] === about[each]) common += 1; });
      if (common === names.length || common === entry.size) found.add(entry.node);
    });
  });
  return found;
}
function light(about, kind) {
  lit[kind].forEach(function (node) { node.classList.remove(kind); });
  lit[kind] = about ? Array.from(marksOf(about)) : [];
  lit[kind].forEach(function (node) { node.classList.add(kind); });
}
function marksChanged() { // after a part of the page has drawn itself anew
  index = null;
  light(chosen, "chosen");
}

// The line that names what is chosen, and says every method's number for a head.
var line = make("p", { role: "status", "aria-live": "polite" });
var close = make("button", { type: "button", "aria-label": say("clear") }, "\u00d7");
var bar = make("div", { id: "chosen" }, [line, close]);
bar.hidden = true;
document.body.append(bar);
close.addEventListener("click", function () { choose(null); });

// A number's name, itself, its interval and its units.
function told(name, value, units) {
  var text = name + " " + number(value[0], 2);
  if (value[1] !== null) text += " [" + number(value[1], 2) + ", " + number(value[2], 2) + "]";
  return units ? text + " " + units : text;
}
function measured(head) {
  var row = data.heads[head];
  if (!row) return "";
  var own = (row.acts || []).map(function (one) { return told(one[0], one[1], ""); }); // as the answer says it: first
  var parts = own.concat(data.measures.map(function (measure, i) {
    return row.values[i] === null ? null : told(measure.name, row.values[i], measure.units);
  }));
  parts.push(row.looks);
  return [row.job].concat(parts).filter(Boolean).join(" \u00b7 ");
}
function named(about) {
  if (about.head) return [about.head, measured(about.head), roleOf(about), placed(about)].filter(Boolean).join(" \u00b7 ");
  var layer = about.layer === undefined ? "" : say("layer", { layer: about.layer });
  return [layer, roleOf(about), placed(about)].filter(Boolean).join(" \u00b7 ");
}
function roleOf(about) {
  return about.role && (data.roles[about.role] || about.role);
}
function placed(about) {
  return about.position === undefined ? "" : say("position", { position: about.position });
}
function choose(about) {
  chosen = about;
  light(null, "lit");
  light(about, "chosen");
  bar.hidden = !about;
  line.textContent = about ? named(about) : "";
  whenChosen.forEach(function (call) { call(about); });
}
function same(a, b) {
  return Boolean(a && b) && FACETS.every(function (name) { return a[name] === b[name]; });
}
function markAt(target) {
  return target instanceof Element ? target.closest(MARKS) : null;
}

var hovered = null;
var waiting = false;
function hover(node) {
  if (node === hovered) return;
  hovered = node;
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(function () {
    waiting = false;
    light(hovered && aboutOf(hovered), "lit");
  });
}
document.addEventListener("pointerover", function (event) {
  if (event.pointerType !== "touch") hover(markAt(event.target));
});
document.addEventListener("click", function (event) {
  var node = markAt(event.target);
  if (!node || event.target.closest("a, button.copy, select, input, summary")) return;
  if (String(window.getSelection())) return; // a reader who marks text is not choosing
  var about = aboutOf(node);
  choose(same(about, chosen) && !event.target.closest("[data-keep]") ? null : about);
});
document.addEventListener("keydown", function (event) {
  if (event.key !== "Escape") return;
  hover(null);
  choose(null);
  releaseTip();
});

// Keys: each drawing, and the grid of patterns, is one stop of the tab key; the arrows move to the next mark, Enter or space choose it.
// The cells of a large pattern are stops of their own: each is a pair of words.
var STOPS = MARKS + ",[data-pair]";
function stopsOf(svg) {
  if (svg.querySelector("[data-pair]")) return Array.from(svg.querySelectorAll("[data-pair]"));
  return Array.from(svg.querySelectorAll(svg.matches("svg") ? MARKS : "button"));
}
function stopHere(svg, node) {
  var old = svg.querySelector('[tabindex="0"]');
  if (old) old.setAttribute("tabindex", "-1");
  node.setAttribute("tabindex", "0");
  if (node instanceof SVGElement) node.setAttribute("role", "button");
}
function makeReachable(svg) {
  var first = svg.querySelector(".pair.here") || svg.querySelector(".pair") || svg.querySelector(FACETS.map(function (name) { return "[data-" + name + "]:not(text)"; }).join(","))
    || svg.querySelector(MARKS);
  if (!first) return;
  svg.setAttribute("role", "group"); // an image would hide its marks from screen readers
  stopHere(svg, first);
}
document.querySelectorAll("main svg.plot").forEach(makeReachable);

var STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
function centre(node) {
  var box = node.getBoundingClientRect();
  return [box.left + box.width / 2, box.top + box.height / 2];
}
function next(svg, node, step) {
  var from = centre(node);
  var best = null;
  var least = Infinity;
  stopsOf(svg).forEach(function (other) {
    var to = centre(other);
    var x = to[0] - from[0];
    var y = to[1] - from[1];
    var ahead = x * step[0] + y * step[1];
    var aside = Math.abs(x * step[1]) + Math.abs(y * step[0]);
    if (other === node || ahead < 2) return;
    if (ahead + 4 * aside < least) {
      least = ahead + 4 * aside;
      best = other;
    }
  });
  return best;
}
document.addEventListener("keydown", function (event) {
  var svg = event.target instanceof Element ? event.target.closest("svg.plot, .heads") : null;
  if (!svg || !event.target.matches(STOPS)) return;
  if (event.target.dataset.pair === undefined && svg.matches("svg") && (event.key === "Enter" || event.key === " ")) { // a button does so by itself
    event.preventDefault();
    var about = aboutOf(event.target);
    choose(same(about, chosen) ? null : about);
  }
  if (!STEPS[event.key]) return;
  event.preventDefault();
  var node = next(svg, event.target, STEPS[event.key]);
  if (!node) return;
  stopHere(svg, node);
  node.focus();
});
document.addEventListener("focusin", function (event) {
  var node = event.target;
  if (!(node instanceof SVGElement) || !node.matches(STOPS) || !node.matches(":focus-visible")) return;
  hover(node);
  var at = centre(node);
  showTip(node, at[0], at[1]);
});
