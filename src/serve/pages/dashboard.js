// The dashboard: asks for sums since the start, keeps a few earlier ones, and shows the differences.
const source = document.documentElement.outerHTML;  // before anything is filled in, to be saved with figures
const byId = (id) => document.getElementById(id);
const { figure, table, details, plot, bars, heatMap, heatTable } = Charts;
const EVERY_MS = 2000, EXPERTS_EVERY = 3, MOST_KEPT = 900;

const state = { generation: 0, history: [], expertHistory: [], experts: null, spread: [], polls: 0, paused: false, recorded: false };

const newest = () => state.history[state.history.length - 1];
const bytes = (value) => (value >= 2 ** 30 ? figure(value / 2 ** 30) + ' GiB' : figure(value / 2 ** 20) + ' MiB');
const percent = (share) => figure(100 * share) + ' %';
const convention = (ratio) => (byId('measure').value === 'ratio' ? ratio : 1 / (1 + ratio));

// The entry of a history with which the chosen window begins; null: the start of the server.
function earlier(history) {
  const seconds = Number(byId('window').value);
  if (!seconds || !history.length) return null;
  const from = history[history.length - 1].time - seconds;
  return history.find((entry) => entry.time >= from) || null;
}

function text(id, value) {
  if (byId(id).textContent !== value) byId(id).textContent = value;
}

function showTiles(data) {
  const before = state.history[Math.max(0, state.history.length - 6)];
  const seconds = data.time - before.time;
  const rate = (key) => (seconds > 0 ? figure((data[key] - before[key]) / seconds) : 'none yet');
  const b = data.balancer;
  const tiles = [
    ['Requests running, waiting', `${data.requests.running}, ${data.requests.waiting}`],
    ['Tokens per second: prompts, generated', `${rate('prompt_tokens')}, ${rate('generated_tokens')}`],
    ['Iterations', figure(data.iterations)],
    ['KV cache in use', percent(data.requests.kv_usage)],
    ['Ranks, layers with experts', `${data.ranks * data.stages}, ${data.layers.length}`],
    ['Experts, slots of a layer', state.experts && state.experts.experts ? `${state.experts.experts}, ${state.experts.slots[0].length}` : 'none'],
    ['Balancer', b.mode === 'off' ? 'off' : b.skipped_iterations > b.generation && b.generation === 0 ? `${b.mode}, behind` : b.mode],
    ['Placement generation', b.generation ? `${b.generation}, ${figure(b.seconds_since_change)} s ago` : '0, as started'],
    ['Iterations not planned for', figure(b.skipped_iterations)],
  ];
  byId('tiles').replaceChildren(...tiles.map(([name, value]) => {
    const box = document.createElement('div');
    box.append(Charts.element('dt', name), Charts.element('dd', value));
    return box;
  }));
}

function showTime(data) {
  const column = Object.fromEntries(data.stretches.columns.map((name, i) => [name, i]));
  const rows = data.stretches.rows;
  const ratio = byId('measure').value === 'ratio';
  const values = rows.map((row) => row[column[ratio ? 'imbalance' : 'balancedness']]);
  const worst = rows.map((row) => convention(row[column.highest_imbalance]));
  const last = (row) => row[column.first_iteration] + row[column.iterations] - 1;
  const chart = {
    label: `Imbalance over ${data.iterations} iterations; the table below has every value.`,
    ticks: rows.map((row) => String(row[column.first_iteration])),
    xs: rows.map((row, i) => `iterations ${row[column.first_iteration]} to ${last(row)}: ${figure(values[i])}, worst ${figure(worst[i])}`),
    unit: 'iteration', lines: [{ values, css: 'curve' }],
    band: ratio ? { low: values, high: worst } : { low: worst, high: values },
    marks: rows.flatMap((row, i) => (row[column.fetched_slots] ? [i] : [])),
  };
  plot('time', chart);
  details('time-table', 'As a table', () => table('Course of the run', ['iterations', 'seconds', 'prompt tokens', 'generated tokens', 'fetched slots', 'imbalance', 'worst iteration', 'balancedness'],
    rows.map((row) => [`${row[0]} to ${last(row)}`, ...row.slice(2)])));
  plot('moves', { ...chart, label: `Slots fetched by iteration, ${data.balancer.fetched_slots} in all.`, lines: [], band: undefined, marks: [],
    bars: rows.map((row) => row[column.fetched_slots]), xs: rows.map((row) => `iterations ${row[0]} to ${last(row)}: ${row[column.fetched_slots]} slots`) });
  const b = data.balancer;
  text('moves-text', b.mode === 'off' ? 'The balancer is off: slots hold what they held at the start.'
    : `${figure(b.fetched_slots)} slots (${bytes(b.fetched_bytes)}) got an expert that their rank did not hold before, from the experts of their host; ${figure(b.generation)} changes of ${figure(b.changed_layers)} layers. ` +
      `Planning took ${figure(b.planning_seconds)} s of a thread; ${figure(b.late_plans)} plans were late, ${figure(b.skipped_iterations)} iterations were not planned for.`);
  details('moves-table', 'By layer', () => table('Slots fetched since the start', ['layer', 'slots'], data.layers.map((layer, l) => [String(layer), b.fetched_slots_by_layer[l]])));
}

