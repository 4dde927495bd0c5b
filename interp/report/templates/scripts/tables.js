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
    function () { button.textContent = say("copied"); },
    function () { button.textContent = say("copy by hand"); }
  ).then(function () {
    setTimeout(function () { button.textContent = label; }, 1600);
  });
});
