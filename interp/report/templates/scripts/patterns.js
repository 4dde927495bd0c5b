// Small multiples of every head on the chosen prompt, and the chosen head large.
var inDark = window.matchMedia("screen and (prefers-color-scheme: dark)");

function paint(canvas, head, scheme) {
  var count = wordsOf(looked.prompt).length;
  var colours = data.ramp[scheme].map(function (text) {
    return [1, 3, 5].map(function (at) { return parseInt(text.slice(at, at + 2), 16); });
  });
  canvas.width = canvas.height = count;
  var context = canvas.getContext("2d");
  var image = context.createImageData(count, count);
  for (var i = 0; i < count; i += 1) {
    for (var j = 0; j <= i; j += 1) {
      var colour = colours[Math.floor(weightOf(looked.prompt, head, i, j) * (colours.length - 1) + 0.5)];
      image.data.set([colour[0], colour[1], colour[2], 255], 4 * (i * count + j));
    }
  }
  context.putImageData(image, 0, 0);
}
function strongest(head) {
  var words = wordsOf(looked.prompt);
  var best = [0, 0, 0];
  for (var i = 1; i < words.length; i += 1) {
    for (var j = 1; j <= i; j += 1) { // what all words look at anyway, the start, is left out
      var weight = weightOf(looked.prompt, head, i, j);
      if (weight > best[0]) best = [weight, i, j];
    }
  }
  return say("strongest", { head: head, dest: words[best[1]], src: words[best[2]], weight: number(best[0], 2) });
}

function patternGrid() {
  var patterns = attended.patterns;
  var whole = patterns.heads.length === patterns.n_heads;
  var perLayer = patterns.heads.filter(function (head) { return /^L0H/.test(head); }).length;
  var grid = make("div", { class: whole ? "heads by-layer" : "heads", role: "group", "aria-label": say("every head") });
  if (whole) grid.style.gridTemplateColumns = "auto repeat(" + perLayer + ", minmax(44px, 96px))";
  var squares = {};
  patterns.heads.forEach(function (head) {
    var layer = /\d+/.exec(head)[0];
    if (whole && /H0$/.test(head)) grid.append(make("span", { class: "row-name", "data-layer": layer }, say("layer", { layer: layer })));
    var canvas = make("canvas", { "aria-hidden": "true" });
    var button = make("button", { type: "button", class: "square", "data-head": head, "data-keep": "", tabindex: "-1" }, [canvas, make("span", {}, head)]);
    squares[head] = { canvas: canvas, button: button };
    grid.append(button);
  });
  function draw(scheme) {
    patterns.heads.forEach(function (head) { paint(squares[head].canvas, head, scheme || (inDark.matches ? "dark" : "light")); });
  }
  var drawn = -1;
  whenLooked.push(function () {
    if (drawn !== looked.prompt) {
      draw();
      patterns.heads.forEach(function (head) { squares[head].button.setAttribute("aria-label", strongest(head)); });
    }
    drawn = looked.prompt;
    patterns.heads.forEach(function (head) {
      squares[head].button.setAttribute("aria-pressed", String(head === looked.head));
      squares[head].button.tabIndex = head === looked.head ? 0 : -1;
    });
  });
  inDark.addEventListener("change", function () { draw(); });
  window.addEventListener("beforeprint", function () { draw("light"); });
  window.addEventListener("afterprint", function () { draw(); });
  return grid;
}

