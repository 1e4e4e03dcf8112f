(() => {
  "use strict";
  // Everything on the page is readable without this script: it adds tooltips and sorting.
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  document.body.append(tip);

  const show = (event, lines) => {
    tip.replaceChildren(...lines.map((line, place) => {
      const part = document.createElement(place ? "div" : "b");
      part.textContent = line;
      return part;
    }));
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const right = document.documentElement.clientWidth - box.width - 8;
    const above = event.clientY - box.height - 14;
    tip.style.left = Math.max(8, Math.min(event.clientX + 14, right)) + "px";
    tip.style.top = (above > 8 ? above : event.clientY + 18) + "px";
  };
  const hide = () => {
    tip.hidden = true;
    document.querySelectorAll(".cross").forEach((line) => line.remove());
  };

  // The browser's own tooltips are slow and cannot be had by touch: take their texts over.
  document.querySelectorAll(".chart svg").forEach((svg) => {
    const name = svg.querySelector(":scope > title");
    svg.setAttribute("aria-label", name.textContent);
    svg.removeAttribute("aria-labelledby");
    svg.setAttribute("aria-describedby", svg.querySelector(":scope > desc").id);
    name.remove();
    svg.querySelectorAll(".mark > title").forEach((title) => {
      title.parentNode.dataset.tip = title.textContent;
      title.remove();
    });
  });

  const cells = (row) => [...row.cells].map((cell) => cell.textContent);
  const spot = (svg, event) =>
    new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());

  // A line chart: the round nearest to the pointer, read from the table below the chart.
  const follow = (svg, event) => {
    const chart = svg.closest(".chart");
    const [start, end, low, high, log] = svg.dataset.x.split(" ").map(Number);
    const [top, bottom] = svg.dataset.y.split(" ").map(Number);
    const place = (value) => start + (end - start) *
      (log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low));
    const at = spot(svg, event).x;
    const places = chart.dataset.places.split(" ").map(Number);
    let best = 0;
    places.forEach((value, row) => {
      if (Math.abs(place(value) - at) < Math.abs(place(places[best]) - at)) best = row;
    });
    const table = chart.parentNode.querySelector("table");
    const head = cells(table.tHead.rows[0]);
    const row = cells(table.tBodies[0].rows[best]);
    hide();
    const cross = document.createElementNS("http://www.w3.org/2000/svg", "line");
    cross.setAttribute("class", "cross");
    cross.setAttribute("x1", place(places[best]));
    cross.setAttribute("x2", place(places[best]));
    cross.setAttribute("y1", top);
    cross.setAttribute("y2", bottom);
    svg.append(cross);
    show(event, row.map((cell, column) => `${head[column]}${column ? ":" : ""} ${cell}`));
  };

  // A heat map: the cell under the pointer, read from the table below the map.
  const look = (svg, event) => {
    const [left, top, column, row] = svg.dataset.map.split(" ").map(Number);
    const at = spot(svg, event);
    const table = svg.closest(".chart").parentNode.querySelector("table");
    const line = table.tBodies[0].rows[Math.floor((at.y - top) / row)];
    const place = Math.floor((at.x - left) / column) + 1;
    const head = table.tHead.rows[0].cells;
    if (!line || at.x < left || at.y < top || place >= head.length - 1) return hide();
    const all = line.cells[head.length - 1].textContent;
    show(event, [line.cells[0].textContent,
      `${head[place].textContent}: ${line.cells[place].textContent} of ${all}`]);
  };

  const react = (event) => {
    const mark = event.target.closest?.("[data-tip]");
    const svg = event.target.closest?.(".chart svg");
    if (mark) show(event, [mark.dataset.tip]);
    else if (svg?.dataset.x && svg.closest(".chart").dataset.places) follow(svg, event);
    else if (svg?.dataset.map) look(svg, event);
    else hide();
  };
  document.addEventListener("pointermove", react);
  document.addEventListener("pointerdown", react);
  document.addEventListener("scroll", hide, { passive: true, capture: true });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  const key = (row, column) => {
    const cell = row.cells[column];
    if (column === 0) return cell.textContent.trim();
    return cell.dataset.v === undefined ? null : Number(cell.dataset.v);
  };
  const compare = (one, other) => {
    if (one === null || other === null) return (one === null) - (other === null);
    return typeof one === "string"
      ? one.localeCompare(other, undefined, { numeric: true }) : one - other;
  };
  document.querySelectorAll("table.sortable").forEach((table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...table.tBodies[0].rows].map((row) => [key(row, column), row]);
        const empty = rows.filter(([value]) => value === null);
        const full = rows.filter(([value]) => value !== null)
          .sort(([one], [other]) => (down ? -1 : 1) * compare(one, other));
        table.tBodies[0].append(...[...full, ...empty].map(([, row]) => row));
      });
    });
  });
})();
