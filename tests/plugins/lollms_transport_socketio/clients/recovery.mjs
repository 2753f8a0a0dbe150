// Connection state recovery by socket.io-client 4.8: the connection breaks in the middle of an answer, and nothing is
// lost.
//   node recovery.mjs URL
import assert from "node:assert/strict";
import { io } from "socket.io-client-4.8";

const socket = io(process.argv[2], {
  transports: ["websocket"],
  auth: { recovery: true },
  reconnectionDelay: 50,
  reconnectionDelayMax: 100,
});
const chunks = [];
let ends = 0;
let broken = 0;

socket.on("text_chunk", ({ chunk }) => {
  chunks.push(chunk);
  if (chunks.length === 5 || chunks.length === 20) {
    broken += 1;
    socket.io.engine.transport.ws.terminate(); // as when the network goes away
  }
});
const connected = () => new Promise((resolve) => socket.once("connect", resolve));
await connected();
assert.equal(socket.recovered, false);
socket.on("connect", () => assert.equal(socket.recovered, true));
socket.on("text_generated", () => (ends += 1));
socket.emit("select_binding", { binding_name: "counting" });
socket.emit("generate_text", { prompt: "go" });
const { text } = await new Promise((resolve, reject) => {
  setTimeout(() => reject(new Error(`no end within 40 s, ${chunks.length} chunks`)), 40000).unref();
  socket.on("text_generated", resolve);
});
assert.equal(broken, 2);
assert.equal(ends, 1);
assert.equal(chunks.join(""), text);
console.log(JSON.stringify({ chunks: chunks.length, recovered: socket.recovered }));
socket.disconnect();