// The chosen head: a cell per pair of words up to LARGEST words, else a picture; and the row of the reading word.
var LARGEST = 64;
function large() {
  var words = wordsOf(looked.prompt);
  var title = say("pattern of", { head: looked.head });
  if (words.length > LARGEST) {
    var here = say("reads", { head: looked.head, dest: words[looked.dest], src: words[looked.src], i: looked.dest, j: looked.src, weight: number(weightOf(looked.prompt, looked.head, looked.dest, looked.src), 2) });
    var canvas = make("canvas", { class: "large", role: "img", tabindex: "0", "aria-label": title + ". " + here });
    paint(canvas, looked.head, inDark.matches ? "dark" : "light");
    return canvas;
  }
  var side = 15;
  var longest = words.reduce(function (most, word) { return Math.max(most, word.length); }, 1) * 6.7 + 8;
  var size = longest + side * words.length;
  var parts = [make("title", {}, title)];
  words.forEach(function (word, i) {
    var along = longest + (i + 0.5) * side;
    parts.push(make("text", { x: longest - 5, y: along + 4, "text-anchor": "end", class: "tick", "data-position": i, lang: data.prompts_lang }, word));
    parts.push(make("text", { transform: "translate(" + (along + 4) + " " + (longest - 5) + ") rotate(-90)", class: "tick", "data-position": i, lang: data.prompts_lang }, word));
    for (var j = 0; j <= i; j += 1) {
      var weight = weightOf(looked.prompt, looked.head, i, j);
      var tipText = say("reads", { head: looked.head, dest: word, src: words[j], i: i, j: j, weight: number(weight, 2) });
      var cell = make("rect", {
        x: longest + j * side + 0.5, y: longest + i * side + 0.5, width: side - 1, height: side - 1,
        class: "pair s" + Math.floor(weight * (data.ramp.light.length - 1) + 0.5), "data-pair": i + " " + j
      }, make("title", {}, tipText));
      if (i === looked.dest && j === looked.src) cell.classList.add("here");
      parts.push(cell);
    }
  });
  return make("svg", { class: "plot", role: "group", "aria-label": title, viewBox: "0 0 " + size + " " + size, width: size, height: size }, parts);
}
// The tokens up to the reading word, each with its share.
function strip(words, shares, dest, src) {
  var items = shares.map(function (share, i) {
    var step = Math.floor(share * (data.ramp.light.length - 1) + 0.5);
    return make("li", { class: "token" + (i === dest ? " to" : "") + (i === src ? " from" : ""), "data-position": i }, [
      make("span", { class: "chip s" + step, lang: data.prompts_lang }, words[i]), make("span", { class: "weight" }, number(share, 2))
    ]);
  });
  return make("ol", { class: "strip" }, items);
}

function livePatterns(figure) {
  var life = figure.querySelector(".life");
  var picture = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": say("chosen head") });
  var heading = make("h4", { "aria-live": "polite" });
  var row = make("div", { class: "row" });
  var grid = patternGrid();
  var note = attended.patterns.heads.length < attended.patterns.n_heads || attended.patterns.prompts.length < attended.patterns.n_prompts
    ? [make("p", { class: "panel-subtitle" }, say("bounded", {
        heads: attended.patterns.heads.length, all: attended.patterns.n_heads, prompts: attended.patterns.prompts.length, stored: attended.patterns.n_prompts }))]
    : [];
  life.append.apply(life, [promptChooser(), make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": say("every head") }, grid)].concat(note, [heading, picture, row]));
  whenLooked.push(function () {
    var words = wordsOf(looked.prompt);
    heading.textContent = say("pattern of", { head: looked.head });
    var drawing = large();
    picture.replaceChildren(drawing);
    if (drawing.tagName === "svg") makeReachable(drawing);
    var shares = words.slice(0, looked.dest + 1).map(function (word, i) { return weightOf(looked.prompt, looked.head, looked.dest, i); });
    row.replaceChildren(make("p", { class: "panel-subtitle" }, say("row", { dest: words[looked.dest], head: looked.head })), strip(words, shares, looked.dest, looked.src));
    marksChanged();
  });
  function lookAt(pair) {
    look({ dest: Number(pair.split(" ")[0]), src: Number(pair.split(" ")[1]) });
  }
  picture.addEventListener("click", function (event) {
    var pair = event.target.dataset && event.target.dataset.pair;
    if (pair) lookAt(pair);
  });
  picture.addEventListener("keydown", function (event) {
    var pair = event.target.dataset && event.target.dataset.pair;
    var canvas = event.target.matches("canvas.large");
    if (pair && (event.key === "Enter" || event.key === " ")) lookAt(pair);
    else if (canvas && STEPS[event.key]) {
      var step = STEPS[event.key];
      var dest = Math.max(0, looked.dest + step[1]);
      lookAt(dest + " " + Math.max(0, looked.src + step[0]));
    } else return;
    event.preventDefault();
    picture.querySelector(".here, canvas.large").focus();
  });
  whenChosen.push(function (about) {
    if (about && about.head && about.head !== looked.head && attended.patterns.heads.indexOf(about.head) >= 0) look({ head: about.head });
  });
  liveInsteadOf(figure);
}