// Per layer: mean imbalance of the iterations between two answers.
function noteSpread(data, before) {
  const iterations = data.iterations - before.iterations;
  if (iterations <= 0 || !data.layers.length) return;
  const values = Layers.difference(data.imbalance_sums, before.imbalance_sums).map((value) => value / iterations);
  const at = (share) => Layers.quantile(values, share);
  state.spread.push({ time: data.time, iterations, least: at(0), middle: at(0.5), most9: at(0.9), most: at(1) });
  if (state.spread.length > 150) state.spread.shift();
}

function showSpread() {
  const rows = state.spread;
  const clock = (time) => new Date(time * 1000).toLocaleTimeString('en-GB');
  const of = (key) => rows.map((row) => convention(row[key]));
  const ratio = byId('measure').value === 'ratio';
  plot('spread', {
    label: 'Imbalance of layers since this page was opened; the table below has every value.',
    ticks: rows.map((row) => clock(row.time)), xs: rows.map((row) => `${clock(row.time)}: middle ${figure(convention(row.middle))}`), unit: 'time',
    band: ratio ? { low: of('least'), high: of('most') } : { low: of('most'), high: of('least') },
    lines: [{ values: of('middle'), css: 'curve' }, { values: of('most9'), css: 'second' }],
  });
  details('spread-table', 'As a table', () => table('Imbalance of layers', ['time', 'iterations', 'least', 'middle', '9 of 10 below', 'most'],
    rows.map((row) => [clock(row.time), row.iterations, ...['least', 'middle', 'most9', 'most'].map((key) => convention(row[key]))])));
}

function showRanks(data) {
  const before = earlier(state.history);
  let flat = Layers.difference(data.rank_rows, before && before.rank_rows);
  const e = state.experts;
  const projection = byId('projection').value;
  if (projection !== 'measured' && e && e.experts) {
    const first = earlier(state.expertHistory);
    const routed = Layers.difference(e.routed, first && first.routed);
    flat = Layers.evenSplit(routed, projection === 'placement' ? e.slots : Layers.contiguous(e.experts, e.slots.length), e.expert_ranks);
  }
  const rows = Layers.relativeRows(flat, data.layers);
  const values = Layers.imbalances(rows);
  const iterations = data.iterations - (before ? before.iterations : 0);
  const perIteration = iterations > 0 ? Layers.mean(Layers.difference(data.imbalance_sums, before && before.imbalance_sums)) / iterations : 0;
  text('ranks-text', values.length ? `Relative to the mean of the layer. Of the window's sums ${figure(convention(Layers.mean(values)))} on average over layers` +
    ` (worst layer ${figure(convention(Math.max(...values)))}); measured per iteration ${figure(convention(perIteration))}.` +
    (data.stages > 1 ? ` Ranks are counted within the stage (of ${data.stages}) that has the layer.` : '') : 'No tokens in this window.');
  heatMap('ranks', `Load of ${data.ranks} ranks in ${rows.length} layers; the table below has every value.`, 'rank', rows);
  details('ranks-table', 'As a table', () => heatTable('Load of ranks, 1 is the mean', 'rank', rows));
}

function showExperts(data) {
  const e = state.experts;
  if (!e || !e.experts) return text('experts-text', 'The model has no experts.');
  const first = earlier(state.expertHistory);
  const rows = Layers.relativeRows(Layers.difference(e.routed, first && first.routed), data.layers);
  const cold = Layers.sum(rows.map((row) => row.values.filter((value) => value === 0).length));
  text('experts-text', `Tokens routed to each of ${e.experts} experts, relative to the mean of the layer. ${cold} of ${e.experts * rows.length} got none in this window.`);
  heatMap('experts', `Load of ${e.experts} experts in ${rows.length} layers; the table below has every value.`, 'expert', rows);
  details('experts-table', 'As a table', () => heatTable('Load of experts, 1 is the mean', 'expert', rows));
  showSlots(data, e);
  showStability(data, e);
}

