// The lesson for any two words of a stored prompt on a stored head: from q, k and v to what the word receives.
var vectors = null; // entry "prompt head" -> the numbers of one head on one prompt

function loadVectors() {
  var stored = attended && attended.vectors;
  if (!stored) return Promise.reject(new Error("no vectors"));
  return inflate(stored.numbers).then(function (buffer) {
    var bytes = new Uint8Array(buffer);
    var count = bytes.length / 4;
    var plain = new Uint8Array(bytes.length); // the bytes of each number lie apart: see packed.floats
    for (var i = 0; i < count; i += 1) for (var b = 0; b < 4; b += 1) plain[4 * i + b] = bytes[b * count + i];
    var numbers = new Float32Array(plain.buffer);
    var each = count / stored.entries.length;
    vectors = {};
    stored.entries.forEach(function (entry, i) {
      vectors[entry.join(" ")] = slices(numbers.subarray(i * each, (i + 1) * each), stored);
    });
  });
}
function slices(numbers, stored) {
  var size = stored.length * stored.d_head;
  var found = {};
  ["q", "k", "v"].forEach(function (name, i) { found[name] = numbers.subarray(i * size, (i + 1) * size); });
  stored.lengths.forEach(function (name, i) {
    found[name] = numbers.subarray(3 * size + i * stored.length, 3 * size + (i + 1) * stored.length);
  });
  return found;
}
function rowOf(numbers, position) {
  var size = attended.vectors.d_head;
  return Array.from(numbers.subarray(position * size, (position + 1) * size));
}
function sum(values) {
  return values.reduce(function (total, value) { return total + value; }, 0);
}
function softmax(scores) {
  var most = Math.max.apply(null, scores);
  var parts = scores.map(function (score) { return Math.exp(score - most); });
  var total = sum(parts);
  return parts.map(function (part) { return part / total; });
}
// Bits: 0 where one word has all of the weight.
function entropy(shares) {
  return sum(shares.map(function (share) { return share > 0 ? -share * Math.log2(share) : 0; }));
}
// Every number of the lesson; the scores are divided by ``root``.
function reckon(entry, dest, src, root) {
  var q = rowOf(entry.q, dest);
  var k = rowOf(entry.k, src);
  var products = q.map(function (value, i) { return value * k[i]; });
  var dots = [];
  for (var s = 0; s <= dest; s += 1) {
    var key = rowOf(entry.k, s);
    dots.push(sum(q.map(function (value, i) { return value * key[i]; })));
  }
  var shares = softmax(dots.map(function (dot) { return dot / root; }));
  var mixed = q.map(function (unused, i) {
    return sum(shares.map(function (share, s) { return share * entry.v[s * q.length + i]; }));
  });
  return { q: q, k: k, products: products, dots: dots, shares: shares, entropy: entropy(shares), z: mixed };
}

// Numbers by dimension as a strip of cells, negative to positive; ``most`` is the largest size of any of them.
function cells(label, values, most) {
  var width = Math.max(6, Math.min(20, 640 / values.length));
  var parts = values.map(function (value, i) {
    var step = Math.floor((Math.max(-1, Math.min(1, value / most)) + 1) / 2 * 40 + 0.5);
    return make("rect", { x: i * width, y: 1, width: width - 0.5, height: 18, class: "d" + step },
      make("title", {}, say("dimension", { label: label, dimension: i, value: number(value, 4) })));
  });
  var size = width * values.length;
  var drawn = make("svg", { class: "plot", role: "img", "aria-label": label, viewBox: "0 0 " + size + " 20", width: size, height: 20, preserveAspectRatio: "none" }, parts);
  return make("div", { class: "cells" }, [make("span", { "aria-hidden": "true" }, label), drawn]); // where there is no room the strip shrinks, its name does not
}
function largest(rows) {
  return rows.reduce(function (most, row) {
    return row.reduce(function (high, value) { return Math.max(high, Math.abs(value)); }, most);
  }, 1e-12);
}
// A number of the lesson; its exact value is kept beside what is shown of it.
function exactly(name, value, digits) {
  return make("span", { class: "exact", "data-name": name, "data-value": String(value) }, number(value, digits));
}
function step(name, parts) {
  return make("li", {}, [make("p", { class: "step-name" }, name)].concat(parts));
}
function formula(parts) {
  return make("p", { class: "formula" }, parts);
}
function meaning(text) {
  return make("p", { class: "step-meaning" }, text);
}

