"use strict";
(function () {
  document.documentElement.classList.add("js");

  // Tooltips: every mark of a figure carries its own <title>; it is shown at once, near the pointer.
  var tip = document.getElementById("tip");
  var held = null;
  function release() {
    if (held) {
      held.node.insertBefore(held.title, held.node.firstChild);
      held = null;
    }
    tip.hidden = true;
  }
  function place(event) {
    var box = tip.getBoundingClientRect();
    var x = Math.min(event.clientX + 14, window.innerWidth - box.width - 8);
    var y = event.clientY + 18;
    if (y + box.height > window.innerHeight - 8) y = event.clientY - box.height - 12;
    tip.style.left = Math.max(8, x) + "px";
    tip.style.top = Math.max(8, y) + "px";
  }
  document.addEventListener("pointerover", function (event) {
    var node = event.target;
    if (held && held.node === node) return;
    release();
    if (!(node instanceof SVGElement) || node.tagName === "svg") return;
    var title = node.firstElementChild;
    if (!title || title.tagName !== "title") return;
    tip.textContent = title.textContent;
    held = { node: node, title: title };
    node.removeChild(title);
    tip.hidden = false;
    place(event);
  });
  document.addEventListener("pointermove", function (event) {
    if (held) place(event);
  });
  document.addEventListener("pointerleave", release);
  document.addEventListener("scroll", release, true);

  // Copying: a table as CSV (RFC 4180), a code block as it stands.
  function csv(table) {
    return Array.prototype.map
      .call(table.rows, function (row) {
        return Array.prototype.map
          .call(row.cells, function (cell) {
            var text = cell.textContent.replace(/^\u2212(?=[\d.\u221e])/, "-");
            if (text === "\u2013") text = "";
            return /[",\r\n]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text;
          })
          .join(",");
      })
      .join("\r\n");
  }
  function copy(text) {
    if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
    var area = document.createElement("textarea");
    area.value = text;
    area.style.position = "fixed";
    area.style.opacity = "0";
    document.body.appendChild(area);
    area.select();
    var done = document.execCommand("copy");
    document.body.removeChild(area);
    return done ? Promise.resolve() : Promise.reject(new Error("copy refused"));
  }
  document.addEventListener("click", function (event) {
    var button = event.target.closest && event.target.closest("button.copy");
    if (!button) return;
    var block = button.closest(".table-block, .code-block");
    var source = block.querySelector("table, pre");
    var text = button.dataset.copy === "table" ? csv(source) : source.textContent;
    var label = button.textContent;
    copy(text).then(
      function () { button.textContent = "Copied"; },
      function () { button.textContent = "Select and copy by hand"; }
    ).then(function () {
      setTimeout(function () { button.textContent = label; }, 1600);
    });
  });

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

  // CircuitsVis draws into the divisions that name one of its components.
  var data = JSON.parse(document.getElementById("report-data").textContent);
  if (window.CircuitsVis) {
    Object.keys(data).forEach(function (key) {
      var target = document.getElementById(key);
      target.textContent = "";
      window.CircuitsVis.render(key, window.CircuitsVis[data[key].component], data[key].props);
    });
  }
})();