function showSlots(data, e) {
  const choice = byId('layer');
  if (!choice.length) data.layers.forEach((layer, l) => choice.append(new Option(String(layer), String(l))));
  const l = Number(choice.value);
  const twice = Layers.duplicates(e.slots[l], e.expert_ranks);
  const all = Layers.sum(e.slots.map((layer) => Layers.duplicates(layer, e.expert_ranks).filter(Boolean).length));
  text('slots-text', `${e.slots[l].length} slots a layer for ${e.experts} experts, on ${e.expert_ranks} ranks; generation ${e.generation}. ` +
    (all ? `${all} slots hold an expert that their rank has in another slot already.` : 'No rank holds an expert twice.'));
  const perRank = e.slots[l].length / e.expert_ranks;
  details('slots-table', 'What each slot holds', () => table(`Slots of layer ${data.layers[l]}`, ['rank, slot', 'expert', 'since iteration', 'twice on its rank'],
    e.slots[l].map((expert, s) => [`${Math.floor(s / perRank)}, ${s}`, String(expert), e.since[l][s] ? String(e.since[l][s]) : 'the start', twice[s] ? 'yes' : ''])));
  details('replicas-table', 'Replicas of each expert', () => table(`Replicas in layer ${data.layers[l]}`, ['expert', 'slots', 'on ranks'],
    Array.from({ length: e.experts }, (_, expert) => {
      const slots = e.slots[l].flatMap((held, s) => (held === expert ? [s] : []));
      return [String(expert), slots.length, slots.map((s) => Math.floor(s / perRank)).join(', ')];
    })));
}

// The two halves of what this page has seen, and what the newest half says of the placement.
function showStability(data, e) {
  const seen = state.expertHistory;
  if (seen.length < 3) return text('stable-text', 'Two windows of figures are needed: wait a few seconds while requests run.');
  const middle = seen[Math.floor((seen.length - 1) / 2)];
  const before = Layers.difference(middle.routed, seen[0].routed), now = Layers.difference(e.routed, middle.routed);
  if (!Layers.sum(before) || !Layers.sum(now)) return text('stable-text', 'No tokens in one of the two halves of what this page has seen.');
  const overlap = Layers.hotOverlap(now, before, e.slots.length);
  const projected = (routed) => Layers.relativeRows(Layers.evenSplit(routed, e.slots, e.expert_ranks), data.layers).map((row) => (row.values.length ? Math.max(...row.values) - 1 : 0));
  const predicted = projected(before), obtained = projected(now);
  text('stable-text', `Of the tenth of the experts with most tokens, ${percent(Layers.mean(overlap))} are the same in both halves of what this page has seen. With the slots as they are, ` +
    `the first half predicts an imbalance of ${figure(Layers.mean(predicted))}; the second has ${figure(Layers.mean(obtained))} (sums, tokens split evenly).`);
  details('stable-table', 'By layer', () => table('Stability', ['layer', 'hot in both', 'predicted', 'obtained'],
    data.layers.map((layer, l) => [String(layer), percent(overlap[l]), predicted[l], obtained[l]])));
}

function showExchange(data) {
  const x = data.exchange, tokens = data.prompt_tokens + data.generated_tokens;
  const places = tokens * data.layers.length;
  text('fan-text', x.rounds ? `A token's row went to ${figure(x.rows / places)} ranks in a layer on average, for ${figure(x.returns / places)} results that came back; since the start.` : 'Nothing is exchanged: all experts are on one rank.');
  if (!x.rounds) return byId('fan-table').replaceChildren();
  byId('fan-table').replaceChildren(table('Waits that were not over at once, all ranks', ['for', 'times', 'seconds', 'microseconds each'],
    Object.entries(x.waits).map(([name, wait]) => [name, wait.count, wait.seconds, wait.count ? 1e6 * wait.seconds / wait.count : 0])));
  showPairs(data);
  showLevels(data);
}

