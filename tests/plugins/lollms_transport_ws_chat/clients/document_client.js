class ChatClient {
  constructor(clientId, serverUrl = 'ws://localhost:9000') {
    this.clientId = clientId;
    this.serverUrl = `${serverUrl}?clientId=${clientId}`;
    this.ws = null;
    this.messageHandlers = new Map();
  }

  connect() {
    this.ws = new WebSocket(this.serverUrl);

    this.ws.onopen = () => {
      console.log('Connected to chat server');
    };

    this.ws.onmessage = (event) => {
      const message = JSON.parse(event.data);
      this.handleMessage(message);
    };

    this.ws.onclose = (event) => {
      console.log('Disconnected from chat server');
    };
  }

  sendMessage(text) {
    if (this.ws && this.ws.readyState === WebSocket.OPEN) {
      const message = {
        type: 'USER_INPUT',
        payload: {
          text: text,
          client_id: this.clientId
        }
      };
      this.ws.send(JSON.stringify(message));
    }
  }

  handleMessage(message) {
    switch (message.type) {
      case 'AI_RESPONSE':
        console.log('AI:', message.payload.text);
        break;
      case 'ERROR':
        console.error('Error:', message.payload.message);
        break;
      default:
        console.log('Unknown message type:', message.type);
    }
  }
}
