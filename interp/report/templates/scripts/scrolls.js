// The keyboard stops at what can be scrolled, and only while it can.
if ("ResizeObserver" in window) {
  var scrolling = new ResizeObserver(function (entries) {
    entries.forEach(function (entry) {
      var box = entry.target;
      if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    });
  });
  document.querySelectorAll(".scroll").forEach(function (box) { scrolling.observe(box); });
}