// Rows, their bytes, and what part of all that is, by level and by pair of hosts.
function showLevels(data) {
  const before = earlier(state.history);
  const x = data.exchange, l = Layers.levels(x, before && before.exchange);
  const all = l.own + l.within + l.across;
  if (!all) return text('levels-text', 'No rows in this window.');
  const rows = [['on the rank itself', l.own], ['between ranks of one host', l.within], ['between hosts', l.across]]
    .map(([name, count]) => [name, count, count * x.row_bytes, count / all]);
  text('levels-text', `A row is ${figure(x.row_bytes)} bytes on its way out; results come back the other way, each of up to ${figure(x.return_row_bytes)} bytes.`);
  bars('levels', 'Share of the rows by how far they went; the table below has every value.',
    rows.map(([name, , size, share]) => ({ text: `${name}: ${bytes(size)}, ${percent(share)}`, share })));
  details('levels-table', 'As a table', () => table('Rows of the exchange by level', ['level', 'rows', 'bytes', 'share'],
    rows.map(([name, count, size, share]) => [name, count, size, percent(share)])));
  details('hosts-table', 'From host to host', () => table('Rows of the exchange from host to host, without those that stay on their rank', ['from, to host', 'rows', 'bytes', 'share'],
    l.between.map((count, i) => [`${Math.floor(i / l.hosts)}, ${i % l.hosts}`, count, count * x.row_bytes, percent(count / all)])));
}

// Who sent how much to whom: a row of the picture for each rank that sent.
function showPairs(data) {
  const before = earlier(state.history);
  const flat = Layers.difference(data.exchange.rows_by_rank, before && before.exchange.rows_by_rank);
  const middle = Layers.mean(flat);
  if (!middle) return text('pairs-text', 'No rows from rank to rank in this window.');
  const rows = Array.from({ length: data.ranks }, (_, from) => ({ name: String(from), values: flat.slice(from * data.ranks, (from + 1) * data.ranks).map((value) => value / middle) }));
  const own = Layers.sum(rows.map((row, from) => row.values[from])) * middle;
  text('pairs-text', `Rows from rank to rank, relative to the mean of all pairs, which is ${figure(middle)}; ${percent(own / Layers.sum(flat))} stayed on their rank.`);
  heatMap('pairs', `What each of ${data.ranks} ranks, one above the other, sent to each; the table below has every value.`, 'to rank', rows, 'rank that sent');
  details('pairs-table', 'As a table', () => heatTable('Rows from rank to rank, 1 is the mean', 'to rank', rows, 'from rank'));
}

// Which ranks are where, and when each was heard of.
function showPlaces(data) {
  const p = data.places, hosts = Layers.hostsOf(p);
  const age = p.columns.indexOf('seconds_since_iteration');
  const oldest = Math.max(...p.rows.map((row) => row[age]));
  text('lives-text', `All ${p.rows.length} ranks, on ${hosts.size === 1 ? 'one host' : hosts.size + ' hosts'}, were seen alive ${figure(p.seconds_since_seen)} s ago; ` +
    `the last iteration of the one longest ago ended ${figure(oldest)} s ago.`);
  const layout = JSON.stringify(p.rows.map((row) => row.slice(0, age)));
  if (state.layout !== layout) {
    state.layout = layout;
    byId('places').replaceChildren(...[...hosts].map(([host, stages]) => {
      const box = Charts.element('li', `Host ${host}`);
      for (const [stage, ranks] of stages) {
        const list = Charts.element('ul', undefined, { 'aria-label': `Stage ${stage} on host ${host}` });
        const [tensor, context] = ['tensor', 'context'].map((name) => p.rows.some((row) => row[p.columns.indexOf(name)] > 0));
        for (const r of ranks) list.append(Charts.element('li', `rank ${r.rank}: group ${r.group}${tensor ? `, heads ${r.tensor}` : ''}${context ? `, context ${r.context}` : ''}`));
        if (data.stages > 1) box.append(Charts.element('div', `Stage ${stage}`, { class: 'soft' }));
        box.append(list);
      }
      return box;
    }));
  }
  details('places-table', 'As a table', () => table('Ranks, where they are and when their last iteration ended',
    ['rank', 'host', 'stage', 'group', 'of heads', 'of the context', 'of experts', "of experts' columns", 'seconds ago'], p.rows.map((row, rank) => [String(rank), ...row])));
}

function showHealth(data) {
  const h = data.host;
  showPlaces(data);
  byId('health-table').replaceChildren(table('Server and host', ['what', 'value'], [
    ['server', data.status], ['ranks that take part', String(data.ranks * data.stages)], ['last iteration', `${figure(data.idle_seconds)} s ago`],
    ...data.generation_servers.rows.map((row, i) => [`generation server ${i}`, `${row[0] ? 'up' : 'down'}, ${row[2]} requests run, ${row[3]} wait, ${percent(row[5])} of its KV cache in use`]),
    ['requests open', String(data.requests.open)], ['requests that gave their place up', String(data.requests.preemptions)],
    ['tokens of prompts found in the prefix cache', percent(data.requests.prefix_hit_rate)],
    ...Object.entries(h.parts).filter(([, size]) => size).map(([name, size]) => [`planned for: ${name}`, bytes(size)]),
    ['memory of this process', bytes(h.resident_bytes)], ['memory of the host, free', `${bytes(h.memory_bytes)}, ${bytes(h.memory_available_bytes)}`],
    ['/dev/shm, in use', `${bytes(h.shm_bytes)}, ${bytes(h.shm_used_bytes)}`]]));
}

