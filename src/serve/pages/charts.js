// Pictures and tables, made of elements: no text of the server is ever read as HTML.
const Charts = (() => {
  const SVG = 'http://www.w3.org/2000/svg';
  const LEFT = 56, TOP = 12, BOTTOM = 44, HEIGHT = 220;

  function element(name, text, attributes = {}) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  function shape(parent, name, attributes, text) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  }

  function figure(value) {
    if (!Number.isFinite(value)) return 'none';
    if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(1);
    return value.toLocaleString('en', { maximumFractionDigits: Math.abs(value) < 10 ? 3 : Math.abs(value) < 100 ? 1 : 0 });
  }

  function step(top) {
    const power = 10 ** Math.floor(Math.log10(top / 4));
    return [1, 2, 5, 10].find((factor) => factor * power >= top / 4) * power;
  }

  // A table in a scrolling box that the keyboard reaches.
  function table(caption, columns, rows) {
    const made = element('table');
    made.append(element('caption', caption));
    const head = made.createTHead().insertRow();
    for (const column of columns) head.append(element('th', column, { scope: 'col' }));
    const body = made.createTBody();
    for (const row of rows) {
      const line = body.insertRow();
      row.forEach((value, i) => {
        const text = typeof value === 'number' ? figure(value) : value;
        line.append(i === 0 ? element('th', text, { scope: 'row' }) : element('td', text));
      });
    }
    const box = element('div', undefined, { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': caption });
    box.append(made);
    return box;
  }

  // What is below the summary is made while it is open, and made anew with new figures.
  function details(id, summary, make) {
    const box = document.getElementById(id);
    if (!box.firstChild) {
      box.append(element('summary', summary));
      box.addEventListener('toggle', () => fill(box));
    }
    box.make = make;
    if (!box.contains(document.activeElement) || document.activeElement === box.firstChild) fill(box);
  }

  function fill(box) {
    const old = box.querySelector('.scroll');
    const at = old ? [old.scrollLeft, old.scrollTop] : [0, 0];
    while (box.lastChild !== box.firstChild) box.lastChild.remove();
    if (!box.open) return;
    const made = box.make();
    box.append(made);
    made.scrollTo(at[0], at[1]);
  }

  // Lines over a horizontal axis. {label, ticks: [text], xs: what is under the pointer, unit,
  // lines: [{values, css}], band: {low, high}, marks: [index], bars: values}
  function plot(id, chart) {
    const box = document.getElementById(id);
    const width = Math.max(240, box.clientWidth);
    const wide = width - LEFT - 8;
    const finite = [...(chart.band ? chart.band.high : []), ...(chart.bars || []), ...chart.lines.flatMap((line) => line.values)]
      .filter(Number.isFinite);
    const count = chart.xs.length;
    const svg = document.createElementNS(SVG, 'svg');
    svg.setAttribute('viewBox', `0 0 ${width} ${TOP + HEIGHT + BOTTOM}`);
    svg.setAttribute('role', 'img');
    svg.setAttribute('aria-label', chart.label);
    const top = Math.max(...finite, 0) * 1.05 || 1;
    const y = (value) => TOP + HEIGHT * (1 - Math.min(value, top) / top);
    const x = (i) => LEFT + wide * (i + 0.5) / Math.max(count, 1);
    for (let value = 0; value <= top * 1.0001; value += step(top)) {
      shape(svg, 'line', { class: 'grid', x1: LEFT, x2: LEFT + wide, y1: y(value), y2: y(value) });
      shape(svg, 'text', { x: LEFT - 8, y: y(value) + 4, 'text-anchor': 'end' }, figure(value));
    }
    const points = (values) => values.map((value, i) => [x(i), y(value)]).filter((p) => Number.isFinite(p[1]))
      .map((p) => p.map((c) => c.toFixed(1)).join(',')).join(' ');
    if (chart.band) shape(svg, 'polygon', { class: 'band', points: points(chart.band.high) + ' ' + points(chart.band.low).split(' ').reverse().join(' ') });
    for (const i of chart.marks || []) shape(svg, 'line', { class: 'commit', x1: x(i), x2: x(i), y1: TOP + HEIGHT, y2: TOP + HEIGHT - 14 });
    (chart.bars || []).forEach((value, i) => {
      if (value > 0) shape(svg, 'rect', { class: 'fill', x: x(i) - wide / count * 0.4, width: Math.max(0.8, wide / count * 0.8), y: y(value), height: y(0) - y(value) });
    });
    for (const line of chart.lines) shape(svg, 'polyline', { class: line.css, points: points(line.values) });
    const every = Math.max(1, Math.ceil(count / (wide / 90)));
    for (let i = 0; i < count; i += every) shape(svg, 'text', { x: x(i), y: TOP + HEIGHT + 20, 'text-anchor': 'middle' }, chart.ticks[i]);
    shape(svg, 'text', { x: LEFT + wide / 2, y: TOP + HEIGHT + BOTTOM - 4, 'text-anchor': 'middle' }, chart.unit);
    for (let i = 0; i < count; ++i) {
      const cell = shape(svg, 'rect', { class: 'over', x: x(i) - wide / count / 2, width: wide / count, y: TOP, height: HEIGHT });
      shape(cell, 'title', {}, chart.xs[i]);
    }
    box.replaceChildren(svg);
  }

  // Horizontal bars, each below its words: [{text, share}], shares of the whole.
  function bars(id, label, rows) {
    const box = document.getElementById(id);
    const width = Math.max(240, box.clientWidth), line = 46;
    const svg = document.createElementNS(SVG, 'svg');
    svg.setAttribute('viewBox', `0 0 ${width} ${rows.length * line}`);
    svg.setAttribute('role', 'img');
    svg.setAttribute('aria-label', label);
    rows.forEach((row, i) => {
      shape(svg, 'text', { x: 0, y: i * line + 14 }, row.text);
      shape(svg, 'rect', { class: 'track', x: 0, y: i * line + 20, width, height: 14 });
      if (row.share > 0) shape(svg, 'rect', { class: 'fill', x: 0, y: i * line + 20, width: Math.max(1, row.share * width), height: 14 });
    });
    box.replaceChildren(svg);
  }

  // Load relative to the mean of its row, in the bands of the legend.
  const BANDS = [[0.25, 'l4'], [0.5, 'l3'], [0.75, 'l2'], [0.95, 'l1'], [1.05, 'm'], [1.25, 'h1'], [1.5, 'h2'], [2, 'h3'], [Infinity, 'h4']];

  function legend(id) {
    const list = document.getElementById(id);
    BANDS.forEach(([below, css], i) => {
      const from = i ? BANDS[i - 1][0] : 0;
      const item = element('li');
      item.append(element('span', undefined, { class: css }), i === 8 ? ' 2 and more' : ` ${from} to ${below}`);
      list.append(item);
    });
  }

  // A grid: rows [{name, values}], values relative to 1; `column` and `line` name what columns and rows are.
  function heatMap(id, label, column, rows, line = 'layer') {
    const canvas = document.getElementById(id);
    const styles = getComputedStyle(document.documentElement);
    const colours = new Map(BANDS.map(([, css]) => [css, styles.getPropertyValue('--' + css)]));
    const columns = Math.max(1, ...rows.map((row) => row.values.length));
    const width = canvas.clientWidth || 600;
    const cellHeight = rows.length > 24 ? 10 : 18;
    const ratio = window.devicePixelRatio || 1;
    const left = 40, bottom = 34, plotWidth = width - left - 4;
    const height = rows.length * cellHeight + bottom;
    canvas.style.height = height + 'px';
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    canvas.setAttribute('aria-label', label);
    const pen = canvas.getContext('2d');
    pen.scale(ratio, ratio);
    pen.font = '12px system-ui, sans-serif';
    pen.fillStyle = styles.getPropertyValue('--soft');
    const cellWidth = plotWidth / columns, gap = cellWidth > 6 ? 1 : 0;
    const every = Math.ceil(14 / cellHeight);
    rows.forEach((row, r) => { if (r % every === 0) pen.fillText(row.name, 4, r * cellHeight + cellHeight / 2 + 4); });
    const columnStep = Math.ceil(40 / cellWidth);
    for (let c = 0; c < columns; c += columnStep) pen.fillText(String(c), left + c * cellWidth + 2, height - bottom + 14);
    pen.fillText(`${column} (a row is a ${line})`, left, height - 4);
    rows.forEach((row, r) => row.values.forEach((value, c) => {
      pen.fillStyle = colours.get(BANDS.find(([below]) => value < below)[1]);
      pen.fillRect(left + c * cellWidth, r * cellHeight, Math.max(cellWidth - gap, 0.6), cellHeight - 1);
    }));
    canvas.onmousemove = (event) => {
      const r = Math.floor(event.offsetY / cellHeight), c = Math.floor((event.offsetX - left) / cellWidth);
      const value = rows[r] && rows[r].values[c];
      canvas.title = value === undefined ? '' : `${line} ${rows[r].name}, ${column} ${c}: ${figure(value)} x mean`;
    };
  }

  function heatTable(caption, column, rows, first = 'layer') {
    const columns = Math.max(0, ...rows.map((row) => row.values.length));
    return table(caption, [first, ...Array.from({ length: columns }, (_, c) => `${column} ${c}`)], rows.map((row) => [row.name, ...row.values]));
  }

  return { element, figure, table, details, plot, bars, legend, heatMap, heatTable };
})();
