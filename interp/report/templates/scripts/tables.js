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
// A table as JSON: one object a row, numbers as numbers, null where there is none.
function json(table) {
  var names = Array.prototype.map.call(table.tHead.rows[0].cells, function (cell) { return cell.textContent; });
  var rows = Array.prototype.map.call(table.tBodies[0].rows, function (row) {
    var record = {};
    names.forEach(function (name, i) {
      var text = row.cells[i].textContent;
      var plain = text.replace(/^\u2212(?=\d)/, "-");
      record[name] = text === "\u2013" ? null : /^-?\d+(\.\d+)?$/.test(plain) ? Number(plain) : text;
    });
    return record;
  });
  return JSON.stringify(rows, null, 1);
}
// A file for the reader: nothing is asked for, the text comes from the page itself.
function save(button) {
  var block = button.closest(".table-block");
  var place = block.closest("[id]");
  var number = Array.prototype.indexOf.call(place.querySelectorAll(".table-block"), block) + 1;
  var kind = button.dataset.save, table = block.querySelector("table");
  var text = kind === "csv" ? csv(table) : json(table);
  var type = kind === "csv" ? "text/csv" : "application/json";
  var address = URL.createObjectURL(new Blob([text], { type: type + ";charset=utf-8" }));
  var link = make("a", { href: address, download: place.id + "-" + number + "." + kind });
  document.body.appendChild(link);
  link.click();
  document.body.removeChild(link);
  setTimeout(function () { URL.revokeObjectURL(address); }, 1000);
}
document.addEventListener("click", function (event) {
  var button = event.target.closest && event.target.closest("button.copy");
  if (!button) return;
  if (button.dataset.save) {
    save(button);
    return;
  }
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
