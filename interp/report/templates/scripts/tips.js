// Tooltips: every mark of a figure carries its own <title>; it is shown at once, near the pointer or the mark.
// A tap keeps it until the next one. The browser would show its own tooltip too: so the title is away meanwhile, and the
// mark keeps its name by a label.
var tip = document.getElementById("tip");
var held = null;
function releaseTip() {
  if (held) {
    held.node.insertBefore(held.title, held.node.firstChild);
    if (held.named) held.node.removeAttribute("aria-label");
  }
  held = null;
  tip.hidden = true;
}
function placeTip(x, y) {
  var box = tip.getBoundingClientRect();
  var top = y + 18;
  if (top + box.height > window.innerHeight - 8) top = y - box.height - 12;
  tip.style.left = Math.max(8, Math.min(x + 14, window.innerWidth - box.width - 8)) + "px";
  tip.style.top = Math.max(8, top) + "px";
}
function showTip(node, x, y) {
  if (held && held.node === node) return;
  releaseTip();
  if (!(node instanceof SVGElement) || node.tagName === "svg") return;
  var title = node.firstElementChild;
  if (!title || title.tagName !== "title") return;
  tip.textContent = title.textContent;
  held = { node: node, title: title, named: !node.hasAttribute("aria-label") };
  if (held.named) node.setAttribute("aria-label", title.textContent);
  node.removeChild(title);
  tip.hidden = false;
  placeTip(x, y);
}
document.addEventListener("pointerover", function (event) {
  if (event.pointerType !== "touch") showTip(event.target, event.clientX, event.clientY);
});
document.addEventListener("pointermove", function (event) {
  if (held && event.pointerType !== "touch") placeTip(event.clientX, event.clientY);
});
document.addEventListener("pointerleave", function (event) {
  if (event.pointerType !== "touch") releaseTip();
});
document.addEventListener("click", function (event) {
  showTip(event.target, event.clientX, event.clientY);
  if (held) held.tapped = event.pointerType === "touch";
});
document.addEventListener("scroll", function () {
  if (!held || !held.tapped) return releaseTip();
  var box = held.node.getBoundingClientRect(); // what was tapped may move when the page above it is drawn anew
  if (box.bottom < 0 || box.top > window.innerHeight) return releaseTip();
  placeTip(box.left + box.width / 2, box.top + box.height / 2);
}, true);
