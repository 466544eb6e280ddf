"use strict";
/* Data files are scripts, because a page opened from a folder can load no other data. Each one calls
   atlas(key, value) once. The key is also the file's name in data/. */
const Atlas = {};
(() => {
  const RECENT = 400; // Chunks of neurons and samples in the cache; columns and words all stay.
  const arrived = new Map();
  const loads = new Map();

  window.atlas = (key, value) => { arrived.set(key, value); };

  /** Load the value of a key from its file. The next call retries a failed load. */
  Atlas.load = (key) => {
    if (!loads.has(key)) loads.set(key, fetchScript(key));
    return loads.get(key);
  };

  const fetchScript = (key) => new Promise((resolve, reject) => {
    const script = document.createElement("script");
    const fail = () => {
      loads.delete(key);
      script.remove();
      reject(new Error(`data/${key}.js could not be read`));
    };
    script.src = `data/${key}.js`;
    script.onerror = fail;
    script.onload = () => {
      if (!arrived.has(key)) return fail();
      script.remove();
      resolve(arrived.get(key));
      arrived.delete(key);
      forgetOld();
    };
    document.head.append(script);
  });

  const forgetOld = () => {
    const chunks = [...loads.keys()].filter((key) => /^(neurons|samples)\//.test(key));
    for (const key of chunks.slice(0, Math.max(0, chunks.length - RECENT))) loads.delete(key);
  };

  /** Decode a base64 string into its own buffer. */
  Atlas.bytes = (packed) => {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(packed);
    const text = atob(packed);
    const bytes = new Uint8Array(text.length);
    for (let place = 0; place < text.length; place += 1) bytes[place] = text.charCodeAt(place);
    return bytes;
  };

  /** Load a sample. */
  Atlas.loadSample = async (id) => {
    const chunk = Math.floor(id / Atlas.index.sample_chunk);
    const samples = await Atlas.load(`samples/${Math.floor(chunk / Atlas.index.per_folder)}/${chunk}`);
    return samples[id] || { problem: "this sample was not written" };
  };
})();
