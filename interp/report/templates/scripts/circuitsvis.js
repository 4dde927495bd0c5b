// CircuitsVis draws into the divisions that name one of its components.
if (window.CircuitsVis) {
  Object.keys(data.circuitsvis).forEach(function (key) {
    var target = document.getElementById(key);
    target.textContent = "";
    window.CircuitsVis.render(key, window.CircuitsVis[data.circuitsvis[key].component], data.circuitsvis[key].props);
  });
}
