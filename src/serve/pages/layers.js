// Figures of layers, out of sums since the start: pure functions on what the routes answer.
const Layers = (() => {
  const sum = (values) => values.reduce((a, b) => a + b, 0);
  const mean = (values) => (values.length ? sum(values) / values.length : 0);

  // Values at shares of a list: 0 the least, 1 the largest.
  function quantile(values, share) {
    const sorted = [...values].sort((a, b) => a - b);
    return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] : 0;
  }

  // later - earlier of two lists; without `earlier`, since the start.
  const difference = (later, earlier) => later.map((value, i) => value - (earlier ? earlier[i] : 0));

  // A flat list as rows of a layer each, relative to the layer's mean; a layer without load has none.
  function relativeRows(flat, layers) {
    const width = layers.length ? flat.length / layers.length : 0;
    return layers.map((layer, l) => {
      const values = flat.slice(l * width, (l + 1) * width);
      const middle = mean(values);
      return { name: String(layer), values: middle > 0 ? values.map((value) => value / middle) : [] };
    });
  }

  // Rows that ranks would have computed of what was routed, with each expert's tokens split evenly over its slots.
  function evenSplit(routed, slots, ranks) {
    if (!slots.length) return [];
    const experts = routed.length / slots.length;
    return slots.flatMap((layer, l) => {
      const copies = new Array(experts).fill(0);
      for (const expert of layer) ++copies[expert];
      const rows = new Array(ranks).fill(0);
      layer.forEach((expert, s) => { rows[Math.floor(s * ranks / layer.length)] += routed[l * experts + expert] / copies[expert]; });
      return rows;
    });
  }

  // One slot for each expert, in order: without a balancer and without replicas.
  const contiguous = (experts, layers) => Array.from({ length: layers }, () => Array.from({ length: experts }, (_, e) => e));

  // busiest / mean - 1 of each layer.
  const imbalances = (rows) => rows.filter((row) => row.values.length).map((row) => Math.max(...row.values) - 1);

  // Slots whose expert has another slot on the same rank, which are of no use.
  function duplicates(layer, ranks) {
    const seen = new Set();
    return layer.map((expert, s) => {
      const place = Math.floor(s * ranks / layer.length) + ':' + expert;
      return seen.has(place) || !seen.add(place);
    });
  }

  // Share of the tenth of the experts with most tokens that is the same in two windows, per layer.
  function hotOverlap(now, before, layers) {
    const width = now.length / layers;
    const count = Math.max(1, Math.round(width / 10));
    const hottest = (flat, l) => Array.from({ length: width }, (_, e) => e)
      .sort((a, b) => flat[l * width + b] - flat[l * width + a] || a - b).slice(0, count);
    return Array.from({ length: layers }, (_, l) => {
      const earlier = new Set(hottest(before, l));
      return hottest(now, l).filter((e) => earlier.has(e)).length / count;
    });
  }

  // Who is where: hosts in order, each with its stages in order, each with its ranks.
  function hostsOf(places) {
    const at = Object.fromEntries(places.columns.map((name, i) => [name, i]));
    const hosts = new Map();
    places.rows.forEach((row, rank) => {
      const stages = hosts.get(row[at.host]) || hosts.set(row[at.host], new Map()).get(row[at.host]);
      const ranks = stages.get(row[at.stage]) || stages.set(row[at.stage], []).get(row[at.stage]);
      ranks.push({ rank, group: row[at.group], tensor: row[at.tensor], context: row[at.context] });
    });
    return hosts;
  }

  // Rows of the exchange by how far they went, out of two answers or one.
  function levels(now, before) {
    const between = difference(now.rows_by_host, before && before.rows_by_host);
    const hosts = Math.round(Math.sqrt(between.length));
    const within = sum(between.filter((_, i) => Math.floor(i / hosts) === i % hosts));
    return { own: now.rows_on_rank - (before ? before.rows_on_rank : 0), within, across: sum(between) - within, between, hosts };
  }

  return { hostsOf, levels, sum, mean, quantile, difference, relativeRows, evenSplit, contiguous, imbalances, duplicates, hotOverlap };
})();
