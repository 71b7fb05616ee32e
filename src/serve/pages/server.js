// Asks this server with the reader's API key, which is asked for when one is needed and kept until the tab is closed.
const Server = (() => {
  const place = 'wideload-api-key';
  let key = '';
  try { key = sessionStorage.getItem(place) || ''; } catch { /* no storage: asked for again after a reload */ }
  let waiting = null;

  // Shows the form of the page; ends when a key has been given.
  function askForKey(wrong) {
    const form = document.getElementById('key-form');
    const input = document.getElementById('key');
    document.getElementById('key-wrong').hidden = !wrong;
    if (waiting) return waiting;
    form.hidden = false;
    input.focus();
    waiting = new Promise((done) => {
      form.onsubmit = (event) => {
        event.preventDefault();
        key = input.value.trim();
        try { sessionStorage.setItem(place, key); } catch { /* as above */ }
        input.value = '';
        form.hidden = true;
        waiting = null;
        done();
      };
    });
    return waiting;
  }

  // fetch of a path of this server, again once there is a key that is right. Errors: as fetch.
  async function ask(path, options = {}) {
    for (;;) {
      const used = key;
      const headers = { ...options.headers };
      if (used) headers.Authorization = 'Bearer ' + used;
      const response = await fetch(path, { ...options, headers, cache: 'no-store' });
      if (response.status !== 401) return response;
      if (used === key) await askForKey(used !== '');
    }
  }

  // The same for JSON. Errors: with the server's message where it refuses.
  async function json(path, options) {
    const response = await ask(path, options);
    const body = await response.json();
    if (!response.ok) throw new Error(body.error ? body.error.message : 'status ' + response.status);
    return body;
  }

  return { ask, json };
})();
