// The contents follow the reader.
var links = {};
document.querySelectorAll("nav a").forEach(function (link) { links[link.hash.slice(1)] = link; });
if ("IntersectionObserver" in window) {
  var watcher = new IntersectionObserver(function (entries) {
    entries.forEach(function (entry) {
      if (!entry.isIntersecting || !links[entry.target.id]) return;
      document.querySelectorAll("nav a.here").forEach(function (link) { link.classList.remove("here"); });
      links[entry.target.id].classList.add("here");
    });
  }, { rootMargin: "-15% 0px -75% 0px" });
  document.querySelectorAll("main > section, main > header").forEach(function (part) { watcher.observe(part); });
}