function liveLesson(figure) {
  var stored = attended.vectors;
  var trueRoot = Math.sqrt(stored.d_head);
  var root = trueRoot;
  var life = figure.querySelector(".life");
  var head = chooser(say("head"), function (value) { look({ head: value }); });
  var dest = chooser(say("reading word"), function (value) { look({ dest: Number(value) }); });
  var src = chooser(say("word read"), function (value) { look({ src: Number(value) }); });
  if (data.prompts_lang) dest.select.lang = src.select.lang = data.prompts_lang;
  var jumps = make("div", { class: "jumps" });
  var mark = make("span", { class: "true-root", "aria-hidden": "true" }, "\u2191 \u221ad_k");
  mark.style.left = "calc(8px + (100% - 16px) * " + (trueRoot - 1) / (stored.d_head - 1) + ")"; // a thumb is 16 pixels wide
  var slider = make("input", { type: "range", min: 1, max: stored.d_head, step: "any", value: root });
  var back = make("button", { type: "button" }, say("true divisor", { root: number(trueRoot, 3) }));
  var steps = make("ol", {});
  var softened = make("div", { class: "softened", role: "status", "aria-live": "polite" });
  var control = make("div", { class: "slide" }, [make("label", { class: "chooser" }, [make("span", {}, say("divisor")), make("span", { class: "track" }, [slider, mark])]), back, softened]);
  life.append(make("div", { class: "choosers" }, [promptChooser(function (prompt) { return !headsOn(prompt).length; }), head.box, dest.box, src.box]), jumps, make("div", { class: "steps" }, steps));

  function entry() {
    return vectors[looked.prompt + " " + looked.head];
  }
  function headsOn(prompt) {
    return stored.entries.filter(function (one) { return one[0] === prompt; }).map(function (one) { return one[1]; });
  }
  function option(words) {
    return function (word, i) { return [i, i + ": " + word]; };
  }
  function jump(text, change) {
    var button = make("button", { type: "button" }, text);
    button.addEventListener("click", function () { look(change); });
    jumps.append(button);
  }
  function drawJumps(words) {
    jumps.replaceChildren();
    var lesson = attended.lesson;
    if (lesson.head) jump(say("pair of lesson", { head: lesson.head, dest: wordsOf(0)[lesson.dest], src: wordsOf(0)[lesson.src] }), { prompt: 0, head: lesson.head, dest: lesson.dest, src: lesson.src });
    var target = placeOf(lesson.target, looked.prompt);
    var source = placeOf(lesson.source, looked.prompt);
    if (target === null || source === null || source >= target) return;
    var best = attended.patterns.heads.reduce(function (most, one) {
      var weight = weightOf(looked.prompt, one, target, source);
      return weight > most[0] ? [weight, one] : most;
    }, [-1, ""]);
    var known = headsOn(looked.prompt).indexOf(best[1]) >= 0 ? best[1] : looked.head;
    jump(say("pair of question", { dest: words[target], src: words[source] }), { head: known, dest: target, src: source });
    jumps.append(make("p", { class: "step-meaning", id: "question-pair" }, say(best[0] < 0.25 ? "question little" : "question much", {
      dest: words[target], src: words[source], percent: Math.round(100 * best[0]), head: best[1], heads: attended.patterns.heads.length })));
  }
  function drawSteps(words, one) {
    var right = reckon(one, looked.dest, looked.src, trueRoot);
    var shown = root === trueRoot ? right : reckon(one, looked.dest, looked.src, root);
    var a = words[looked.dest];
    var b = words[looked.src];
    var dot = right.dots[looked.src];
    var own = largest([right.q, right.k]);
    var listed = right.q.map(function (value, i) { return number(value, 3) + " \u00d7 " + number(right.k[i], 3); }).join(" + ");
    var share = right.shares[looked.src];
    var order = right.shares.map(function (unused, i) { return i; }).sort(function (i, j) { return right.shares[j] - right.shares[i]; }).slice(0, 4);
    var parts = order.map(function (i) { return rowOf(one.v, i).map(function (value) { return value * right.shares[i]; }); });
    var rest = right.z.map(function (value, i) { return value - sum(parts.map(function (part) { return part[i]; })); });
    var rows = parts.concat([rest, right.z]);
    var most = largest(rows);
    var names = order.map(function (i) { return number(right.shares[i], 2) + " \u00b7 v " + words[i]; }).concat([say("all others"), say("sum = z")]);
    steps.replaceChildren(
      step(say("step qk"), [cells("q " + a, right.q, own), cells("k " + b, right.k, own), meaning(say("step qk means", { dest: a, src: b, count: right.q.length }))]),
      step(say("step match"), [cells("q \u00d7 k", right.products, largest([right.products])), formula(["q(" + a + ") \u00b7 k(" + b + ") = ", exactly("dot", dot, 3)]),
        make("details", {}, [make("summary", {}, say("products")), make("p", { class: "formula" }, listed + " = " + number(dot, 3))])]),
      step(say("step scale"), [formula([number(dot, 3) + " \u00f7 \u221a" + right.q.length + " = " + number(dot, 3) + " \u00f7 " + number(trueRoot, 3) + " = ", exactly("score", dot / trueRoot, 3)]), meaning(say("step scale means")), control]),
      step(say("step share"), [strip(words, right.shares, looked.dest, looked.src), formula(["softmax: e^" + number(dot / trueRoot, 3) + " \u00f7 \u03a3 e^score = ", exactly("weight", share, 4)]),
        meaning(say("step share means", { dest: a, src: b, percent: Math.round(100 * share), total: number(sum(right.shares), 3) }))]),
      step(say("step mix"), rows.map(function (row, i) { return cells(names[i], row, most); }).concat([meaning(say("step mix means", { head: looked.head, dest: a }))]))
    );
    if (one.written) {
      var written = one.written[looked.dest];
      var stream = one.stream[looked.dest];
      var alone = share * one.value_written[looked.src];
      steps.append(step(say("step add"), [
        formula(["|z W_O| = ", exactly("written", written, 3), "; |x| = ", exactly("stream", stream, 3)]),
        formula([number(share, 4) + " \u00b7 |v(" + b + ") W_O| = ", exactly("alone", alone, 3)]),
        meaning(say("step add means", { head: looked.head, dest: a, src: b, percent: Math.round(100 * written / stream) }))]));
    }
    drawSoftened(words, shown);
  }
  function drawSoftened(words, shown) {
    var top = shown.shares.indexOf(Math.max.apply(null, shown.shares));
    softened.replaceChildren(
      strip(words, shown.shares, looked.dest, looked.src),
      make("p", { class: "step-meaning" }, [say(root === trueRoot ? "softened true" : "softened", { root: number(root, 3) }) + " ", exactly("entropy", shown.entropy, 3), " " + say("softened top", { word: words[top], weight: number(shown.shares[top], 4) })])
    );
    softened.dataset.top = String(shown.shares[top]);
  }
  function draw() {
    var words = wordsOf(looked.prompt);
    var here = headsOn(looked.prompt);
    offer(head.select, attended.patterns.heads.map(function (one) {
      return here.length && here.indexOf(one) < 0 ? [one, say("without vectors", { what: one }), true] : [one, one];
    }), looked.head);
    offer(dest.select, words.map(option()), looked.dest);
    offer(src.select, words.slice(0, looked.dest + 1).map(option()), looked.src);
    drawJumps(words);
    var one = entry();
    if (one) return drawSteps(words, one);
    var prompts = attended.patterns.prompts.map(function (unused, i) { return i; }).filter(function (i) { return headsOn(i).length; });
    var why = here.length
      ? say("head not stored", { head: looked.head, prompt: looked.prompt + 1, here: here.join(", ") })
      : say("prompt not stored", { prompt: looked.prompt + 1, prompts: prompts.map(function (i) { return i + 1; }).join(", ") });
    var shares = words.slice(0, looked.dest + 1).map(function (word, i) { return weightOf(looked.prompt, looked.head, looked.dest, i); });
    steps.replaceChildren(step(say("not stored"), [strip(words, shares, looked.dest, looked.src), meaning(why)]));
  }
  slider.addEventListener("input", function () {
    root = Number(slider.value);
    if (entry()) drawSoftened(wordsOf(looked.prompt), reckon(entry(), looked.dest, looked.src, root));
  });
  back.addEventListener("click", function () {
    root = trueRoot;
    slider.value = String(root);
    draw();
  });
  whenLooked.push(draw);
  liveInsteadOf(figure);
}

// Whatever can live starts to; what cannot leaves its sentence standing.
(function () {
  var lesson = document.getElementById("any-two-words");
  var patterns = document.getElementById("patterns");
  loadWeights().then(function () {
    startLooking();
    if (patterns && patterns.classList.contains("living")) livePatterns(patterns);
    return lesson ? loadVectors().then(function () { liveLesson(lesson); }) : null;
  }).catch(function () { return null; }).then(function () {
    if (weights) look({});
    document.documentElement.classList.add("alive");
  });
})();
