// What is saved of a table: its columns as [name, what a row has there]. A number with its interval is three columns,
// and the place it belongs to, where it has one, is a column before them.
function columnsOf(table) {
  var rows = Array.from(table.tBodies[0].rows);
  return [].concat.apply([], Array.from(table.tHead.rows[0].cells).map(function (heading, i) {
    var name = heading.textContent;
    function has(kind) { return rows.some(function (row) { return kind in row.cells[i].dataset; }); }
    if (!has("value")) return [[name, function (row) { return textOf(row.cells[i]); }]];
    var ends = [["value", name], ["low", say("95% low", { name: name })], ["high", say("95% high", { name: name })]];
    return (has("place") ? [["place", say("place of", { name: name })]].concat(ends) : ends).map(function (end) {
      return [end[1], function (row) { return end[0] in row.cells[i].dataset ? row.cells[i].dataset[end[0]] : null; }];
    });
  }));
}
// Numbers have the minus sign of programs, and what is missing is null.
function textOf(cell) {
  var text = cell.textContent.replace(/^\u2212(?=[\d.\u221e])/, "-");
  return text === "\u2013" ? null : text;
}
// CSV (RFC 4180); what is missing is an empty field.
function csv(table) {
  var columns = columnsOf(table);
  var rows = Array.from(table.tBodies[0].rows, function (row) { return columns.map(function (one) { return one[1](row); }); });
  return [columns.map(function (one) { return one[0]; })].concat(rows).map(function (row) {
    return row.map(function (text) {
      if (text === null) return "";
      return /[",\r\n]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text;
    }).join(",");
  }).join("\r\n");
}
// JSON: one object a row, numbers as numbers, null where there is none.
function json(table) {
  var columns = columnsOf(table);
  return JSON.stringify(Array.from(table.tBodies[0].rows, function (row) {
    var record = {};
    columns.forEach(function (one) {
      var text = one[1](row);
      record[one[0]] = text !== null && /^-?\d+(\.\d+)?(e[+-]\d+)?$/.test(text) ? Number(text) : text;
    });
    return record;
  }), null, 1);
}
var whenUnpacked = []; // called with a table that has got its rows
// Of a long table that is folded away the page holds the rows compressed, until it is opened.
function unpackRows(folded) {
  folded.querySelectorAll("script.rows").forEach(function (stored) {
    if (stored.closest("details") !== folded) return;
    var block = stored.closest(".table-block"), table = block.querySelector("table");
    inflate(stored.textContent).then(function (buffer) {
      if (!stored.isConnected) return;
      stored.remove();
      block.querySelector(".by-script").remove();
      table.tBodies[0].innerHTML = new TextDecoder().decode(buffer); // escaped when the page was made
      whenUnpacked.forEach(function (call) { call(table); });
    }, function () { block.classList.add("unread"); });
  });
}
document.addEventListener("toggle", function (event) {
  if (event.target.open) unpackRows(event.target);
}, true);
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
