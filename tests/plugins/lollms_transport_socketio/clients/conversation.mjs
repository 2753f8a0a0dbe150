// A whole conversation with a real socket.io-client, driven from outside:
//   node conversation.mjs VERSION URL TRANSPORTS AUTH
// VERSION is 4.4 or 4.8, TRANSPORTS a list with commas (polling,websocket upgrades), AUTH JSON.
// Prints one line of JSON for what happened; exits with 1 when anything is not as it should be.
import assert from "node:assert/strict";

const [version, url, transports, auth] = process.argv.slice(2);
const { io } = await import(`socket.io-client-${version}`);

const socket = io(url, {
  transports: transports.split(","),
  auth: JSON.parse(auth),
  reconnection: false,
  timeout: 20000,
});
const heard = [];
const waiting = [];

socket.onAny((event, ...payload) => {
  heard.push([event, ...payload]);
  for (const waiter of [...waiting]) waiter();
});

const next = (name, from = 0) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ${name} within 30 s: ${JSON.stringify(heard)}`)), 30000);
    const look = () => {
      const found = heard.slice(from).find(([event]) => event === name);
      if (!found) return;
      clearTimeout(timer);
      waiting.splice(waiting.indexOf(look), 1);
      resolve(found[1]);
    };
    waiting.push(look);
    look();
  });

const ask = (event, reply, ...payload) => {
  const from = heard.length;
  socket.emit(event, ...payload);
  return next(reply, from);
};

const refused = await new Promise((resolve) => {
  socket.on("connect", () => resolve(null));
  socket.on("connect_error", (error) => resolve({ message: error.message, data: error.data ?? null }));
});
if (refused) {
  console.log(JSON.stringify({ refused }));
  process.exit(0);
}
if (transports === "polling,websocket" && socket.io.engine.transport.name !== "websocket") {
  await new Promise((resolve) => socket.io.engine.once("upgrade", resolve));
}
const transport = socket.io.engine.transport.name;

const bindings = await ask("list_available_bindings", "bindings_list");
assert.equal(bindings.success, true);
assert.deepEqual(await ask("select_binding", "select_binding", { binding_name: "echo" }), {
  success: true,
  binding_name: "echo",
});
const { available_models: models } = await ask("list_available_models", "available_models_list");
assert.deepEqual(await ask("select_model", "select_model", { model_name: models[0].path }), {
  success: true,
  model_name: models[0].path,
});
const added = await ask("add_personality", "personality_added", { path: "lollms" });
assert.equal((await ask("activate_personality", "activate_personality", { id: added.id })).success, true);

const prompt = "Grüße aus Node: " + Array.from({ length: 60 }, (_, n) => `word${n}`).join(" ");
let from = heard.length;
socket.emit("generate_text", { prompt, personality: added.id, n_predicts: 256 });
const { text } = await next("text_generated", from);
const chunks = heard.slice(from).filter(([event]) => event === "text_chunk");
assert.equal(text, prompt);
assert.equal(chunks.map(([, { chunk }]) => chunk).join(""), prompt);
assert.ok(chunks.length > 10 && chunks.every(([, { type }]) => type === 0));

await ask("select_binding", "select_binding", { binding_name: "slow" });
from = heard.length;
socket.emit("generate_text", { prompt: "go", personality: -1 });
await next("text_chunk", from);
const canceled = await ask("cancel_generation", "generation_canceled", {});
assert.deepEqual(canceled, { message: "Generation is canceled." });

await new Promise((resolve) => socket.timeout?.(20000).emit("tokenize", { prompt: "a" }, resolve) ?? resolve());
console.log(JSON.stringify({ transport, chunks: chunks.length, models: models.length }));
socket.disconnect();
