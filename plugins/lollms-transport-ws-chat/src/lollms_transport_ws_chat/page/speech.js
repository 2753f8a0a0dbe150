// Speech in and out, as far as the browser has it (Web Speech API).

const Recognition = window.SpeechRecognition || window.webkitSpeechRecognition;

export const canListen = Boolean(Recognition);
export const canSpeak = 'speechSynthesis' in window;

export class Listener {
  constructor(on) {
    this.on = on;
    this.wanted = false;
    this.held = false;
    this.running = false;
    this.recognition = null;
  }

  start(language) {
    this.wanted = true;
    const recognition = new Recognition();
    this.recognition = recognition;
    recognition.lang = language;
    recognition.continuous = true;
    recognition.interimResults = true;
    recognition.onresult = (event) => {
      let interim = '';
      for (let index = event.resultIndex; index < event.results.length; index += 1) {
        const result = event.results[index];
        if (result.isFinal) this.on.final(result[0].transcript.trim());
        else interim += result[0].transcript;
      }
      this.on.interim(interim.trim());
    };
    recognition.onerror = (event) => {
      if (event.error === 'no-speech' || event.error === 'aborted') return;
      this.wanted = false;
      this.on.error(event.error);
    };
    recognition.onend = () => {
      if (recognition !== this.recognition) return;
      this.running = false;
      if (!this.wanted) this.on.end();
      else if (!this.held) this.run(); // browsers end by themselves after a while
    };
    if (!this.held) this.run();
  }

  run() {
    this.running = true;
    this.recognition.start();
  }

  // While the answer is read aloud, the microphone would hear it.
  hold(on) {
    this.held = on;
    if (!this.wanted) return;
    if (on) this.recognition.stop();
    else if (!this.running) this.run();
  }

  stop() {
    this.wanted = false;
    if (this.running) this.recognition.stop();
    else this.on.end();
  }
}

export class Speaker {
  constructor() {
    this.began = 0;
  }

  say(text, language, started, finished) {
    const utterance = new SpeechSynthesisUtterance(text);
    let over = false;
    utterance.lang = language;
    utterance.onstart = () => {
      this.began = performance.now();
      started();
    };
    utterance.onend = utterance.onerror = () => {
      if (!over) finished();
      over = true;
    };
    speechSynthesis.speak(utterance);
  }

  stop() {
    speechSynthesis.cancel();
  }

  get playedMs() {
    return this.began ? performance.now() - this.began : 0;
  }
}
