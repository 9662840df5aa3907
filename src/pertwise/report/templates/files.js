// Figures as files, made from what is drawn: the page would else hold every one of them twice.
(function () {
  var place = document.getElementById("figure-files");
  if (!place) return;
  var rules = "";
  Array.prototype.forEach.call(document.styleSheets[0].cssRules, function (rule) {
    if (/^svg /.test(rule.selectorText || "")) rules += rule.cssText.replace(/^svg /, "").replace(/var\(--ink\)/g, "#1f2430").replace(/var\(--soft\)/g, "#5a6272").replace("inherit", "sans-serif");
  });
  document.querySelectorAll("figure[data-name]").forEach(function (figure) {
    var link = document.createElement("a");
    link.textContent = figure.getAttribute("data-name") + ".svg";
    link.download = link.textContent;
    link.href = "data:,";
    var fill = function () {
      var svg = figure.querySelector("svg").cloneNode(true), style = document.createElementNS(svg.namespaceURI, "style");
      style.textContent = rules;
      svg.insertBefore(style, svg.firstChild);
      var box = svg.getAttribute("viewBox").split(" ");
      svg.setAttribute("width", box[2]);
      svg.setAttribute("height", box[3]);
      link.href = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(new XMLSerializer().serializeToString(svg));
    };
    link.addEventListener("click", fill);
    place.appendChild(link);
    place.appendChild(document.createTextNode(" "));
  });
  // Browsers that cannot show folded parts by style alone open them while they print.
  var opened = [];
  addEventListener("beforeprint", function () {
    document.querySelectorAll("details.more:not([open]), details.print:not([open])").forEach(function (d) { d.open = true; opened.push(d); });
  });
  addEventListener("afterprint", function () { opened.forEach(function (d) { d.open = false; }); opened = []; });
})();
