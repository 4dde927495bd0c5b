// The keyboard stops at what can be scrolled, and only while it can: its size changes, or what is in it.
if ("ResizeObserver" in window) {
  var reach = function (box) {
    var can = box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight;
    if (can && box.tabIndex !== 0) box.tabIndex = 0;
    if (!can && box.hasAttribute("tabindex")) box.removeAttribute("tabindex");
  };
  var around = function (node) { return node.closest(".scroll"); };
  var scrolling = new ResizeObserver(function (entries) {
    new Set(entries.map(function (entry) { return around(entry.target); })).forEach(function (box) { if (box) reach(box); });
  });
  document.querySelectorAll(".scroll").forEach(function (box) {
    scrolling.observe(box);
    Array.from(box.children).forEach(function (child) { scrolling.observe(child); });
    new MutationObserver(function () { reach(box); }).observe(box, { childList: true, subtree: true });
  });
}