function show() {
  const data = newest();
  if (!data) return;
  showTiles(data);
  showTime(data);
  showSpread();
  showRanks(data);
  showExperts(data);
  showExchange(data);
  showHealth(data);
  text('title', `${data.model} on wideload ${data.version}`);
}

function take(data) {
  const before = newest();
  if (before && data.iterations < before.iterations) Object.assign(state, { history: [], expertHistory: [], spread: [] });  // the server was started anew
  else if (before) noteSpread(data, before);
  state.history.push(data);
  // What windows do not need is given up.
  for (const old of state.history.slice(0, -1)) delete old.stretches;
  if (state.history.length > MOST_KEPT) state.history.shift();
}

function takeExperts(experts, time) {
  state.experts = experts;
  state.expertHistory.push({ time, routed: experts.routed });
  if (state.expertHistory.length > MOST_KEPT / EXPERTS_EVERY) state.expertHistory.shift();
}

// Which of several servers that generate is shown is the reader's choice.
function noteGenerations(data) {
  const { rows } = data.generation_servers;
  byId('generation-label').hidden = rows.length < 2;
  const select = byId('generation');
  if (select.options.length !== rows.length) {
    select.replaceChildren(...rows.map((row, i) => new Option(String(i), String(i))));
    select.value = String(data.generation_server);
  }
  rows.forEach((row, i) => { select.options[i].disabled = !row[1]; });
}

function chooseGeneration() {
  Object.assign(state, { generation: Number(byId('generation').value), history: [], expertHistory: [], spread: [], experts: null });
}

async function poll() {
  try {
    const asked = state.generation;
    const of = asked > 0 ? '?generation=' + asked : '';
    const data = await Server.json('/dashboard/data' + of);
    if (asked !== state.generation) return void setTimeout(poll, 0);
    noteGenerations(data);
    take(data);
    const old = !state.experts || state.experts.generation !== data.balancer.generation;
    if (old || state.polls++ % EXPERTS_EVERY === 0) {
      const experts = await Server.json('/dashboard/experts' + of);
      if (asked !== state.generation) return void setTimeout(poll, 0);
      takeExperts(experts, data.time);
    }
    text('status', data.status === 'serving' ? 'Live.' : 'The server is shutting down.');
    if (!document.hidden) show();
  } catch (error) {
    text('status', 'No figures: ' + error.message + '. Asking again.');
  }
  if (!state.paused) setTimeout(poll, EVERY_MS);
}

function save(name, type, content) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const figures = () => JSON.stringify({ data: newest(), experts: state.experts });

// The same page with its figures in it; what could end the element is written another way.
function pageWithFigures() {
  const place = 'id="recorded">';
  const at = source.indexOf(place) + place.length;
  return '<!DOCTYPE html>\n' + source.slice(0, at) + figures().replaceAll('<', '\\u003c') + source.slice(at);
}

function csv() {
  const { columns, rows } = newest().stretches;
  return [columns, ...rows].map((row) => row.join(',')).join('\n') + '\n';
}

function start() {
  for (const [seconds, name] of [[0, 'since the start'], [10, 'last 10 s'], [60, 'last minute'], [600, 'last 10 minutes']]) byId('window').append(new Option(name, String(seconds)));
  Charts.legend('ranks-legend');
  for (const id of ['window', 'measure', 'projection', 'layer']) byId(id).onchange = show;
  byId('generation').onchange = chooseGeneration;
  byId('save-page').onclick = () => save('wideload.html', 'text/html', pageWithFigures());
  byId('save-json').onclick = () => save('wideload.json', 'application/json', figures());
  byId('save-csv').onclick = () => save('wideload.csv', 'text/csv', csv());
  byId('pause').onclick = () => {
    state.paused = !state.paused;
    byId('pause').setAttribute('aria-pressed', String(state.paused));
    text('status', state.paused ? 'Paused.' : 'Live.');
    if (!state.paused) poll();
  };
  addEventListener('resize', show);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', show);
  const recorded = byId('recorded').textContent;
  if (!recorded) return poll();
  const { data, experts } = JSON.parse(recorded);
  takeExperts(experts, data.time);
  take(data);
  for (const id of ['pause', 'to-chat']) byId(id).hidden = true;
  text('status', `As it was at ${new Date(data.time * 1000).toLocaleString('en-GB')}.`);
  return show();
}
start();
