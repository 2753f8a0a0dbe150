// The page: what is said, what the server is doing, and the buttons.

import { Connection } from './connection.js';
import { canListen, canSpeak, Listener, Speaker } from './speech.js';

const $ = (id) => document.getElementById(id);
const base = new URL('..', import.meta.url).pathname.replace(/\/$/, '');
const asked = new URLSearchParams(location.search);
const choice = Object.fromEntries(
  ['binding', 'model', 'personality'].filter((name) => asked.get(name)).map((name) => [name, asked.get(name)]),
);

const STATES = {
  listening: () => 'Listening',
  buffering: () => 'Waiting for the rest…',
  thinking: () => 'Thinking…',
  speaking: (waiting) => (waiting ? `Speaking · ${waiting} waiting` : 'Speaking'),
};
const REASONS = {
  welcome: '',
  complete: 'answered because the turn was complete',
  timeout: 'answered after silence',
  max_sentences: 'answered after several pieces',
  end_of_turn: 'answered because you asked for it',
};

// --- what is remembered ---

function newClientId() {
  const random = crypto.getRandomValues(new Uint32Array(4));
  return `web-${Array.from(random, (number) => number.toString(36)).join('')}`;
}

function clientId() {
  const known = localStorage.getItem('lollms-voice-chat-client');
  if (known) return known;
  const made = newClientId();
  localStorage.setItem('lollms-voice-chat-client', made);
  return made;
}

// --- the conversation ---

const log = $('log');
let growing = null; // the answer that is being streamed: {id, item}

function append(kind, text, about = '') {
  const item = document.createElement('li');
  item.className = `message ${kind}`;
  if (kind === 'mine' || kind === 'theirs') {
    const who = document.createElement('span');
    who.className = 'visually-hidden';
    who.textContent = kind === 'mine' ? 'You: ' : 'Assistant: ';
    const body = document.createElement('p');
    body.className = 'text';
    body.append(who, document.createTextNode(text));
    item.append(body);
  } else {
    item.textContent = text;
  }
  tellAbout(item, about);
  log.append(item);
  log.scrollTop = log.scrollHeight;
  $('hint').hidden = $('hint').hidden || kind === 'mine';
  return item;
}

function tellAbout(item, about) {
  if (!about) return;
  const line = document.createElement('p');
  line.className = 'about';
  line.textContent = about;
  item.append(line);
}

function setText(item, text) {
  item.querySelector('.text').lastChild.data = text;
  log.scrollTop = log.scrollHeight;
}

function showDelta({ response_id: id, text }) {
  if (growing?.id !== id) {
    growing = { id, item: append('theirs', '') };
    growing.item.ariaBusy = 'true'; // read it out when it is complete
  }
  setText(growing.item, growing.item.querySelector('.text').lastChild.data + text);
}

function showResponse({ response_id: id, text, reason }) {
  const about = REASONS[reason] ?? '';
  if (growing?.id === id) {
    setText(growing.item, text);
    growing.item.ariaBusy = 'false';
    tellAbout(growing.item, about);
    spoken = { id, item: growing.item };
    growing = null;
  } else {
    spoken = { id, item: append('theirs', text, about) };
  }
}

function showState(state, text) {
  $('state').dataset.state = state;
  $('state-text').textContent = text;
  $('answer-now').hidden = state !== 'buffering';
  $('stop').hidden = !(state === 'thinking' || state === 'speaking');
}

// --- speech ---

const speaker = canSpeak ? new Speaker() : null;
let spoken = null; // the answer that is or was read aloud: {id, item}
let lastPartial = 0;

const listener = new Listener({
  interim(text) {
    $('interim').textContent = text;
    if (text && performance.now() - lastPartial > 1000) {
      lastPartial = performance.now();
      connection.send('USER_PARTIAL', { text });
    }
  },
  final(text) {
    if (text) say(text);
  },
  error(name) {
    const denied = name === 'not-allowed' || name === 'service-not-allowed';
    append('wrong', denied ? 'The browser may not use the microphone.' : `Listening failed: ${name}.`);
  },
  end() {
    $('interim').textContent = '';
    $('mic').setAttribute('aria-pressed', 'false');
  },
});

function readAloud(payload) {
  const facts = { response_id: payload.response_id };
  if (speaker && $('speak').checked) {
    speaker.say(
      payload.text,
      $('language').value,
      () => {
        listener.hold(true);
        connection.send('PLAYBACK_STARTED', facts);
      },
      () => {
        listener.hold(false);
        connection.send('PLAYBACK_FINISHED', facts);
      },
    );
  } else {
    connection.send('PLAYBACK_FINISHED', facts); // it is read with the eyes: nothing to wait for
  }
}

