// Sorting and filtering of the table of concepts. The page is whole without it.
(function () {
  "use strict";
  var table = document.getElementById("concepts-table");
  var body = table.tBodies[0];
  var rows = Array.prototype.slice.call(body.rows);
  var find = document.getElementById("find");
  var standing = document.getElementById("standing");
  var found = document.getElementById("found");

  function filter() {
    var words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    var shown = 0;
    rows.forEach(function (row) {
      var text = row.textContent.toLowerCase() + " " + row.dataset.t;
      var fits = words.every(function (word) { return text.indexOf(word) >= 0; });
      row.hidden = !fits || (standing.value !== "" && row.dataset.s !== standing.value);
      shown += row.hidden ? 0 : 1;
    });
    found.textContent = shown.toLocaleString("en") + (shown === 1 ? " concept" : " concepts");
  }

  function value(row, column) {
    var cell = row.cells[column];
    return cell.dataset.v === undefined ? cell.textContent.toLowerCase() : Number(cell.dataset.v);
  }

  function sort(head, column) {
    var ascending = head.getAttribute("aria-sort") === "descending";
    if (head.getAttribute("aria-sort") === null && !head.classList.contains("num")) { ascending = true; }
    Array.prototype.forEach.call(table.tHead.rows[0].cells, function (one) { one.removeAttribute("aria-sort"); });
    head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    rows.sort(function (one, other) {
      var a = value(one, column), b = value(other, column);
      var order = a < b ? -1 : a > b ? 1 : 0;
      return ascending ? order : -order;
    });
    rows.forEach(function (row) { body.appendChild(row); });
  }

  Array.prototype.forEach.call(table.tHead.rows[0].cells, function (head, column) {
    var button = document.createElement("button");
    button.type = "button";
    while (head.firstChild) { button.appendChild(head.firstChild); }
    head.appendChild(button);
    button.addEventListener("click", function () { sort(head, column); });
  });
  find.addEventListener("input", filter);
  standing.addEventListener("change", filter);
  document.getElementById("controls").hidden = false;
})();
