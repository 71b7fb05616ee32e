// A conversation over /v1/chat/completions. What the model says is text: it is never read as HTML.
const byId = (id) => document.getElementById(id);
let messages = [];
let answering = null;  // an AbortController

function say(who, css) {
  const box = document.createElement('article');
  box.className = css;
  const name = document.createElement('h3');
  name.textContent = who;
  const text = document.createElement('div');
  text.className = 'text';
  box.append(name, text);
  byId('log').append(box);
  return { box, text };
}

// The box of what the model thinks, before what it says.
function thoughts(shown) {
  const details = document.createElement('details');
  const summary = document.createElement('summary');
  summary.textContent = 'Reasoning';
  const text = document.createElement('div');
  text.className = 'text';
  details.append(summary, text);
  shown.box.insertBefore(details, shown.text);
  return text;
}

// The data of the server-sent events of an answer, as they come.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split('\n');
    rest = lines.pop();
    for (const line of lines) {
      if (line === 'data: [DONE]') return;
      if (line.startsWith('data: ')) yield JSON.parse(line.slice(6));
    }
  }
}

function body() {
  const system = byId('system').value.trim();
  return JSON.stringify({
    messages: [...(system ? [{ role: 'system', content: system }] : []), ...messages],
    temperature: Number(byId('temperature').value),
    max_tokens: Number(byId('max-tokens').value),
    stream: true,
  });
}

async function answer(shown) {
  const options = { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: body(), signal: answering.signal };
  const response = await Server.ask('/v1/chat/completions', options);
  if (!response.ok) throw new Error((await response.json()).error.message);
  let thinking = null;
  let reason = '';
  for await (const event of events(response)) {
    if (event.error) throw new Error(event.error.message);
    const choice = event.choices && event.choices[0];
    if (!choice) continue;
    if (choice.delta.reasoning_content) (thinking = thinking || thoughts(shown)).append(choice.delta.reasoning_content);
    if (choice.delta.content) shown.text.append(choice.delta.content);
    if (choice.finish_reason) reason = choice.finish_reason;
    const bottom = document.documentElement.scrollHeight - innerHeight;
    if (bottom - scrollY < 200) scrollTo(0, bottom);
  }
  return reason === 'length' ? 'Ended at the most tokens.' : 'Answered.';
}

function setAnswering(controller) {
  answering = controller;
  byId('send').disabled = byId('clear').disabled = controller !== null;
  byId('stop').disabled = controller === null;
}

async function send(event) {
  event.preventDefault();
  const text = byId('message').value.trim();
  if (!text || answering) return;
  messages.push({ role: 'user', content: text });
  say('You', 'mine').text.append(text);
  byId('message').value = '';
  const shown = say('Model', 'model');
  setAnswering(new AbortController());
  byId('status').textContent = 'The model is answering.';
  try {
    byId('status').textContent = await answer(shown);
  } catch (error) {
    byId('status').textContent = error.name === 'AbortError' ? 'Stopped.' : 'Not answered: ' + error.message;
  }
  setAnswering(null);
  if (shown.text.textContent) messages.push({ role: 'assistant', content: shown.text.textContent });
  else if (!shown.box.querySelector('details')) shown.box.remove();
  byId('message').focus();
}

byId('send-form').onsubmit = send;
byId('stop').onclick = () => answering && answering.abort();
byId('clear').onclick = () => {
  messages = [];
  byId('log').replaceChildren();
  byId('status').textContent = '';
  byId('message').focus();
};
byId('message').onkeydown = (event) => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) byId('send-form').requestSubmit();
};
Server.json('/v1/models').then((models) => { byId('title').textContent = 'Chat with ' + models.data[0].id; })
  .catch((error) => { byId('status').textContent = 'No model: ' + error.message; });
