// CircuitsVis, when it is asked for: its script is inflated and run, and draws the heads and the prompt looked at.
(function () {
  var folded = document.getElementById("circuitsvis-attention-figure");
  var code = document.getElementById("circuitsvis-code");
  if (!folded || !code || typeof DecompressionStream === "undefined") return;
  var MOST = 24; // it draws one canvas per head
  var key = "circuitsvis-attention";
  function draw() {
    if (!window.CircuitsVis || !weights) return;
    var words = wordsOf(looked.prompt);
    var heads = [looked.head].concat(attended.patterns.heads.filter(function (head) { return head !== looked.head; })).slice(0, MOST);
    var attention = heads.map(function (head) {
      return words.map(function (unused, i) {
        return words.map(function (unused, j) { return j > i ? 0 : weightOf(looked.prompt, head, i, j); });
      });
    });
    var old = document.getElementById(key);
    var place = make("div", { id: key, class: "drawn", lang: data.prompts_lang });
    old.replaceWith(place);
    window.CircuitsVis.render(key, window.CircuitsVis.AttentionHeads, {
      tokens: words, attention: attention, attentionHeadNames: heads, minValue: 0, maxValue: 1,
      positiveColor: "#1b5f98", maskUpperTri: true
    });
    new MutationObserver(function () {
      place.querySelectorAll("canvas:not([aria-label])").forEach(function (canvas, i) {
        canvas.setAttribute("role", "img");
        canvas.setAttribute("aria-label", say("pattern of", { head: heads[i] || looked.head }));
      });
    }).observe(place, { childList: true, subtree: true });
  }
  folded.addEventListener("toggle", function () {
    if (!folded.open || window.CircuitsVis) return;
    inflate(code.textContent).then(function (buffer) {
      var script = make("script", {});
      script.textContent = new TextDecoder().decode(buffer);
      document.body.append(script);
      draw();
      whenLooked.push(function () { if (folded.open) draw(); });
    });
  });
})();
