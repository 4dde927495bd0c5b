// A drawing that is wider than its place scrolls there: then the keyboard reaches it, and it has the drawing's name.
if ("ResizeObserver" in window) {
  var scrolling = new ResizeObserver(function (entries) {
    entries.forEach(function (entry) {
      var box = entry.target;
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    });
  });
  document.querySelectorAll(".scroll:not([tabindex])").forEach(function (box) {
    var name = box.querySelector("svg > title") || box.closest("figure, section").querySelector("h3, h2");
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", name.textContent);
    scrolling.observe(box);
  });
}