function interrupt() {
  const facts = { played_ms: $('speak').checked && speaker ? speaker.playedMs : 0 };
  if (connection.send('INTERRUPT', facts)) speaker?.stop();
}

// --- the server ---

const handlers = {
  SESSION({ resumed, history_len: count }) {
    if (resumed && count && !log.children.length) append('note', `Conversation continued (${count} messages so far).`);
  },
  STATE: ({ state, buffer_size: waiting }) => showState(state, STATES[state](waiting)),
  AI_RESPONSE_DELTA: showDelta,
  AI_RESPONSE(payload) {
    showResponse(payload);
    readAloud(payload);
  },
  INTERRUPTED({ response_id: id, text }) {
    const item = growing?.id === id ? growing.item : spoken?.id === id ? spoken.item : null;
    if (item && growing?.id !== id) tellAbout(item, text ? 'interrupted' : 'interrupted before it was heard');
    else if (item) tellAbout(item, 'interrupted');
    if (item) item.ariaBusy = 'false';
    growing = null;
  },
  ERROR({ code, message, text }) {
    if (code === 'key_missing' || code === 'unauthorized') askForKey(code === 'unauthorized' ? 'This key is not valid.' : '');
    else append('wrong', text ? `${message} (“${text}” was not answered.)` : message);
  },
};

const connection = new Connection(base, clientId(), () => ({ ...choice, language: $('language').value }), {
  open() {
    enable(true);
    showState('listening', 'Connected');
  },
  message(type, payload) {
    handlers[type]?.(payload);
  },
  close(code, reason, again) {
    enable(false);
    speaker?.stop();
    if (again) showState('connecting', 'Connecting again…');
    else showState('broken', code === 4001 ? 'Open in another window' : reason || 'Disconnected');
  },
});

function enable(on) {
  for (const id of ['send', 'mic']) $(id).disabled = !on;
}

function say(text) {
  $('interim').textContent = '';
  if (connection.send('USER_INPUT', { text })) append('mine', text);
  else append('wrong', 'Not connected: nothing was sent.');
}

// --- the API key ---

function askForKey(error) {
  connection.close();
  sessionStorage.removeItem('lollms-api-key');
  showState('broken', 'An API key is needed');
  $('key-error').textContent = error;
  $('key-form').hidden = false;
  $('composer').hidden = true;
  $('key').focus();
}

$('key-form').addEventListener('submit', (event) => {
  event.preventDefault();
  sessionStorage.setItem('lollms-api-key', $('key').value);
  $('key-form').hidden = true;
  $('composer').hidden = false;
  start();
});

async function start() {
  connection.key = sessionStorage.getItem('lollms-api-key');
  if (!connection.key) {
    const health = await fetch(`${base}/healthz`).then((answer) => answer.json()).catch(() => ({}));
    if (health.key_required) {
      askForKey('');
      return;
    }
  }
  connection.open();
}

// --- the controls ---

const text = $('text');

function fit() {
  text.rows = Math.min(6, text.value.split('\n').length);
}

$('composer').addEventListener('submit', (event) => {
  event.preventDefault();
  const said = text.value.trim();
  if (!said || !connection.ready) return;
  say(said);
  text.value = '';
  fit();
  text.focus();
});
text.addEventListener('input', fit);
text.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $('composer').requestSubmit();
  }
});
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && !$('stop').hidden) interrupt();
});
$('stop').addEventListener('click', interrupt);
$('answer-now').addEventListener('click', () => connection.send('END_OF_TURN'));
$('fresh').addEventListener('click', () => {
  connection.close();
  speaker?.stop();
  connection.clientId = newClientId();
  localStorage.setItem('lollms-voice-chat-client', connection.clientId);
  log.replaceChildren();
  growing = spoken = null;
  connection.open();
  text.focus();
});
$('mic').addEventListener('click', () => {
  const on = $('mic').getAttribute('aria-pressed') !== 'true';
  $('mic').setAttribute('aria-pressed', String(on));
  if (on) listener.start($('language').value);
  else listener.stop();
});
$('language').addEventListener('change', () => {
  connection.close();
  connection.open();
});
$('speak').addEventListener('change', () => {
  if (!$('speak').checked) speaker?.stop();
});

$('mic').hidden = $('privacy').hidden = !canListen;
$('speak-label').hidden = !canSpeak;
$('language-label').hidden = !canListen && !canSpeak;
const spokenHere = [...$('language').options].find((option) => option.value.slice(0, 2) === navigator.language.slice(0, 2));
if (spokenHere) $('language').value = spokenHere.value;
enable(false);
text.focus();
start();
