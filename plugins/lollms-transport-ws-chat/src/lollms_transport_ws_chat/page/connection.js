// The WebSocket: connects, sends the key first where one is needed, and connects again after a breakdown.

const FEATURES = ['stream', 'state', 'playback', 'interrupt', 'turn', 'partial', 'session'];
const FINAL = new Set([1008, 4001, 4002, 4003]);
const LONGEST_PAUSE = 15000;

export class Connection {
  constructor(base, clientId, choice, on) {
    this.base = base;
    this.clientId = clientId;
    this.choice = choice;
    this.on = on;
    this.key = null;
    this.pause = 500;
    this.socket = null;
    this.timer = null;
  }

  open() {
    const query = new URLSearchParams({ clientId: this.clientId, features: FEATURES.join(','), ...this.choice() });
    const address = new URL(this.base || '/', location.href);
    address.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
    address.search = query.toString();
    const socket = new WebSocket(address);
    this.socket = socket;
    socket.onopen = () => {
      if (this.key) this.send('AUTH', { api_key: this.key });
      this.on.open();
    };
    socket.onmessage = (event) => {
      this.pause = 500;
      const message = JSON.parse(event.data);
      this.on.message(message.type, message.payload);
    };
    socket.onclose = (event) => {
      if (socket !== this.socket) return;
      this.socket = null;
      const again = !FINAL.has(event.code);
      this.on.close(event.code, event.reason, again);
      if (again) {
        this.timer = setTimeout(() => this.open(), this.pause);
        this.pause = Math.min(2 * this.pause, LONGEST_PAUSE);
      }
    };
  }

  close() {
    clearTimeout(this.timer);
    const socket = this.socket;
    this.socket = null;
    socket?.close(1000);
  }

  get ready() {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  send(type, payload = {}) {
    if (!this.ready) return false;
    this.socket.send(JSON.stringify({ type, payload }));
    return true;
  }
}
